"""Keeps open pages live: one task looks at the store's cursor for all of them, and tells each that something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25
MAX_OPEN: Final = 200
# Proxies close a connection that is silent for a minute, and only writing shows that a page is gone.
_BEAT_S: Final = 20.0


class Live:
    """Looks at the cursor only while a page is open; pages share the look, so another page costs a line of text a change."""

    def __init__(self, cursor: Callable[[], str], *, look_s: float = LOOK_S) -> None:
        self._cursor = cursor
        self._look_s = look_s
        self._open: set[asyncio.Event] = set()
        self._someone = asyncio.Event()
        self._ending = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for as long as the block lasts."""
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._ending = True
            for each in self._open:
                each.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def stream(self, _request: Request) -> Response:
        """Answer with server-sent events: one `changed` for each time that the store has changed."""
        if len(self._open) >= MAX_OPEN:
            return PlainTextResponse(f"at most {MAX_OPEN} pages may be open", 503)
        return StreamingResponse(self._events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _events(self) -> AsyncIterator[str]:
        mine = asyncio.Event()
        self._open.add(mine)
        self._someone.set()
        try:
            yield "retry: 2000\n\n"
            while not self._ending:
                try:
                    await asyncio.wait_for(mine.wait(), _BEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                mine.clear()
                if not self._ending:
                    yield "event: changed\ndata: {}\n\n"
        finally:
            self._open.discard(mine)

    async def _look(self) -> None:
        last = ""
        while True:
            if not self._open:
                self._someone.clear()
                await self._someone.wait()
            try:
                now = await asyncio.to_thread(self._cursor)
            except Exception as error:  # noqa: BLE001  a store that does not answer now may answer later
                logger.warning("the store does not say whether it has changed: %s", error)
                await asyncio.sleep(5.0)
                continue
            if last and now != last:
                for each in self._open:
                    each.set()
            last = now
            await asyncio.sleep(self._look_s)

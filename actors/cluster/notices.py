"""Lets the notifier look as soon as something has happened, and puts on record what happens to the system itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from actors.checks import brief
from actors.clock import Clock
from actors.cluster.peers import Peers, PeerUnavailableError
from actors.replies import Happening, happening
from actors.storage import UNAVAILABLE, Store, happenings

logger = logging.getLogger(__name__)

_HINT_S: Final = 2.0


class Notices:
    """What an actor has to tell of. Nobody waits for the notifier: it looks by itself too, where a hint is lost."""

    def __init__(self, peers: Peers, store: Callable[[], Store | None], clock: Clock) -> None:
        self._peers = peers
        self._store = store
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinting: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Hint from the loop that runs now; without it nothing is hinted."""
        self._loop = asyncio.get_running_loop()

    def happened(self) -> None:
        """Let the notifier look, soon; called in any thread, after the commit."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hint)

    def actor_down(self, name: str, why: str) -> None:
        """Put on record that an actor does not answer; called in a thread."""
        at = self._clock.now().wall_s
        self._record(happening("actor_down", f"{name}:{at!r}", at, "warning", subject=name, comment=why))

    def store_trouble(self, why: str) -> None:
        """Put on record that something is wrong with the store, as far as it still takes that; called in a thread."""
        at = self._clock.now().wall_s
        self._record(happening("store_trouble", repr(at), at, "critical", comment=why))

    def _record(self, row: Happening) -> None:
        store = self._store()
        if store is None:
            return
        try:
            happenings.record_of_system(store, row)
        except UNAVAILABLE as error:
            logger.warning("%s (%s) cannot be put on record: %s", row["kind"], row["comment"], brief(error))
            return
        self.happened()

    def _hint(self) -> None:
        self._again = True
        if self._hinting is None or self._hinting.done():
            self._hinting = asyncio.get_running_loop().create_task(self._hinted())

    async def _hinted(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._peers.call("notifier", "hint", timeout_s=_HINT_S)
            except PeerUnavailableError:
                return  # there is none, or it looks when it is back
            except Exception:
                logger.exception("the notifier could not be told to look; it looks by itself")
                return

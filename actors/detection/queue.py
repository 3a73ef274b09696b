"""The queue before the commit: waiting works are committed together, and each gets its reply after the commit."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

from actors import failpoints
from actors.cluster.store_thread import RETRY_S, STORE_ERRORS, StoreThread
from actors.detection.model import Ingest, Work
from actors.detection.state import DetectionState, UnavailableError
from actors.replies import Ingested, ingested
from actors.storage import StaleEpochError

logger = logging.getLogger(__name__)

# What waits here is memory: more is refused as busy, and the producer's window holds it.
_MAX_WAITING_BYTES: Final = 64 * 2**20
_MAX_WAITING: Final = 20_000
# One transaction: long enough to share an fsync, short enough that a reply does not wait for a hundred others.
_GROUP_BYTES: Final = 8 * 2**20
_GROUP: Final = 2500
_EARLY_S: Final = 0.2  # how long a batch waits for the one before it


class CommitQueue:
    """Commits works in groups, in the order in which they came, in the thread that owns the store.

    Args:
        thread: that owns the models.
        commit: commits `works` on them, in that thread.
        committed: is called after each group.
    """

    def __init__(
        self,
        thread: StoreThread[DetectionState],
        commit: Callable[..., list[Any]],
        committed: Callable[[], None],
    ) -> None:
        self._thread = thread
        self._commit = commit
        self._committed = committed
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._waiting_bytes = 0
        self._progress = asyncio.Event()  # set, and replaced, when a group has been committed
        self._pump: asyncio.Task[None] | None = None

    async def ingested(self, work: Ingest) -> Ingested:
        """Count a batch; one that came before its turn (Ray keeps no order between calls) waits for it for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _EARLY_S
        while True:
            progress = self._progress
            reply: Ingested = await self.replied(work)
            left = deadline - loop.time()
            if reply["status"] != "gap" or left <= 0:
                return reply
            try:
                await asyncio.wait_for(progress.wait(), left)
            except TimeoutError:
                return reply

    async def replied(self, work: Work) -> Any:
        """Return the reply of a work after its commit; raises what is the caller's mistake."""
        size = len(work.payload) if isinstance(work, Ingest) else 0
        if self._waiting_bytes + size > _MAX_WAITING_BYTES or len(self._waiting) >= _MAX_WAITING:
            reason = f"{len(self._waiting)} calls with {self._waiting_bytes} bytes wait for their commit"
            return ingested("busy", epoch=self._epoch, reason=reason, retry_in_s=RETRY_S)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        self._waiting_bytes += size
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._pump_all())
        reply = await future
        if isinstance(reply, Exception):
            raise reply
        if isinstance(work, Ingest):  # for whatever else waits, "after_commit" is the same boundary
            failpoints.reach("detector.before_reply")
        return reply

    @property
    def _epoch(self) -> int:
        return 0 if self._thread.state is None else self._thread.state.epoch

    async def _pump_all(self) -> None:
        while self._waiting:
            group = self._group()
            works = [work for work, _ in group]
            try:
                replies = await self._thread.do(functools.partial(self._commit, works=works))
            except (StaleEpochError, UnavailableError, *STORE_ERRORS) as error:
                logger.warning("the store is unavailable: %s", error)
                replies = [ingested("unavailable", epoch=self._epoch, reason=str(error), retry_in_s=RETRY_S)] * len(works)
            except Exception as error:
                logger.exception("a commit failed; its callers must resend")
                reason = f"{type(error).__name__}: {error}"
                replies = [ingested("unavailable", epoch=self._epoch, reason=reason, retry_in_s=RETRY_S)] * len(works)
            for (_, future), reply in zip(group, replies, strict=True):
                if not future.done():
                    future.set_result(reply)
            self._progress.set()
            self._progress = asyncio.Event()
            self._committed()

    def _group(self) -> list[tuple[Work, asyncio.Future[Any]]]:
        size, count = 0, 0
        for work, _ in self._waiting[:_GROUP]:
            size += len(work.payload) if isinstance(work, Ingest) else 0
            if size > _GROUP_BYTES and count:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_bytes -= sum(len(work.payload) for work, _ in group if isinstance(work, Ingest))
        return group

"""The messages of a detector process to the dispatcher: its outbox, and queries for the orders of its episodes.

An outbox row is sent until the dispatcher has recorded it; what comes back is committed together with the row's removal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from actors import failpoints
from actors.clock import Instant, event_instant
from actors.cluster.peers import Peers, PeerUnavailableError
from actors.cluster.store_thread import StoreThread
from actors.detection.model import Change, Model
from actors.detection.queue import CommitQueue
from actors.detection.rules.record import asks_at
from actors.detection.state import DetectionState

logger = logging.getLogger(__name__)

_CALL_S: Final = 5.0
_MAX_ASKED: Final = 500  # orders in one question


class Errands:
    """Sends and queries in separate tasks, so that no commit waits for the dispatcher."""

    def __init__(self, peers: Peers, thread: StoreThread[DetectionState], queue: Callable[[], CommitQueue]) -> None:
        self._peers = peers
        self._thread = thread
        self._queue = queue
        self._sending: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def send_soon(self) -> None:
        """Send what is in the outbox and not in flight."""
        state = self._thread.state
        if state is None:
            return
        for id_ in list(state.outbox):
            if id_ not in self._sending:
                self._sending.add(id_)
                task = asyncio.get_running_loop().create_task(self._send(id_))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def send_all(self) -> None:
        """Send what is in the outbox, once, and wait for it."""
        self.send_soon()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _send(self, id_: str) -> None:
        """Send one outbox row. Without a reply it stays, and is sent again."""
        try:
            row = None if self._thread.state is None else self._thread.state.outbox.get(id_)
            if row is None:
                return
            model, method, body = row
            failpoints.reach("outbox.before_send")
            reply = await self._peers.call("dispatcher", method, timeout_s=_CALL_S, **body)
            failpoints.reach("outbox.after_send")
            if reply.get("status") != "recorded":
                return
            await self._queue().replied(Change(model, _recorded(id_, method, reply), sent=id_))
        except PeerUnavailableError as error:
            logger.info("the dispatcher did not answer, resending %s: %s", id_, error)
        except Exception:
            logger.exception("%s could not be sent; resending it", id_)
        finally:
            self._sending.discard(id_)

    async def follow(self, followed: Mapping[str, str]) -> None:
        """Ask how the orders of these episodes (model by episode) are, a part at a time."""
        pairs = list(followed.items())
        for start in range(0, len(pairs), _MAX_ASKED):
            part = dict(pairs[start : start + _MAX_ASKED])
            try:
                orders = await self._peers.call("dispatcher", "orders", timeout_s=_CALL_S, episodes=list(part))
            except PeerUnavailableError:
                return
            if not isinstance(orders, dict) or orders.get("status") == "unavailable":
                return
            changes = [Change(part[episode], _ordered(episode, order)) for episode, order in orders.items() if episode in part]
            await asyncio.gather(*(self._queue().replied(change) for change in changes))


def _recorded(id_: str, method: str, reply: Mapping[str, Any]) -> Callable[[Model, Instant], None]:
    def make(model: Model, now: Instant) -> None:
        if method == "request":
            # On event time events may have come since it asked; the dispatcher's answer counts from the asking.
            record = model.book.get(id_)
            asked = event_instant(asks_at(record)) if model.on_event_time and record is not None else now
            model.effects += model.book.reply(id_, reply, now, asked)

    return make


def _ordered(episode: str, order: Mapping[str, Any]) -> Callable[[Model, Instant], None]:
    def make(model: Model, now: Instant) -> None:
        model.effects += model.book.order(episode, order, now)

    return make

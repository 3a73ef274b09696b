"""The observers, each with a bounded queue and a separate task, so that none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypedDict

from actors import wire
from actors.checks import shown
from actors.cluster.peers import Peers, PeerUnavailableError

logger = logging.getLogger(__name__)

QUEUE_BYTES: Final = 16 * 2**20  # of one observer: some seconds of a busy stream; what comes beyond is dropped and counted
_CALL_S: Final = 30.0
_AWAY: Final = 3  # calls without a reply before an observer that a driver registered is taken out
_PAUSE_S: Final = 0.5


class _Queue:
    def __init__(self, actor: str, *, pinned: bool) -> None:
        self.actor = actor
        self.pinned = pinned
        self.waiting: deque[tuple[str, bytes, int, bool, int]] = deque()  # model, payload, rows to skip, stamped, events
        self.bytes = 0
        self.delivered = self.dropped = self.failed = 0
        self.silent = 0  # calls in a row without a reply
        self.task: asyncio.Task[None] | None = None


class ObserverCounts(TypedDict):
    """What one observer has seen, in events."""

    actor: str
    pinned: bool  # the configuration names it
    delivered: int
    dropped: int
    failed: int
    waiting: int


class Observers:
    """The observers of one broadcaster, by name."""

    def __init__(self, peers: Peers, *, pause_s: float = _PAUSE_S) -> None:
        self._peers = peers
        self._pause_s = pause_s
        self._queues: dict[str, _Queue] = {}

    @property
    def any(self) -> bool:
        """Whether anybody observes."""
        return bool(self._queues)

    def add(self, name: str, actor: str, *, pinned: bool) -> None:
        """Register, or register again with another actor. ValueError for a bad name."""
        for field, value in (("name", name), ("observer", actor)):
            if not isinstance(value, str) or not 1 <= len(value) <= 200:
                raise ValueError(f"{field} must be a string of 1 to 200 characters, got {shown(value)}")
        known = self._queues.get(name)
        if known is not None:
            known.actor, known.pinned = actor, pinned
            return
        self._queues[name] = _Queue(actor, pinned=pinned)
        logger.info("observer %s registered", name)

    async def configure(self, wanted: Mapping[str, str], spawn: Callable[[str, str], str]) -> None:
        """Have the observers that the configuration names, by their targets, and no others of that kind.

        `spawn` makes the actor of a name and a target, and returns the actor's name; it may block.
        """
        for name, target in wanted.items():
            try:
                self.add(name, await asyncio.to_thread(spawn, name, target), pinned=True)
            except Exception:
                logger.exception("the observer %s (%s) could not be created", name, target)
        for name in [name for name, queue in self._queues.items() if queue.pinned and name not in wanted]:
            self.remove(name)

    def remove(self, name: str) -> None:
        """Unregister; what waits for it is dropped. KeyError where there is none of that name."""
        queue = self._queues.pop(name, None)
        if queue is None:
            raise KeyError(f"name must be that of a registered observer, got {shown(name)}")
        if queue.task is not None and queue.task is not asyncio.current_task():
            queue.task.cancel()
        logger.info("observer %s unregistered", name)

    def counts(self) -> dict[str, ObserverCounts]:
        """Return each observer's counts."""
        return {
            name: {
                "actor": queue.actor,
                "pinned": queue.pinned,
                "delivered": queue.delivered,
                "dropped": queue.dropped,
                "failed": queue.failed,
                "waiting": sum(events for *_, events in queue.waiting),
            }
            for name, queue in self._queues.items()
        }

    def offer(self, model: str, payload: object, skip: int, *, is_stamped: bool = False) -> None:
        """Queue a batch for every observer with space in its queue, from row `skip` on; never waits."""
        payload = bytes(wire.arrived(payload))  # a copy: what waits here must not hold a piece of Ray's object store
        events = wire.declared_rows(payload) - skip
        for name, queue in self._queues.items():
            if queue.bytes + len(payload) > QUEUE_BYTES:
                if not queue.dropped:
                    logger.warning("observer %s is too slow: events are dropped", name)
                queue.dropped += events
                continue
            queue.waiting.append((model, payload, skip, is_stamped, events))
            queue.bytes += len(payload)
            if queue.task is None or queue.task.done():
                queue.task = asyncio.get_running_loop().create_task(self._deliver(name, queue))

    async def _deliver(self, name: str, queue: _Queue) -> None:
        while queue.waiting:
            model, payload, skip, is_stamped, events = queue.waiting.popleft()
            queue.bytes -= len(payload)
            try:
                reply = await self._peers.call(
                    queue.actor, "on_batch", timeout_s=_CALL_S, model=model, payload=payload, skip=skip, stamped=is_stamped
                )
            except PeerUnavailableError as error:
                queue.dropped += events  # perhaps it has seen them: an observer sees each event once at most
                queue.silent += 1
                if queue.silent >= _AWAY and not queue.pinned:
                    logger.warning("observer %s has ended and is unregistered: %s", name, error)
                    if self._queues.get(name) is queue:
                        self.remove(name)
                    return
                await asyncio.sleep(self._pause_s)
                continue
            except Exception as error:  # noqa: BLE001  an observer's failure is its own
                reply = {"delivered": 0, "failed": events, "error": f"{type(error).__name__}: {error}"}
            queue.silent = 0
            queue.delivered += reply["delivered"]
            if reply["failed"]:
                queue.failed += reply["failed"]
                logger.error("observer %s failed on %d events: %s", name, reply["failed"], reply["error"])

"""Sources: the process that reads them, one thread each, so that one that is slow or down delays no other.

It runs only where the configuration has sources. On restart: positions, numbers and unacknowledged rows are in the store; it
goes on there. A predecessor that still runs is fenced off before its first commit, so each source is read by one process.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from actors import config
from actors.checks import brief, shown
from actors.clock import SystemClock
from actors.cluster import actor
from actors.cluster.deployment import end_stale_process
from actors.cluster.store_thread import STORE_ERRORS, StoreThread, or_unavailable
from actors.config.sources import SourceSettings
from actors.config.stored import load_stored
from actors.metrics.link import RayLink
from actors.plain import Json
from actors.replies import Hello, Looked, Reloaded, Unavailable
from actors.retraining import promotions
from actors.retraining.tables import DISPATCHER
from actors.sources import kinds
from actors.sources.feed import Feed
from actors.sources.registry_rules import Decided
from actors.sources.state import SourcesState
from actors.storage import StaleEpochError, Store

logger = logging.getLogger(__name__)

_OPEN_S: Final = 1.0
_AFTER_ERROR_S: Final = 5.0


@dataclass(slots=True)
class _Running:
    """The thread of one source; `turn` cuts its pause short."""

    settings: SourceSettings
    turn: threading.Event = field(default_factory=threading.Event)
    ends: bool = False

    def end(self) -> None:
        self.ends = True
        self.turn.set()


class Sources:
    """The process that reads sources. Constructed by deployment.py; every public method is a message."""

    def __init__(
        self, *, name: str, namespace: str, storage: str, slot: int | None = None
    ) -> None:  # every actor is made alike
        self._name = name
        self._namespace = namespace
        self._thread = StoreThread(storage, self._made)
        self._running: dict[str, _Running] = {}
        self._opening: asyncio.Task[None] | None = None

    async def hello(self) -> Hello:
        """Say who is here. Also begins the work after a restart."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        state = self._thread.state
        return actor.hello(self._name, epoch=0 if state is None else state.epoch, store=self._thread.store)

    async def reload(self) -> Reloaded | Unavailable:
        """Read the configuration again: new and changed sources begin, others end after what they do now."""

        async def act() -> Reloaded:
            await self._thread.do(lambda state: self._begin(state, self._configured()))
            return {"status": "reloaded"}

        return await or_unavailable(act())

    async def look(self, *, source: str) -> Looked:
        """Read a source now instead of at its next turn. KeyError: it is none of the configuration."""
        if source not in self._running:
            raise KeyError(f"source must be one of {shown(sorted(self._running))}, got {shown(source)}")
        self._running[source].turn.set()
        return {"status": "looking"}

    async def _open(self) -> None:
        while True:
            try:
                await self._thread.do(lambda state: self._begin(state, self._configured()))
            except STORE_ERRORS as error:
                logger.warning("the sources wait for the store: %s", brief(error))
            except StaleEpochError:
                return
            else:
                return
            await asyncio.sleep(_OPEN_S)

    def _made(self, store: Store) -> SourcesState:
        return SourcesState(store)

    def _configured(self) -> Json:
        store = self._thread.store
        settings = config.Settings() if store is None else load_stored(store)
        registry = settings.registry.mlflow
        return dict(settings.sources) | ({} if registry is None else {kinds.REGISTRY: registry})

    def _decisions(self, model: str) -> list[Decided]:
        """Return what this system has decided about a model's versions, as far as its registry is concerned."""
        store = self._thread.store
        if store is None:  # a feed runs only once the store is open
            return []
        with store.part(DISPATCHER).read() as connection:
            found = promotions.in_registry(connection, model)
        return [Decided(*each) for each in found]

    def _begin(self, state: SourcesState, configured: Json) -> None:
        for name, each in list(self._running.items()):
            if configured.get(name) != each.settings:
                each.end()
                del self._running[name]
        state.forget(list(configured))
        for name, settings in configured.items():
            if name not in self._running:
                running = self._running[name] = _Running(settings)
                feed = Feed(
                    name, settings, state, RayLink(self._namespace), functools.partial(kinds.make, decisions=self._decisions)
                )
                threading.Thread(target=_run, args=(feed, running), name=f"source {name}", daemon=True).start()


def _run(feed: Feed, running: _Running) -> None:
    clock = SystemClock()
    while not running.ends:
        running.turn.clear()  # before it reads: a look that is asked for meanwhile sees what came meanwhile
        try:
            with _TURNS.setdefault(feed.name, threading.Lock()):  # a predecessor of the same source ends its step first
                pause_s = 0.0 if running.ends else feed.step(clock.now().wall_s)
        except StaleEpochError as error:
            end_stale_process(error)
        except Exception:
            logger.exception("source %s: the step failed; the next one is in %g s", feed.name, _AFTER_ERROR_S)
            pause_s = _AFTER_ERROR_S
        if not running.ends:  # which may have been said before the turn was cleared
            running.turn.wait(pause_s)


_TURNS: dict[str, threading.Lock] = {}

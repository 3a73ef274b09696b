"""Routes: where each model lives, the processes that are there, and calls to them.

Placements are read from the store and made there, those that wait together in one transaction. A process is made when it is
first needed, and again after a call to it has failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from actors import failpoints
from actors.checks import brief, shown
from actors.cluster.peers import Peers, PeerUnavailableError
from actors.cluster.store_thread import STORE_ERRORS, StoreThread
from actors.metrics.placement import BeingRemovedError, Place, Placements, TooManyModelsError
from actors.replies import Ingested, Json, ingested

logger = logging.getLogger(__name__)

# A detector answers within milliseconds; this long only where its store hangs or it is being replaced. Then: outcome unknown.
_CALL_S: Final = 15.0
RETRY_S: Final = 0.25
# Questions under way at once. With the calls that carry events they stay below the number that Ray lets into an actor, here and
# in a detector: `hello` never waits behind them, however long the store is locked.
MAX_QUESTIONS: Final = 500
# How long the refusal of one model too many waits to learn who is silent, and how long it then names the same model.
_QUIETEST_CALL_S: Final = 2.0
_QUIETEST_S: Final = 60.0

Spawn = Callable[[str, int], object]


class Routes:
    """Knows the process of each model and calls it; lives in the broadcaster's loop."""

    def __init__(self, peers: Peers, store: StoreThread[Placements], spawn: Spawn) -> None:
        """`spawn(process, slot)` makes the process of a place, or finds it; it runs in a thread."""
        self._peers = peers
        self._store = store
        self._spawn = spawn
        self.places: dict[str, Place] = {}
        self._placing: dict[str, asyncio.Future[Place | Exception]] = {}
        self._placer: asyncio.Task[None] | None = None
        self.being_removed: set[str] = set()
        self._alive: set[str] = set()  # processes that this one has made or found
        self._making: dict[str, asyncio.Lock] = {}
        self._questions = 0  # under way
        self._quietest: asyncio.Task[str] | None = None
        self._quietest_until = 0.0

    async def read(self) -> None:
        """Read the placements again: another broadcaster may have made some. Without a store it keeps those that it knows."""
        try:
            self.being_removed |= await self._store.do(lambda placements: placements.being_removed())
            placed = await self._store.do(lambda placements: placements.read())
            self.places.update({model: place for model, place in placed.items() if model not in self.being_removed})
        except STORE_ERRORS as error:
            logger.warning("placements cannot be read: %s", brief(error))

    async def place(self, models: Iterable[str]) -> dict[str, Ingested]:
        """Place the models that are new here; return the refusals of those that have no place."""
        waits: dict[str, asyncio.Future[Place | Exception]] = {}
        refused: dict[str, Ingested] = {}
        for model in models:
            if model in self.being_removed:
                refused[model] = _unavailable(str(BeingRemovedError(model)))
            elif model not in self.places:
                waits[model] = self._placing.setdefault(model, asyncio.get_running_loop().create_future())
        if waits and (self._placer is None or self._placer.done()):
            self._placer = asyncio.get_running_loop().create_task(self._place_waiting())
        for model, wait in waits.items():
            found = await wait
            if isinstance(found, TooManyModelsError):
                refused[model] = ingested("refused", reason=f"{found}{await self._named_quietest()}")
            elif isinstance(found, BeingRemovedError):
                refused[model] = _unavailable(str(found))
            elif isinstance(found, Exception):
                refused[model] = _unavailable(f"the store cannot be reached: {brief(found)}")
        return refused

    async def forward(self, place: Place, batches: Sequence[Mapping[str, Any]]) -> list[Ingested]:
        """Have the process of a place count batches; a reply for each."""
        failpoints.reach("broadcaster.before_forward")
        answer = await self._call(place, "ingest_many", batches=batches)
        failpoints.reach("broadcaster.after_forward")
        # Where nobody answered perhaps they were counted: the caller sends them again, and the detector knows what it has.
        return [_unavailable(answer)] * len(batches) if isinstance(answer, str) else answer

    async def ask(self, model: str, method: str, **arguments: Any) -> Json:
        """Call the detector of a model. KeyError where it has none."""
        return await self._bounded(self._ask(model, method, **arguments))

    async def ask_or_place(self, model: str, method: str, **arguments: Any) -> Json:
        """Call the detector of a model, which begins with this where it has logged nothing yet. ValueError for one too many."""
        return await self._bounded(self._ask_or_place(model, method, **arguments))

    async def ask_owner(self, episode: str, method: str, **arguments: Any) -> Json:
        """Ask the detector that wrote the episode; where each process has a part of its own, one after another."""
        return await self._bounded(self._ask_owner(episode, method, **arguments))

    async def _bounded(self, question: Coroutine[Any, Any, Json]) -> Json:
        if self._questions >= MAX_QUESTIONS:
            question.close()
            return dict(_unavailable(f"{self._questions} questions are in flight"))
        self._questions += 1
        try:
            return await question
        finally:
            self._questions -= 1

    async def _ask(self, model: str, method: str, **arguments: Any) -> Json:
        if model not in self.places:
            await self.read()
        if model in self.being_removed:
            return dict(_unavailable(str(BeingRemovedError(model))))
        place = self.places.get(model)
        if place is None:
            raise KeyError(f"model must be one that has logged something, got {shown(model)}")
        return await self._answer(place, method, model=model, **arguments)

    async def _ask_or_place(self, model: str, method: str, **arguments: Any) -> Json:
        refused = (await self.place([model])).get(model)
        if refused is None:
            return await self._ask(model, method, **arguments)
        if refused["status"] == "refused":
            raise ValueError(refused["reason"])
        return dict(refused)

    async def _ask_owner(self, episode: str, method: str, **arguments: Any) -> Json:
        await self.read()
        problem = KeyError(f"episode must be one of this store, got {shown(episode)}")
        for place in sorted(set(self.places.values()), key=lambda each: each.slot):
            try:
                return await self._answer(place, method, episode=episode, **arguments)
            except KeyError:
                continue
        raise problem

    async def call_at(self, place: Place, method: str, **arguments: Any) -> Json:
        """Call the process of a place, which is made where it is not there; "unavailable" where nobody answers."""
        return await self._answer(place, method, **arguments)

    def forget_process(self, process: str) -> None:
        """Forget that a process is there: it was ended."""
        self._alive.discard(process)

    async def _named_quietest(self) -> str:
        """Return the end of a refusal that names the model which was silent longest; empty where no process says it.

        Who floods the system with new names must not flood its detectors with questions: one round of them a minute.
        """
        loop = asyncio.get_running_loop()
        if self._quietest is None or loop.time() >= self._quietest_until:
            self._quietest_until = loop.time() + _QUIETEST_S
            self._quietest = loop.create_task(self._ask_quietest())
        return await asyncio.shield(self._quietest)

    async def _ask_quietest(self) -> str:
        await self.read()  # a broadcaster that has just begun knows no places yet
        processes = sorted({place.process for place in self.places.values()})
        calls = [self._peers.call(process, "quietest", timeout_s=_QUIETEST_CALL_S) for process in processes]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        found = [
            (float(reply["last_at"]), str(reply["model"]))
            for reply in replies
            if isinstance(reply, Mapping) and reply.get("status") == "ok" and reply["model"] is not None
        ]
        if not found:
            return ""
        last_at, model = min(found)
        return f"; {shown(model)} has been silent longest: since {datetime.fromtimestamp(last_at, UTC):%Y-%m-%d %H:%M:%SZ}"

    async def _answer(self, place: Place, method: str, **arguments: Any) -> Json:
        answer = await self._call(place, method, **arguments)
        return dict(_unavailable(answer)) if isinstance(answer, str) else answer

    async def _call(self, place: Place, method: str, **arguments: Any) -> Any:
        """Call the process of a place; a text says why there is no answer."""
        if place.process not in self._alive:
            problem = await self._make(place)
            if problem is not None:
                return problem
        try:
            return await self._peers.call(place.process, method, timeout_s=_CALL_S, **arguments)
        except PeerUnavailableError as error:
            self._alive.discard(place.process)
            return str(error)

    async def _make(self, place: Place) -> str | None:
        """Have the process of a place; return the problem where that fails."""
        async with self._making.setdefault(place.process, asyncio.Lock()):
            if place.process in self._alive:
                return None
            try:
                await asyncio.to_thread(self._spawn, place.process, place.slot)
            except Exception as error:
                logger.exception("%s could not be created", place.process)
                return f"{place.process} could not be created: {error}"
            self._alive.add(place.process)
            return None

    async def _place_waiting(self) -> None:
        while self._placing:
            waiting, self._placing = self._placing, {}
            names = list(waiting)
            placed: Mapping[str, Place | Exception]
            try:
                # A default argument, which a later round does not change, has no type for mypy.
                placed = await self._store.do(lambda placements, names=names: placements.place(names))  # type: ignore[misc]
            except Exception as error:
                if not isinstance(error, STORE_ERRORS):
                    logger.exception("models cannot be placed")
                else:
                    logger.warning("models cannot be placed, the store is unavailable: %s", brief(error))
                placed = dict.fromkeys(waiting, error)
            for model, future in waiting.items():
                found = placed[model]
                if isinstance(found, Place) and model not in self.being_removed:
                    self.places[model] = found
                if not future.done():
                    future.set_result(found)


def _unavailable(reason: str) -> Ingested:
    return ingested("unavailable", reason=reason, retry_in_s=RETRY_S)

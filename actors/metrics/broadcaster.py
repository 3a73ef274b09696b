"""MetricBroadcaster: routes events to the detector of their model and to whoever observes, and keeps nothing of them.

It acknowledges only what a detector has acknowledged. Packed batches are forwarded as the bytes that they are; only raw events
are read here, and packed. What is in flight is bounded: more is answered "busy", and the caller sends again.

On restart: placements are read from the store, observers that the configuration names are made again; those that a driver
registered register again with their next call or are gone. Several broadcasters could run side by side: they share nothing
but the placements, which the store decides.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import ray

from actors import config, failpoints, wire
from actors.checks import shown
from actors.clock import Clock, SystemClock
from actors.cluster import build, deployment, watchdog
from actors.cluster.peers import Peers, PeerUnavailableError, RayPeers
from actors.config.stored import load_stored
from actors.metrics import observer_host, placement, raw_events, refusals, sealing
from actors.metrics.observers import Observers
from actors.metrics.placement import Place, TooManyModelsError
from actors.storage import SCHEMA_VERSION, UNAVAILABLE, SchemaError, Store, StoreError
from actors.storage.schema import SYSTEM

logger = logging.getLogger(__name__)

# A detector answers within milliseconds; this long only where its store hangs or it is being replaced. Then: outcome unknown.
_CALL_S: Final = 15.0
_RETRY_S: Final = 0.25
_BUSY_S: Final = 0.05
_NOTE_S: Final = 1.0  # between two notes of what was refused
_MAX_BYTES: Final = 256 * 2**20
_MAX_EVENTS: Final = 200_000  # batches in flight
_STORE_ERRORS: Final = (*UNAVAILABLE, StoreError, SchemaError)

Reply = dict[str, Any]
Spawn = Callable[[str, int], object]


class MetricBroadcaster:
    """Routes by model. All methods take keywords and plain values; a caller's mistake raises ValueError or KeyError."""

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        storage: str,
        slot: int | None = None,
        clock: Clock | None = None,
        peers: Peers | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        del slot
        self._name = name
        self._namespace = namespace
        self._storage = storage
        self._clock = clock or SystemClock()
        self._peers = peers or RayPeers(namespace)
        self._spawn = spawn or self._spawn_actor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="broadcaster-store")
        self._store: Store | None = None
        self._settings: config.Settings | None = None
        self._places: dict[str, Place] = {}
        self._placing: dict[str, asyncio.Future[Place | Exception]] = {}
        self._placer: asyncio.Task[None] | None = None
        self._alive: set[str] = set()  # processes that this one has made or found
        self._making: dict[str, asyncio.Lock] = {}
        self._bytes = 0
        self._batches = 0
        self._refusals = refusals.Refusals()
        self._noting: asyncio.Task[None] | None = None
        self._observers = Observers(self._peers)
        # Only the actor watches: a unit test that brings its own peers has nothing to watch.
        self._watches = peers is None
        self._watch: asyncio.Task[None] | None = None
        self._start()

    # --- events

    async def broadcast(
        self, *, events: list[dict[str, Any]], producer: str | None = None, sequence: int | None = None
    ) -> Reply:
        """Count raw events; the reply comes after the commit.

        Returns `{"accepted", "duplicates", "rejected": [{"index", "field", "value", "rule"}]}`, with `"bad_values"` where an
        accepted event had values that are no finite numbers; where nothing or only a part could be taken also
        `"status": "busy"|"unavailable"`, `"retry_in_s"` and `"models": {model: reply}`. With `producer`
        and `sequence` (the first event's number) a resend is safe; the events must then be of one model. ValueError for a
        broken envelope, and for a gap in the sequence.
        """
        self._start()
        wire.check_sequence(producer, sequence)
        found = raw_events.sort_events(events, self._clock.now().wall_s, one_model=sequence is not None, known=self._places)
        batches: list[dict[str, Any]] = []
        firsts = []  # of each batch, its first row's place among those of its model
        why = {rejection["index"]: rejection for rejection in found.rejected}
        counted = {index for indices in found.indices.values() for index in indices}
        for rejection in found.rejected:
            if rejection["index"] not in counted:
                self._refuse(events[rejection["index"]], 1, rejection)
        for model, rows in found.rows.items():
            first = 0
            for packed in sealing.packed_rows(rows):
                batch: dict[str, Any] = {"model": model, "producer": producer, "sequence": sequence, "payload": packed.payload}
                if sequence is not None:
                    batch["sequence"] = sequence + first
                if why:
                    inside = found.indices[model][first : first + packed.rows]
                    batch["rejection"] = next((why[index] for index in reversed(inside) if index in why), None)
                batches.append(batch)
                firsts.append(first)
                first += packed.rows
        replies = await self.ingest_many(batches=batches) if batches else []
        parts = [(batch["model"], first, reply) for batch, first, reply in zip(batches, firsts, replies, strict=True)]
        return _joined(found, parts, one_model=sequence is not None)

    async def ingest(
        self,
        *,
        model: str,
        producer: str | None,
        sequence: int | None,
        payload: bytes,
        client: dict[str, Any] | None = None,
    ) -> Reply:
        """Count one packed batch (see `wire`): the detector's reply, after its commit. ValueError for a broken envelope."""
        batch = {"model": model, "producer": producer, "sequence": sequence, "payload": payload, "client": client}
        (reply,) = await self.ingest_many(batches=[batch])
        if reply["status"] == "refused":
            raise ValueError(reply["reason"])
        return reply

    async def ingest_many(self, *, batches: list[dict[str, Any]]) -> list[Reply]:
        """Count several packed batches, each a dict of `ingest`'s arguments; a reply for each, in order.

        Batches of one model are taken in their order. A bad envelope is answered "refused", with the reason.
        """
        self._start()
        if not isinstance(batches, list) or not all(isinstance(batch, Mapping) for batch in batches):
            raise ValueError(f"batches must be a list of mappings, got {shown(batches)}")
        size = 0
        replies: list[Reply | None] = [None] * len(batches)
        for index, batch in enumerate(batches):
            try:
                _check_batch(batch)
                size += len(batch["payload"])
            except ValueError as error:
                replies[index] = _reply("refused", reason=str(error))
        if self._bytes + size > _MAX_BYTES or self._batches + len(batches) > _MAX_EVENTS:
            return [reply or _reply("busy", reason="too much is in flight", retry_in_s=_BUSY_S) for reply in replies]
        self._bytes += size
        self._batches += len(batches)
        try:
            return await self._routed(batches, replies)
        finally:
            self._bytes -= size
            self._batches -= len(batches)

    async def _routed(self, batches: list[dict[str, Any]], replies: list[Reply | None]) -> list[Reply]:
        by_process = await self._by_process(batches, replies)
        calls = [self._forward(place, [batches[i] for i in indices]) for place, indices in by_process.items()]
        if len(calls) == 1:
            answers = [await calls[0]]
        else:
            answers = await asyncio.gather(*calls)
        for indices, answer in zip(by_process.values(), answers, strict=True):
            for index, reply in zip(indices, answer, strict=True):
                replies[index] = reply
        done = [reply or _reply("unavailable", reason="not routed", retry_in_s=_RETRY_S) for reply in replies]
        for batch, reply in zip(batches, done, strict=True):
            if reply["status"] == "refused" and not reply.get("counted"):
                rejection: wire.Rejection = {"index": 0, "field": "batch", "value": None, "rule": reply["reason"]}
                self._refuse(batch, wire.declared_rows(batch.get("payload")), rejection)
        if self._observers.any:
            for batch, reply in zip(batches, done, strict=True):
                if reply["accepted"]:
                    self._observers.offer(batch["model"], batch["payload"], reply["duplicates"])
        return done

    def _refuse(self, event: object, events: int, rejection: wire.Rejection) -> None:
        """Count what is refused and belongs to no model that could count it."""
        model = (event.get("model_name") or event.get("model")) if isinstance(event, Mapping) else None
        if not self._refusals.events:
            logger.warning("events are refused and counted: %s %s", rejection["field"], rejection["rule"])
        self._refusals.add(model, events, rejection, self._clock.now().wall_s)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note_refusals())

    async def _note_refusals(self) -> None:
        """Put the counts into the store, those of a burst together; without a store they wait for the next refusal."""
        while self._refusals.is_dirty:
            events, last = self._refusals.note()
            try:
                await self._in_thread(lambda: refusals.write(self._opened_store().part(SYSTEM), events, last))  # noqa: B023  awaited
            except _STORE_ERRORS as error:
                logger.warning("refused events are not on record yet, the store is unavailable: %s", error)
                return
            self._refusals.noted(events)
            await asyncio.sleep(_NOTE_S)

    async def _by_process(self, batches: list[dict[str, Any]], replies: list[Reply | None]) -> dict[Place, list[int]]:
        """Sort what has no reply yet by its process; what has no place gets its reply here."""
        by_process: dict[Place, list[int]] = {}
        # Most models are known: nothing is awaited then, so that calls keep their order on the way to the detector.
        new = [
            b["model"] for b, reply in zip(batches, replies, strict=True) if reply is None and b["model"] not in self._places
        ]
        refused = await self._place_all(new) if new else {}
        for index, batch in enumerate(batches):
            if replies[index] is None:
                replies[index] = refused.get(batch["model"])
                if replies[index] is None:
                    by_process.setdefault(self._places[batch["model"]], []).append(index)
        return by_process

    async def _forward(self, place: Place, batches: list[dict[str, Any]]) -> list[Reply]:
        if place.process not in self._alive:
            problem = await self._make(place)
            if problem is not None:
                return [_reply("unavailable", reason=problem, retry_in_s=_RETRY_S)] * len(batches)
        failpoints.reach("broadcaster.before_forward")
        try:
            answer: list[Reply] = await self._peers.call(place.process, "ingest_many", timeout_s=_CALL_S, batches=batches)
        except PeerUnavailableError as error:
            # Perhaps it was taken: the caller sends it again with the same sequence, and the detector knows.
            self._alive.discard(place.process)
            return [_reply("unavailable", reason=str(error), retry_in_s=_RETRY_S)] * len(batches)
        failpoints.reach("broadcaster.after_forward")
        return answer

    # --- questions and commands for one model

    async def high_water(self, *, model: str, producer: str) -> Reply:
        """Give the next free sequence number of a producer for a model: `{"high_water"}`, 0 for an unknown producer."""
        wire.check_model(model)
        await self._opened()
        if model not in self._places:
            await self._read_places()
        if model not in self._places:
            return {"status": "ok", "high_water": 0}
        return await self._ask(model, "high_water", producer=producer)

    async def baseline(self, *, model: str, version: str, values: dict[str, Any]) -> Reply:
        """Let a version's watched metrics learn from these values (float64[n] by metric) instead of from its first events."""
        wire.check_model(model)
        return await self._ask_or_place(model, "baseline", version=version, values=values)

    async def promise(
        self, *, model: str, version: str, values: dict[str, float], n: float, source: str = "cross_validation"
    ) -> Reply:
        """Record the cross-validated value of each metric of a version on its `n` training rows: `{"status": "recorded"}`.

        The same said again is recorded once. A version that has not logged yet keeps it. ValueError names the rule.
        """
        wire.check_model(model)
        wire.check_version(version)
        checked, weight = wire.check_promise(values, n, source)
        return await self._ask_or_place(model, "promise", version=version, values=checked, n=weight, source=source)

    async def pin(self, *, model: str, version: str | None) -> Reply:
        """Compare every version of a model with the baseline of this one from now on; None ends that."""
        return await self._ask(model, "pin", version=version)

    async def acknowledge(self, *, episode: str) -> Reply:
        """Note that a person has seen an episode. KeyError where no detector has it."""
        return await self._ask_owner(episode, "acknowledge")

    async def explain(self, *, episode: str) -> Reply:
        """Give an episode's whole record. KeyError where no detector has it."""
        return await self._ask_owner(episode, "explain")

    async def _ask_or_place(self, model: str, method: str, **arguments: Any) -> Reply:
        """Ask the detector of a model, which begins with this where it has logged nothing yet."""
        refused = (await self._place_all([model])).get(model)
        if refused is None:
            return await self._ask(model, method, **arguments)
        if refused["status"] == "refused":
            raise ValueError(refused["reason"])
        return refused

    async def _ask(self, model: str, method: str, **arguments: Any) -> Reply:
        if model not in self._places:
            await self._read_places()
        place = self._places.get(model)
        if place is None:
            raise KeyError(f"model must be one that has logged something, got {shown(model)}")
        return await self._called(place, method, model=model, **arguments)

    async def _ask_owner(self, episode: str, method: str) -> Reply:
        """Ask the detector that wrote the episode; where each process has a part of its own, one after another."""
        await self._opened()
        await self._read_places()
        problem: Exception = KeyError(f"episode must be one of this store, got {shown(episode)}")
        for place in sorted(set(self._places.values()), key=lambda each: each.slot):
            try:
                return await self._called(place, method, episode=episode)
            except KeyError:
                continue
        raise problem

    async def _called(self, place: Place, method: str, **arguments: Any) -> Reply:
        problem = None if place.process in self._alive else await self._make(place)
        if problem is None:
            try:
                reply: Reply = await self._peers.call(place.process, method, timeout_s=_CALL_S, **arguments)
            except PeerUnavailableError as error:
                self._alive.discard(place.process)
                problem = str(error)
            else:
                return reply
        return _reply("unavailable", reason=problem, retry_in_s=_RETRY_S)

    # --- observers

    async def register(self, *, name: str, observer: str, pinned: bool = False) -> Reply:
        """Let the actor `observer` (an ObserverHost's name) see every accepted event from now on."""
        self._start()
        self._observers.add(name, observer, pinned=pinned)
        return {"status": "registered"}

    async def unregister(self, *, name: str) -> Reply:
        """Take an observer out. KeyError where there is none of that name."""
        self._observers.remove(name)
        return {"status": "unregistered"}

    async def observers(self) -> dict[str, Reply]:
        """Give each observer's counts: `{"actor", "pinned", "delivered", "dropped", "failed", "waiting"}`, in events."""
        return self._observers.counts()

    # --- the process

    async def status(self) -> Reply:
        """Give what is in flight."""
        return {
            "bytes": self._bytes,
            "batches": self._batches,
            "models": len(self._places),
            "observers": self._observers.counts(),
        }

    async def hello(self) -> Reply:
        """Say who this is. Its epoch is 0 always: it owns nothing that a second one could spoil."""
        self._start()
        return {
            "actor": self._name,
            "build": build.BUILD,
            "epoch": 0,
            "schema": SCHEMA_VERSION,
            "wire": wire.SCHEMA,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
            "boot_id": self._clock.now().boot_id,
        }

    async def reload(self) -> Reply:
        """Read the configuration again."""
        self._settings = None
        try:
            await self._in_thread(self._open)
        except (*_STORE_ERRORS, ValueError) as error:
            return _reply("unavailable", reason=str(error), retry_in_s=_RETRY_S)
        await self._make_observers()
        return {"status": "reloaded"}

    def _start(self) -> None:
        if self._watches and (self._watch is None or self._watch.done()):
            try:
                self._watch = asyncio.get_running_loop().create_task(self._watch_dispatcher())
            except RuntimeError:
                return

    async def _watch_dispatcher(self) -> None:
        await self._opened()
        await self._make_observers()
        await watchdog.watch(
            lambda: {"dispatcher": None},
            namespace=self._namespace,
            storage=self._storage,
            now_s=lambda: self._clock.now().boot_s,
        )

    async def _make_observers(self) -> None:
        """Have the observers that the configuration names, and no others of that kind."""
        if self._settings is None or not self._watches:
            return
        for name, target in self._settings.observers.items():
            try:
                actor = await asyncio.to_thread(observer_host.spawn, self._namespace, name, target)
                self._observers.add(name, actor, pinned=True)
            except Exception:
                logger.exception("the observer %s (%s) could not be made", name, target)
        for name, counts in self._observers.counts().items():
            if counts["pinned"] and name not in self._settings.observers:
                self._observers.remove(name)

    # --- places

    async def _place_all(self, models: Iterable[str]) -> dict[str, Reply]:
        """Place models that are new here, all that wait in one transaction; give the refusals of those that have no place."""
        waits: dict[str, asyncio.Future[Place | Exception]] = {}
        for model in models:
            if model not in self._places:
                waits[model] = self._placing.setdefault(model, asyncio.get_running_loop().create_future())
        if waits and (self._placer is None or self._placer.done()):
            self._placer = asyncio.get_running_loop().create_task(self._place_waiting())
        refused: dict[str, Reply] = {}
        for model, wait in waits.items():
            found = await wait
            if isinstance(found, TooManyModelsError):
                refused[model] = _reply("refused", reason=str(found))
            elif isinstance(found, Exception):
                refused[model] = _reply("unavailable", reason=f"the store cannot be reached: {found}", retry_in_s=_RETRY_S)
        return refused

    async def _place_waiting(self) -> None:
        while self._placing:
            waiting, self._placing = self._placing, {}
            try:
                placed = await self._in_thread(functools.partial(self._placed, list(waiting)))
            except (*_STORE_ERRORS, ValueError) as error:
                logger.warning("models cannot be placed, the store is unavailable: %s", error)
                placed = dict.fromkeys(waiting, error)
            for model, future in waiting.items():
                found = placed[model]
                if isinstance(found, Place):
                    self._places[model] = found
                future.set_result(found)

    def _placed(self, models: list[str]) -> Mapping[str, Place | Exception]:
        settings = self._open()
        limits = settings.detectors
        part = self._opened_store().part(SYSTEM)
        return placement.place(part, models, max_processes=limits.max_processes, max_models=limits.max_models)

    async def _read_places(self) -> None:
        try:
            self._places.update(await self._in_thread(lambda: placement.read(self._opened_store().part(SYSTEM))))
        except _STORE_ERRORS as error:
            logger.warning("placements cannot be read: %s", error)

    async def _make(self, place: Place) -> str | None:
        """Have the process of a place; give the problem where that fails."""
        async with self._making.setdefault(place.process, asyncio.Lock()):
            if place.process in self._alive:
                return None
            try:
                await asyncio.to_thread(self._spawn, place.process, place.slot)
            except Exception as error:
                logger.exception("%s could not be made", place.process)
                return f"{place.process} could not be made: {error}"
            self._alive.add(place.process)
            return None

    def _spawn_actor(self, process: str, slot: int) -> object:
        return deployment.spawn(process, namespace=self._namespace, storage=self._storage, slot=slot)

    # --- the store

    def _opened_store(self) -> Store:
        self._store = self._store or Store(self._storage)
        return self._store

    def _open(self) -> config.Settings:
        if self._settings is None:
            self._settings = load_stored(self._opened_store())
            self._places.update(placement.read(self._opened_store().part(SYSTEM)))
        return self._settings

    async def _opened(self) -> None:
        try:
            await self._in_thread(self._open)
        except (*_STORE_ERRORS, ValueError) as error:
            logger.warning("the store cannot be opened, trying again when asked: %s", error)

    async def _in_thread(self, act: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


def _check_batch(batch: Mapping[str, Any]) -> None:
    wire.check_model(batch.get("model"))
    wire.check_sequence(batch.get("producer"), batch.get("sequence"))
    wire.arrived(batch.get("payload"))


def _reply(status: str, **more: Any) -> Reply:
    return {"status": status, "accepted": 0, "duplicates": 0, "rejected": [], "high_water": None, "epoch": 0, **more}


def _joined(found: raw_events.Sorted, parts: list[tuple[str, int, Reply]], *, one_model: bool) -> Reply:
    """Put the detectors' replies together: the indices of the call, the worst status, each model's reply where they differ.

    `parts` has for each packed batch its model, the place of its first row among the model's rows, and the reply.
    """
    rejected: dict[int, wire.Rejection] = {rejection["index"]: rejection for rejection in found.rejected}
    models: dict[str, Reply] = {}
    ends = {(model, first): len(found.indices[model]) for model, first, _ in parts}
    for (model, first, _), (following, end, _) in itertools.pairwise(parts):
        if model == following:
            ends[model, first] = end
    for model, first, reply in parts:
        if reply["status"] in {"gap", "refused"} and one_model:
            raise ValueError(f"sequence must continue: {reply['reason']}" if reply["status"] == "gap" else reply["reason"])
        indices = found.indices[model][first : ends[model, first]]
        for rejection in reply["rejected"]:
            index = indices[rejection["index"]]
            rejected.setdefault(index, rejection | {"index": index})
        if reply["status"] == "refused":
            for index in indices:
                rejected[index] = {"index": index, "field": "model_name", "value": model, "rule": reply["reason"]}
        models[model] = _added(models[model], reply) if model in models else reply
    joined: Reply = {
        "accepted": sum(reply["accepted"] for reply in models.values()),
        "duplicates": sum(reply["duplicates"] for reply in models.values()),
        "rejected": [rejected[index] for index in sorted(rejected)],
    }
    bad_values = sum(reply.get("bad_values", 0) for reply in models.values())
    if bad_values:
        joined["bad_values"] = bad_values
    failed = [reply for reply in models.values() if reply["status"] in {"busy", "unavailable", "gap"}]
    if failed:
        joined["status"] = "unavailable" if any(reply["status"] == "unavailable" for reply in failed) else "busy"
        joined["retry_in_s"] = max(reply.get("retry_in_s", _RETRY_S) for reply in failed)
        joined["models"] = models
    return joined


_WORST: Final = ("unavailable", "busy", "gap", "refused", "accepted")


def _added(one: Reply, other: Reply) -> Reply:
    """Give the reply for two batches of one model: the sums, and whatever went wrong."""
    worst = min(one, other, key=lambda reply: _WORST.index(reply["status"]))
    counts = {name: one[name] + other[name] for name in ("accepted", "duplicates", "rejected")}
    counts["bad_values"] = one.get("bad_values", 0) + other.get("bad_values", 0)
    return {**worst, **counts, "high_water": max(one["high_water"] or 0, other["high_water"] or 0)}

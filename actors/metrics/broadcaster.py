"""MetricBroadcaster: routes events to the detector of their model and to the observers, and keeps nothing of them.

It acknowledges only what a detector has acknowledged. Packed batches are forwarded as the bytes that they are; only raw events
are read here, and packed. The bytes in flight are bounded: beyond that the reply is "busy", and the caller resends.

On restart: placements are read from the store, observers that the configuration names are made again; those that a driver
registered register again with their next call or are gone. Several broadcasters could run side by side: they share nothing
but the placements, which the store decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from actors import people, wire
from actors.checks import shown
from actors.clock import Clock, SystemClock
from actors.cluster import actor, deployment, watchdog
from actors.cluster.notices import Notices
from actors.cluster.peers import Peers, RayPeers
from actors.cluster.store_thread import STORE_ERRORS, StoreThread, unavailable
from actors.config import Settings
from actors.metrics import observer_host, raw_events, sealing
from actors.metrics.in_flight import InFlight
from actors.metrics.observers import ObserverCounts, Observers
from actors.metrics.placement import Place, Placements
from actors.metrics.refusal_counter import RefusalCounter
from actors.metrics.removing import Removing
from actors.metrics.routes import RETRY_S, Routes, Spawn
from actors.replies import Broadcasted, Hello, Ingested, Json, ModelGone, Reloaded, Unavailable, ingested
from actors.wire import messages
from actors.wire.messages import Message

logger = logging.getLogger(__name__)

_BUSY_S: Final = 0.05

Batch = Mapping[str, Any]  # `ingest`'s arguments, from outside


class MetricBroadcaster:
    """Routes by model. All methods take keywords and plain values; a caller's mistake raises ValueError or KeyError."""

    ACTOR_OPTIONS: ClassVar[Mapping[str, Any]] = {"max_concurrency": 3_000}

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
        end_process: Callable[[str], object] | None = None,
    ) -> None:
        """`slot` is every actor's argument and says nothing here."""
        del slot
        self._name = name
        self._namespace = namespace
        self._storage = storage
        self._clock = clock or SystemClock()
        self._store = StoreThread(storage, Placements)
        peers_of_all = peers or RayPeers(namespace)
        self._routes = Routes(peers_of_all, self._store, spawn or self._spawn_actor)
        self._removing = Removing(peers_of_all, self._routes, self._store, end_process or self._end_actor)
        self._refusals = RefusalCounter(self._store, self._clock)
        self._notices = Notices(peers_of_all, lambda: self._store.store, self._clock)
        self._observers = Observers(peers_of_all)
        self._in_flight = InFlight()
        # Only the actor watches: a unit test that brings its own peers has nothing to watch.
        self._watches = peers is None
        self._watch: asyncio.Task[None] | None = None
        self._start()

    # --- events

    async def broadcast(self, *, events: list[Json], producer: str | None = None, sequence: int | None = None) -> Broadcasted:
        """Count raw events; the reply comes after the commit.

            ray.get(broadcaster.broadcast.remote(events=[{"model_name": "fraud", "accuracy": 0.91, "n": 200}]))

        Args:
            events: Mappings with `model_name`, and `model_version`, `timestamp`, `accuracy`, `precision`, `recall`, `n`,
                `extras` as far as they are known.
            producer: Makes a resend safe, with `sequence`; the events must then be of one model.
            sequence: The number of the first event.

        Raises:
            ValueError: For a broken envelope, and for a gap in the sequence.
        """
        self._start()
        messages.check_sequence(producer, sequence)
        found = raw_events.sort_events(
            events, self._clock.now().wall_s, one_model=sequence is not None, known=self._routes.places
        )
        counted = {index for indices in found.indices.values() for index in indices}
        for rejection in found.rejected:
            if rejection["index"] not in counted:
                event = events[rejection["index"]]
                self._refusals.add(event.get("model_name") if isinstance(event, Mapping) else None, 1, rejection)
        batches, firsts = _packed(found, producer, sequence)
        replies = await self.ingest_many(batches=batches) if batches else []
        parts = [(batch["model"], first, reply) for batch, first, reply in zip(batches, firsts, replies, strict=True)]
        return raw_events.joined_reply(found, parts, one_model=sequence is not None)

    async def ingest(
        self, *, model: str, producer: str | None, sequence: int | None, payload: bytes, client: Json | None = None
    ) -> Ingested:
        """Count one packed batch (see `wire`): the detector's reply, after its commit. ValueError for a broken envelope."""
        batch = {"model": model, "producer": producer, "sequence": sequence, "payload": payload, "client": client}
        (reply,) = await self.ingest_many(batches=[batch])
        if reply["status"] == "refused":
            raise ValueError(reply["reason"])
        return reply

    async def ingest_many(self, *, batches: Sequence[Batch]) -> list[Ingested]:
        """Count several packed batches, each a dict of `ingest`'s arguments; a reply for each, in order.

        Batches of one model are taken in their order. A bad envelope is answered "refused", with the reason.
        """
        self._start()
        if not isinstance(batches, list) or not all(isinstance(batch, Mapping) for batch in batches):
            raise ValueError(f"batches must be a list of mappings, got {shown(batches)}")
        size = 0
        replies: list[Ingested | None] = [None] * len(batches)
        for index, batch in enumerate(batches):
            try:
                _check_batch(batch)
                size += len(batch["payload"])
            except ValueError as error:
                replies[index] = ingested("refused", reason=str(error))
        if not self._in_flight.has_room(size, len(batches)):
            return [reply or ingested("busy", reason="too many bytes are in flight", retry_in_s=_BUSY_S) for reply in replies]
        with self._in_flight.taken(size, len(batches)):
            done = await self._routed(batches, replies)
        self._tell(batches, done)
        return done

    async def _routed(self, batches: Sequence[Batch], replies: list[Ingested | None]) -> list[Ingested]:
        by_process = await self._by_process(batches, replies)
        calls = [self._routes.forward(place, [batches[i] for i in indices]) for place, indices in by_process.items()]
        answers = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        for indices, answer in zip(by_process.values(), answers, strict=True):
            for index, reply in zip(indices, answer, strict=True):
                replies[index] = reply
        return [reply or ingested("unavailable", reason="not routed", retry_in_s=RETRY_S) for reply in replies]

    async def _by_process(self, batches: Sequence[Batch], replies: list[Ingested | None]) -> dict[Place, list[int]]:
        """Sort what has no reply yet by its process; what has no place gets its reply here."""
        by_process: dict[Place, list[int]] = {}
        places = self._routes.places
        # Most models are known: nothing is awaited then, so that calls keep their order on the way to the detector.
        new = [b["model"] for b, reply in zip(batches, replies, strict=True) if reply is None and b["model"] not in places]
        refused = await self._routes.place(new) if new else {}
        for index, batch in enumerate(batches):
            if replies[index] is None:
                replies[index] = refused.get(batch["model"])
                if replies[index] is None:
                    by_process.setdefault(places[batch["model"]], []).append(index)
        return by_process

    def _tell(self, batches: Sequence[Batch], replies: Sequence[Ingested]) -> None:
        """Count refused events, and pass accepted events to the observers."""
        for batch, reply in zip(batches, replies, strict=True):
            if reply["status"] == "refused" and not reply.get("counted"):
                why: wire.Rejection = {"index": 0, "field": "batch", "value": None, "rule": reply["reason"]}
                self._refusals.add(batch.get("model"), wire.declared_rows(batch.get("payload")), why)
            if reply["accepted"] and self._observers.any:
                stamped = batch.get("stamped") is True
                self._observers.offer(batch["model"], batch["payload"], reply["duplicates"], is_stamped=stamped)

    # --- questions and commands for one model

    async def high_water(self, *, model: str, producer: str) -> Json:
        """Return the next free sequence number of a producer for a model: `{"high_water"}`, 0 for an unknown producer."""
        wire.check_model(model)
        if model not in self._routes.places:
            await self._routes.read()
        if model not in self._routes.places:
            return {"status": "ok", "high_water": 0}
        return await self._routes.ask(model, "high_water", producer=producer)

    async def baseline(self, *, model: str, version: str, values: Json) -> Json:
        """Let a version's watched metrics learn from these values (float64[n] by metric) instead of from its first events."""
        wire.check_model(model)
        return await self._routes.ask_or_place(model, "baseline", version=version, values=values)

    async def promise(
        self, *, model: str, version: str, values: dict[str, float], n: float, source: str = "cross_validation"
    ) -> Json:
        """Record the cross-validated value of each metric of a version on its `n` training rows: `{"status": "recorded"}`.

        The same promise made again is recorded once. A version that has not logged yet keeps it. ValueError names the rule.

            ray.get(broadcaster.promise.remote(model="fraud", version="v7", values={"accuracy": 0.87}, n=2500))
        """
        wire.check_model(model)
        wire.check_version(version)
        checked, weight = messages.check_promise(values, n, source)
        return await self._routes.ask_or_place(model, "promise", version=version, values=checked, n=weight, source=source)

    async def pin(self, *, model: str, version: str | None) -> Json:
        """Compare every version of a model with the baseline of this one from now on; None ends that."""
        return await self._routes.ask(model, "pin", version=version)

    async def announce(
        self, *, model: str, version: str, live: bool = False, by: str | None = None, comment: str | None = None
    ) -> Json:
        """Take a version that a registry has, logged or not; `live`: its alias points there. Safe to repeat.

        ray.get(broadcaster.announce.remote(model="fraud", version="8", live=True, by="mlflow"))
        """
        wire.check_model(model)
        wire.check_version(version)
        if not isinstance(live, bool):
            raise ValueError(f"live must be true or false, got {shown(live)}")
        return await self._routes.ask_or_place(model, "announce", version=version, live=live, **_signed(by, comment))

    async def promote(self, *, model: str, version: str, by: str | None = None, comment: str | None = None) -> Json:
        """Make a candidate version the live one. KeyError for an unknown model or version."""
        return await self._routes.ask(model, "promote", version=version, **_signed(by, comment))

    async def rollback(self, *, model: str, by: str | None = None, comment: str | None = None) -> Json:
        """Make the version before the live one live again. KeyError for an unknown model."""
        return await self._routes.ask(model, "rollback", **_signed(by, comment))

    async def versions(self, *, model: str) -> Json:
        """Return the versions of a model, which of them is live, and what each promises. KeyError for an unknown model."""
        return await self._routes.ask(model, "versions")

    async def acknowledge(self, *, episode: str, by: str | None = None, comment: str | None = None) -> Json:
        """Note that a person has seen an episode. KeyError where no detector has it."""
        return await self._routes.ask_owner(episode, "acknowledge", **_signed(by, comment))

    async def judge(self, *, episode: str, verdict: str, by: str | None = None, comment: str | None = None) -> Json:
        """Note whether a person calls an episode a "true" or a "false" alarm. KeyError where no detector has it.

        ray.get(broadcaster.judge.remote(episode="...", verdict="false", by="ada", comment="a holiday"))
        """
        return await self._routes.ask_owner(episode, "judge", verdict=people.verdict(verdict), **_signed(by, comment))

    async def explain(self, *, episode: str) -> Json:
        """Return an episode's whole record. KeyError where no detector has it."""
        return await self._routes.ask_owner(episode, "explain")

    async def remove(self, *, model: str, purge: bool = False, force: bool = False) -> ModelGone | Unavailable:
        """Remove a model: its place, its counts, its log; with `purge` its episodes and orders too. Safe to repeat.

        "unavailable": a step had no answer; the model takes nothing until the same is said again.

        Raises:
            KeyError: It was never there.
            ValueError: It has logged within five minutes (`force` ignores that), or an order of it is not finished.
        """
        wire.check_model(model)
        return await self._removing.remove(model, purge=purge, force=force)

    # --- observers

    async def register(self, *, name: str, observer: str, pinned: bool = False) -> Json:
        """Let the actor `observer` (an ObserverHost's name) see every accepted event from now on."""
        self._start()
        self._observers.add(name, observer, pinned=pinned)
        return {"status": "registered"}

    async def unregister(self, *, name: str) -> Json:
        """Take an observer out. KeyError where there is none of that name."""
        self._observers.remove(name)
        return {"status": "unregistered"}

    async def observers(self) -> dict[str, ObserverCounts]:
        """Return each observer's counts, in events."""
        return self._observers.counts()

    # --- the process

    async def status(self) -> Json:
        """Return what is in flight."""
        return {
            **self._in_flight.counts(),
            "models": len(self._routes.places),
            "observers": self._observers.counts(),
        }

    async def hello(self) -> Hello:
        """Say who this is. Its epoch is 0 always: it owns nothing that a second one could spoil."""
        self._start()
        return actor.hello(self._name, boot=self._clock.now().boot_id, store=self._store.store)

    async def reload(self) -> Reloaded | Unavailable:
        """Read the configuration again."""
        try:
            settings = await self._store.do(lambda placements: placements.reload())
        except (*STORE_ERRORS, ValueError) as error:
            return unavailable(error)
        await self._make_observers(settings)
        return {"status": "reloaded"}

    def _start(self) -> None:
        """Begin to watch once there is a loop: Ray makes the object inside it, a unit test perhaps outside."""
        if self._watches and (self._watch is None or self._watch.done()):
            try:
                self._watch = asyncio.get_running_loop().create_task(self._watch_dispatcher())
            except RuntimeError:
                return

    async def _watch_dispatcher(self) -> None:
        try:
            settings = await self._store.do(lambda placements: placements.settings)
            await self._make_observers(settings)
        except STORE_ERRORS as error:
            logger.warning("the store cannot be opened; retrying at the next call: %s", error)
        await self._routes.read()
        self._notices.begin()
        await watchdog.watch(
            lambda: {"dispatcher": None},
            namespace=self._namespace,
            storage=self._storage,
            now_s=lambda: self._clock.now().boot_s,
            tell=self._notices.actor_down,
        )

    async def _make_observers(self, settings: Settings) -> None:
        """Have the observers of the configuration; only the actor makes any."""
        if self._watches:
            await self._observers.configure(settings.observers, lambda *of: observer_host.spawn(self._namespace, *of))

    def _end_actor(self, process: str) -> None:
        handle = deployment.find(process, self._namespace)
        if handle is not None:
            deployment.kill(handle, restart=False)

    def _spawn_actor(self, process: str, slot: int) -> object:
        return deployment.spawn(process, namespace=self._namespace, storage=self._storage, slot=slot)


def _packed(found: raw_events.Sorted, producer: str | None, sequence: int | None) -> tuple[list[Message], list[int]]:
    """Pack the rows of each model; return the batches, and of each its first row's place among those of its model."""
    batches: list[Message] = []
    firsts: list[int] = []
    why = {rejection["index"]: rejection for rejection in found.rejected}
    for model, rows in found.rows.items():
        first = 0
        for packed in sealing.packed_rows(rows):
            batch: Message = {"model": model, "producer": producer, "sequence": sequence, "payload": packed.payload}
            if sequence is not None:
                batch["sequence"] = sequence + first
            inside = found.indices[model][first : first + packed.rows] if why else []
            batch["rejection"] = next((why[index] for index in reversed(inside) if index in why), None)
            batches.append(batch)
            firsts.append(first)
            first += packed.rows
    return batches, firsts


def _check_batch(batch: Batch) -> None:
    wire.check_model(batch.get("model"))
    messages.check_sequence(batch.get("producer"), batch.get("sequence"))
    wire.arrived(batch.get("payload"))


def _signed(by: str | None, comment: str | None) -> dict[str, str]:
    """Return the checked arguments: otherwise one detector could refuse the call after another has accepted it."""
    signed = people.signature(by, comment)
    return people.given(by=signed.by, comment=signed.comment)

"""DriftDetector: one model's event log and drift episodes, or those of the models that share its process.

The loop takes calls and answers them; one thread owns the store. Calls that wait together are committed together, and a reply
comes after the commit. An episode's request to the dispatcher is in the outbox, written by the same commit, and is sent until
it is recorded.

On restart: everything is read from the store, the last snapshot of each detector and the log after it. Two processes of one
name (a zombie on a lost node, a thawed one) are told apart by the fence: the older one ends at its next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from actors import failpoints, people, replies, wire
from actors.checks import shown
from actors.clock import Clock, SystemClock
from actors.cluster import actor
from actors.cluster.notices import Notices
from actors.cluster.peers import Peers, RayPeers
from actors.cluster.store_thread import STORE_ERRORS, StoreThread, or_unavailable
from actors.detection import commands
from actors.detection.errands import Errands
from actors.detection.model import Change, Ingest, Work
from actors.detection.queue import CommitQueue
from actors.detection.rules.promises import Promise
from actors.detection.state import DetectionState, UnavailableError
from actors.detection.sweeper import Sweeper
from actors.plain import Json
from actors.storage import StaleEpochError, Store
from actors.wire import messages

logger = logging.getLogger(__name__)
T = TypeVar("T")

_TICK_S: Final = 1.0
_FOLLOW_S: Final = 2.0  # between two looks at the orders of open episodes
_LONGEST_S: Final = 60.0  # without anything that is due
_TRIM_S: Final = 30.0  # between two looks at the logs of the models that have logged
_SWEEP_S: Final = 3600.0  # between two looks at all logs, and at what else grows old
_MAX_BASELINE: Final = 100_000


class DriftDetector:
    """Counts every event once, feeds its model's detectors, and asks for one retrain order per episode.

    All methods take keywords and plain values. Where the store cannot be reached they answer
    `{"status": "unavailable", "reason", "retry_in_s"}` and nothing has changed.
    """

    # More than a broadcaster has under way at once, so that `hello` has a place however long the store is locked.
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
        end_stale: Callable[[object], None] | None = None,
    ) -> None:
        self._name = name
        self._slot = slot or 0
        self._clock = clock or SystemClock()
        # Only the actor ticks by itself: a unit test that brings its own peers says when.
        self._ticks_by_itself = peers is None
        self._ticks: asyncio.Task[None] | None = None
        self._thread = StoreThread(storage, self._made, end_stale=end_stale)
        peers_of_all = peers or RayPeers(namespace)
        self._notices = Notices(peers_of_all, lambda: self._thread.store, self._clock)
        self._errands = Errands(peers_of_all, self._thread, lambda: self._queue)
        self._sweeper = Sweeper(self._thread, self._clock)
        self._queue = CommitQueue(self._thread, self._committed, self._after_commit)
        self._stirred = asyncio.Event()  # a commit may have made something due
        self._start()

    # --- events

    async def ingest(
        self, *, model: str, producer: str | None, sequence: int | None, payload: bytes, client: Json | None = None
    ) -> replies.Ingested:
        """Count one packed batch; the reply comes after the commit. ValueError where the payload is broken."""
        self._start()
        start = 0 if sequence is None else int(sequence)
        work = Ingest(wire.check_model(model), producer, start, wire.arrived(payload), messages.told_client(client))
        reply = await self._queue.ingested(work)
        if reply["status"] == "refused":
            raise ValueError(reply["reason"])
        return reply

    async def ingest_many(self, *, batches: list[Json]) -> list[replies.Ingested]:
        """Count several batches, each a dict of `ingest`'s arguments; a broken one is answered "refused"."""
        self._start()
        works = [
            Ingest(
                b["model"],
                b.get("producer"),
                b.get("sequence") or 0,
                wire.arrived(b["payload"]),
                messages.told_client(b.get("client")),
                messages.told_rejection(b.get("rejection")),
                b.get("stamped") is True,
            )
            for b in batches
        ]
        found = await asyncio.gather(*(self._queue.ingested(work) for work in works), return_exceptions=True)
        return [_refusal(reply) if isinstance(reply, BaseException) else reply for reply in found]

    async def high_water(self, *, model: str, producer: str) -> replies.HighWater | replies.Unavailable:
        """Return the next free sequence number of a producer: `{"high_water"}`, 0 for an unknown one."""

        def act(state: DetectionState) -> replies.HighWater:
            return {"status": "ok", "high_water": state.high_water(model, producer)}

        return await self._answered(act)

    # --- questions and commands for one model

    async def baseline(
        self, *, model: str, version: str, values: Mapping[str, Any]
    ) -> replies.BaselineLearned | replies.Unavailable:
        """Let a version's watched metrics learn from these values (float64[n] by metric)."""
        wire.check_model(model)
        wire.check_version(version)
        columns = {name: _baseline_column(name, column) for name, column in _mapping(values).items()}
        return await self._changed(lambda _state: commands.baseline(model, version, columns), replies.BaselineLearned)

    async def pin(self, *, model: str, version: str | None) -> replies.Pinned | replies.Unavailable:
        """Compare every version of the model with the baseline of this one from now on; None ends that."""
        return await self._changed(lambda state: commands.pin(state.part, model, version), replies.Pinned)

    async def promise(
        self, *, model: str, version: str, values: dict[str, float], n: float, source: str = "cross_validation"
    ) -> replies.PromiseRecorded | replies.Unavailable:
        """Record the value of each metric of a version on its `n` training rows; the same said again is recorded once."""
        wire.check_model(model)
        wire.check_version(version)
        checked, rows = messages.check_promise(values, n, source)
        promise = Promise(version, checked, rows, "hold_out" if source == "hold_out" else "cross_validation")
        return await self._changed(lambda _state: commands.promise(model, promise), replies.PromiseRecorded)

    async def announce(
        self, *, model: str, version: str, live: bool = False, by: str | None = None, comment: str | None = None
    ) -> replies.VersionAnnounced | replies.Unavailable:
        """Take a version that a registry has; `live`: its alias points there. The same said again changes nothing."""
        wire.check_model(model)
        wire.check_version(version)
        signed = people.signature(by, comment)
        return await self._changed(
            lambda _state: commands.announce(model, version, signed, live=live), replies.VersionAnnounced
        )

    async def promote(
        self, *, model: str, version: str, by: str | None = None, comment: str | None = None
    ) -> replies.VersionChanged | replies.Unavailable:
        """Make a version live. KeyError: the model or the version has never logged; ValueError: it is live already."""
        wire.check_version(version)
        signed = people.signature(by, comment)
        return await self._changed(lambda _state: commands.promote(model, version, signed), replies.VersionChanged)

    async def rollback(
        self, *, model: str, by: str | None = None, comment: str | None = None
    ) -> replies.VersionChanged | replies.Unavailable:
        """Return to the version that was live before. ValueError: there is none."""
        signed = people.signature(by, comment)
        return await self._changed(lambda _state: commands.rollback(model, signed), replies.VersionChanged)

    async def versions(self, *, model: str) -> replies.VersionsListed | replies.Unavailable:
        """Return a model's versions: live, candidate or former, what each has promised, and how it compared."""
        return await self._answered(lambda state: commands.versions(state.model(model)))

    async def acknowledge(
        self, *, episode: str, by: str | None = None, comment: str | None = None
    ) -> replies.Acknowledged | replies.Unavailable:
        """Note that a person has seen an episode: it asks no more. KeyError where this store has none such."""
        signed = people.signature(by, comment)

        def change(state: DetectionState) -> Change:
            return commands.acknowledge(state.explain(episode)["model"], episode, signed)

        return await self._changed(change, replies.Acknowledged)

    async def judge(
        self, *, episode: str, verdict: str, by: str | None = None, comment: str | None = None
    ) -> replies.EpisodeJudged | replies.Unavailable:
        """Note whether a person calls an episode a "true" or a "false" alarm; the last verdict counts. KeyError: none such."""
        said = people.verdict(verdict)
        signed = people.signature(by, comment)

        def change(state: DetectionState) -> Change:
            return commands.judge(state.part, state.explain(episode)["model"], episode, said, signed)

        return await self._changed(change, replies.EpisodeJudged)

    async def explain(self, *, episode: str) -> replies.Episode | replies.Unavailable:
        """Return an episode's whole record: the observations, their baselines, the decisions with reasons, and the outcome."""
        return await self._answered(lambda state: state.explain(episode))

    async def quietest(self) -> replies.Quietest | replies.Unavailable:
        """Return the model of this process that was silent longest, and when it last logged."""
        return await self._answered(lambda state: state.quietest())

    async def removable(self, *, model: str, force: bool = False) -> replies.Removable | replies.Unavailable:
        """Return the numbers that a model has come to, which are noted before it goes. ValueError: not now, and why."""
        return await self._answered(lambda state: state.removable(model, self._clock.now(), force=force))

    async def remove(
        self, *, model: str, ordinal: int, number: int, purge: bool = False
    ) -> replies.ModelRemoved | replies.Unavailable:
        """Delete a model's rows; its episodes too where it is purged. "changed": it has come further than the numbers given.

        Called by the broadcaster while the model takes nothing (`actors.storage.removals`). Safe to repeat.
        """

        def act(state: DetectionState) -> replies.ModelRemoved:
            failpoints.reach("detector.before_remove")
            reply = state.remove(model, self._clock.now(), ordinal=ordinal, number=number, purge=purge)
            failpoints.reach("detector.after_remove")
            return reply

        return await self._answered(act)

    # --- the process

    async def hello(self) -> replies.Hello:
        """Say who this is; answered while a commit waits."""
        self._start()
        epoch = 0 if self._thread.state is None else self._thread.state.epoch
        return actor.hello(self._name, epoch=epoch, boot=self._clock.now().boot_id, store=self._thread.store)

    async def reload(self) -> replies.Reloaded | replies.Unavailable:
        """Read the configuration again; every model takes it up at its next batch, what it learned is kept where it fits."""

        def act(state: DetectionState) -> replies.Reloaded:
            state.reload(self._clock.now())
            return {"status": "reloaded"}

        return await self._answered(act)

    async def tick(self) -> None:
        """Do what time alone asks for; the process does it every second by itself, tests call it."""
        await self._round(follow=True)
        await self._errands.send_all()

    # --- the store

    def _made(self, store: Store) -> DetectionState:
        state = DetectionState(store, self._name, self._slot, self._clock.now())
        state.part.on_happening = self._notices.happened
        return state

    def _committed(self, state: DetectionState, works: list[Work]) -> list[Any]:
        return state.commit(works, self._clock.now())

    async def _answered(self, act: Callable[[DetectionState], T]) -> T | replies.Unavailable:
        self._start()
        return await or_unavailable(self._thread.do(act))

    async def _changed(self, change: Callable[[DetectionState], Change], _reply: type[T]) -> T | replies.Unavailable:
        """Commit the change that `change` makes of the state; it replies with a `_reply`."""
        self._start()

        async def act() -> T:
            reply: T = await self._queue.replied(await self._thread.do(change))
            return reply

        return await or_unavailable(act())

    # --- time

    def _start(self) -> None:
        """Start the ticks once there is a loop: Ray makes the object inside it, a unit test perhaps outside."""
        if self._ticks_by_itself and (self._ticks is None or self._ticks.done()):
            try:
                self._ticks = asyncio.get_running_loop().create_task(self._tick_for_ever())
                self._notices.begin()
            except RuntimeError:
                return

    async def _tick_for_ever(self) -> None:
        """Do what is due, at most once a second, and sleep until something may be due again or a commit has been."""
        loop = asyncio.get_running_loop()
        follow_at = trim_at = sweep_at = 0.0
        while True:
            began = loop.time()
            self._stirred.clear()
            wait_s = _TICK_S
            try:
                follow = began >= follow_at
                if follow:
                    follow_at = began + _FOLLOW_S
                wait_s = await self._round(follow=follow)
                self._errands.send_soon()
                if began >= trim_at:
                    trim_at, sweep = began + _TRIM_S, began >= sweep_at
                    sweep_at = began + _SWEEP_S if sweep else sweep_at
                    await self._sweeper.sweep(everything=sweep)
            except (StaleEpochError, UnavailableError, *STORE_ERRORS) as error:
                logger.warning("the store is unavailable, retrying: %s", error)
            except Exception:
                logger.exception("a tick failed; the next one is in %.0f s", _TICK_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), max(wait_s, _TICK_S))
            await asyncio.sleep(max(began + _TICK_S - loop.time(), 0.0))

    async def _round(self, *, follow: bool) -> float:
        """Do what is due; return the seconds until something may be due again."""
        due = await self._thread.do(lambda state: state.due(self._clock.now()))
        await asyncio.gather(*(self._queue.replied(change) for change in due))
        followed = await self._thread.do(lambda state: state.followed())
        if follow and followed:
            await self._errands.follow(followed)
        due_in = await self._thread.do(lambda state: state.due_in(self._clock.now()))
        waits = [_LONGEST_S, *([_FOLLOW_S] if followed else []), *([] if due_in is None else [due_in])]
        return min(waits)

    def _after_commit(self) -> None:
        self._errands.send_soon()
        self._stirred.set()


def _refusal(error: BaseException) -> replies.Ingested:
    if not isinstance(error, ValueError):
        raise error
    return replies.ingested("refused", reason=str(error))


def _mapping(values: object) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"values must be a mapping of metrics to columns, at least one, got {shown(values)}")
    return values


def _baseline_column(name: Any, values: Any) -> wire.Floats:
    batch = wire.batch_of_columns({name: values}, version=wire.UNVERSIONED, timestamps=0.0, now_s=0.0)
    if batch.rows > _MAX_BASELINE:
        raise ValueError(f"{name} must have at most {_MAX_BASELINE} values, got {batch.rows}")
    verdict = wire.check(batch, 0.0)
    if verdict.listed:
        first = verdict.listed[0]
        raise ValueError(f"{name}[{first['index']}] {first['rule']}, got {first['value']!r}")
    bad = verdict.bad_value
    if bad is not None:
        raise ValueError(f"{name}[{bad['index']}] {bad['rule']}, got {bad['value']!r}")
    return batch.columns[str(name)].values

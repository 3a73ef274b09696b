"""DriftDetector: one model's event log and drift episodes, or those of the models that share its process.

The loop takes calls and answers them; one thread owns the store. Calls that wait together are committed together, and a reply
comes after the commit. What an episode asks of the dispatcher lies in the outbox, written by the same commit, and is sent until
it is recorded.

On restart: everything is read from the store, the last snapshot of each detector and the log after it. Two processes of one
name (a zombie on a lost node, a thawed one) are told apart by the fence: the older one ends at its next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import ray

from actors import failpoints, wire
from actors.checks import shown
from actors.clock import Clock, Instant, SystemClock, event_instant
from actors.cluster import build, deployment
from actors.cluster.peers import Peers, PeerUnavailableError, RayPeers
from actors.detection.rules import episodes
from actors.detection.state import Change, Detection, Ingest, Model, UnavailableError, Work
from actors.storage import SCHEMA_VERSION, UNAVAILABLE, SchemaError, StaleEpochError, Store, StoreError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_TICK_S: Final = 1.0
_FOLLOW_S: Final = 2.0  # between two looks at the orders of open episodes
_HOUSE_S: Final = 30.0
_RETRY_S: Final = 0.5
# What waits here is memory: more is refused as busy, and the producer's window holds it.
_MAX_WAITING_BYTES: Final = 64 * 2**20
_MAX_WAITING: Final = 20_000
# One transaction: long enough to share an fsync, short enough that a reply does not wait for a hundred others.
_GROUP_BYTES: Final = 8 * 2**20
_GROUP: Final = 2500
_CALL_S: Final = 5.0
_EARLY_S: Final = 0.2  # how long a batch waits for the one before it
_MAX_BASELINE: Final = 100_000
_MAX_ASKED: Final = 500


class DriftDetector:
    """Counts every event once, feeds its model's detectors, and asks for one retrain order per episode.

    All methods take keywords and plain values. Where the store cannot be reached they answer
    `{"status": "unavailable", "reason", "retry_in_s"}` and nothing has changed.
    """

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
        self._storage = storage
        self._slot = slot or 0
        self._clock = clock or SystemClock()
        self._peers = peers or RayPeers(namespace)
        # Only the actor ticks by itself: a unit test that brings its own peers says when.
        self._ticks_by_itself = peers is None
        self._end_stale = end_stale or deployment.end_stale_process
        # One thread owns the store and the models: commits follow each other, the loop answers while one waits.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detector-store")
        self._store: Store | None = None
        self._detection: Detection | None = None
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._waiting_bytes = 0
        self._progress = asyncio.Event()  # set, and replaced, when a group has been committed
        self._pump: asyncio.Task[None] | None = None
        self._ticks: asyncio.Task[None] | None = None
        self._sending: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start()

    # --- events

    async def ingest(
        self, *, model: str, producer: str | None, sequence: int | None, payload: bytes, client: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Count one packed batch; the reply comes after the commit. ValueError where the payload is broken."""
        self._start()
        start = 0 if sequence is None else int(sequence)
        reply = await self._ingested(Ingest(wire.check_model(model), producer, start, wire.arrived(payload), client))
        if reply["status"] == "refused":
            raise ValueError(reply["reason"])
        return reply

    async def ingest_many(self, *, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count several batches, each a dict of `ingest`'s arguments; a broken one is answered "refused"."""
        self._start()
        works = [
            Ingest(
                b["model"],
                b.get("producer"),
                b.get("sequence") or 0,
                wire.arrived(b["payload"]),
                b.get("client"),
                wire.told_rejection(b.get("rejection")),
            )
            for b in batches
        ]
        replies = await asyncio.gather(*(self._ingested(work) for work in works), return_exceptions=True)
        return [_refusal(reply) if isinstance(reply, BaseException) else reply for reply in replies]

    async def _ingested(self, work: Ingest) -> dict[str, Any]:
        """Count a batch; one that came before its turn (Ray keeps no order between calls) waits for it for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _EARLY_S
        while True:
            progress = self._progress
            reply: dict[str, Any] = await self._replied(work)
            left = deadline - loop.time()
            if reply["status"] != "gap" or left <= 0:
                return reply
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(progress.wait(), left)

    async def high_water(self, *, model: str, producer: str) -> dict[str, Any]:
        """Give the next free sequence number of a producer: `{"high_water"}`, 0 for an unknown one."""
        now = self._clock.now()
        return await self._or_unavailable(
            lambda detection: {"status": "ok", "high_water": detection.high_water(model, producer, now)}
        )

    async def baseline(self, *, model: str, version: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Let a version's watched metrics learn from these values (float64[n] by metric)."""
        wire.check_model(model)
        wire.check_version(version)
        columns = {name: _baseline_column(name, column) for name, column in _mapping(values).items()}
        detection = await self._opened()
        if detection is None:
            return self._unavailable("the store cannot be opened")
        return await self._replied(detection.baseline(model, version, columns))  # type: ignore[no-any-return]

    async def pin(self, *, model: str, version: str | None) -> dict[str, Any]:
        """Compare every version of the model with the baseline of this one from now on; None ends that."""
        detection = await self._opened()
        if detection is None:
            return self._unavailable("the store cannot be opened")
        return await self._replied(detection.pin(model, version))  # type: ignore[no-any-return]

    async def acknowledge(self, *, episode: str) -> dict[str, Any]:
        """Note that a person has seen an episode: it asks no more. KeyError where this store has none such."""
        record = await self._or_unavailable(lambda detection: detection.explain(episode))
        if "id" not in record:
            return record

        def make(model: Model, now: Instant) -> dict[str, Any]:
            return {"status": "acknowledged" if model.book.acknowledge(episode, now) else "settled"}

        return await self._replied(Change(record["model"], make))  # type: ignore[no-any-return]

    async def explain(self, *, episode: str) -> dict[str, Any]:
        """Give an episode's whole record: what was seen, against what, what was decided and why, what came of it."""
        return await self._or_unavailable(lambda detection: detection.explain(episode))

    # --- the process

    async def hello(self) -> dict[str, Any]:
        """Say who this is; answered while a commit waits."""
        self._start()
        return {
            "actor": self._name,
            "build": build.BUILD,
            "epoch": 0 if self._detection is None else self._detection.epoch,
            "schema": SCHEMA_VERSION,
            "wire": wire.SCHEMA,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
            "boot_id": self._clock.now().boot_id,
        }

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again; every model takes it up at its next batch, what it learned is kept where it fits."""

        def act(detection: Detection) -> dict[str, Any]:
            detection.reload()
            return {"status": "reloaded"}

        return await self._or_unavailable(act)

    async def tick(self) -> None:
        """Do what time alone asks for; the process does it every second by itself, tests call it."""
        await self._round(follow=True)
        await self._send_all()

    # --- commits

    def _start(self) -> None:
        """Start the ticks once there is a loop: Ray makes the object inside it, a unit test perhaps outside."""
        if self._ticks_by_itself and (self._ticks is None or self._ticks.done()):
            try:
                self._ticks = asyncio.get_running_loop().create_task(self._tick_for_ever())
            except RuntimeError:
                return

    async def _replied(self, work: Work) -> Any:
        size = len(work.payload) if isinstance(work, Ingest) else 0
        if self._waiting_bytes + size > _MAX_WAITING_BYTES or len(self._waiting) >= _MAX_WAITING:
            return self._unavailable(f"{self._waiting_bytes} bytes wait for their commit", status="busy")
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

    async def _pump_all(self) -> None:
        while self._waiting:
            group = self._group()
            works = [work for work, _ in group]
            try:
                replies = await asyncio.get_running_loop().run_in_executor(self._thread, self._committed, works)
            except StaleEpochError as error:
                self._end_stale(error)
                replies = [self._unavailable(str(error))] * len(works)
            except (UnavailableError, *UNAVAILABLE, StoreError, SchemaError, ValueError) as error:
                # ValueError: settings of another build in the store; no mistake of whoever calls now.
                logger.warning("the store is unavailable: %s", error)
                replies = [self._unavailable(str(error))] * len(works)
            except Exception as error:
                logger.exception("a commit failed; its callers are asked to send again")
                replies = [self._unavailable(f"{type(error).__name__}: {error}")] * len(works)
            for (_, future), reply in zip(group, replies, strict=True):
                if not future.done():
                    future.set_result(reply)
            self._progress.set()
            self._progress = asyncio.Event()
            self._send_soon()

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

    def _committed(self, works: list[Work]) -> list[Any]:
        return self._open().commit(works, self._clock.now())

    def _open(self) -> Detection:
        if self._detection is None:
            self._store = self._store or Store(self._storage)
            self._detection = Detection(self._store, self._name, self._slot, self._clock.now())
        return self._detection

    async def _opened(self) -> Detection | None:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except (*UNAVAILABLE, StoreError, SchemaError, ValueError) as error:
            logger.warning("the store cannot be opened, trying again: %s", error)
            return None

    async def _or_unavailable(self, act: Callable[[Detection], dict[str, Any]]) -> dict[str, Any]:
        self._start()
        detection = await self._opened()
        if detection is None:
            return self._unavailable("the store cannot be opened")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, act, detection)
        except (*UNAVAILABLE, StoreError, SchemaError) as error:
            return self._unavailable(str(getattr(error, "orig", None) or error))

    def _unavailable(self, reason: str, status: str = "unavailable") -> dict[str, Any]:
        return {
            "status": status,
            "accepted": 0,
            "duplicates": 0,
            "rejected": [],
            "high_water": None,
            "epoch": 0 if self._detection is None else self._detection.epoch,
            "reason": reason,
            "retry_in_s": _RETRY_S,
        }

    # --- the outbox

    def _send_soon(self) -> None:
        detection = self._detection
        if detection is None:
            return
        for id_ in list(detection.outbox):
            if id_ not in self._sending:
                self._sending.add(id_)
                task = asyncio.get_running_loop().create_task(self._send(id_))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _send_all(self) -> None:
        self._send_soon()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _send(self, id_: str) -> None:
        """Send one outbox row; what comes back is committed with its removal. Without a reply it stays, and is sent again."""
        try:
            row = None if self._detection is None else self._detection.outbox.get(id_)
            if row is None:
                return
            model, method, body = row
            failpoints.reach("outbox.before_send")
            reply = await self._peers.call("dispatcher", method, timeout_s=_CALL_S, **body)
            failpoints.reach("outbox.after_send")
            if reply.get("status") != "recorded":
                return
            await self._replied(Change(model, _recorded(id_, method, reply), sent=id_))
        except PeerUnavailableError as error:
            logger.info("the dispatcher did not answer, %s is sent again: %s", id_, error)
        except Exception:
            logger.exception("%s could not be sent; it is sent again", id_)
        finally:
            self._sending.discard(id_)

    # --- time

    async def _tick_for_ever(self) -> None:
        await self._opened()
        loop = asyncio.get_running_loop()
        follow_at = house_at = 0.0
        while True:
            try:
                follow = loop.time() >= follow_at
                if follow:
                    follow_at = loop.time() + _FOLLOW_S
                await self._round(follow=follow)
                self._send_soon()
                if loop.time() >= house_at:
                    house_at = loop.time() + _HOUSE_S
                    await self._keep_house()
            except StaleEpochError as error:
                self._end_stale(error)
            except (*UNAVAILABLE, StoreError, SchemaError, UnavailableError) as error:
                logger.warning("the store is unavailable, trying again: %s", error)
            except Exception:
                logger.exception("a tick failed; the next one follows in %.0f s", _TICK_S)
            await asyncio.sleep(_TICK_S)

    async def _round(self, *, follow: bool) -> None:
        detection = await self._opened()
        if detection is None:
            return
        loop = asyncio.get_running_loop()
        due = await loop.run_in_executor(self._thread, detection.due, self._clock.now())
        await asyncio.gather(*(self._replied(change) for change in due))
        followed = await loop.run_in_executor(self._thread, detection.followed) if follow else {}
        if followed:
            await self._follow(followed)

    async def _follow(self, followed: dict[str, str]) -> None:
        """Ask how the orders of these episodes are, a part at a time."""
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
            await asyncio.gather(*(self._replied(change) for change in changes))

    async def _keep_house(self) -> None:
        """Keep the retention, a model at a time, so that ingest waits for none of it for long."""
        detection = await self._opened()
        if detection is None:
            return
        loop = asyncio.get_running_loop()
        names = [model.name for model in await loop.run_in_executor(self._thread, lambda: list(detection.models))]
        for start in range(0, len(names), 20):
            await loop.run_in_executor(self._thread, detection.keep_house, names[start : start + 20], self._clock.now(), 200)
        await loop.run_in_executor(self._thread, detection.forget_old, self._clock.now())


def _recorded(id_: str, method: str, reply: Mapping[str, Any]) -> Callable[[Model, Instant], Any]:
    def make(model: Model, now: Instant) -> None:
        if method == "request":
            # On event time events may have come since it asked; the dispatcher's answer counts from the asking.
            record = model.book.get(id_)
            asked = event_instant(episodes.asks_at(record)) if model.on_event_time and record is not None else now
            model.effects += model.book.reply(id_, reply, now, asked)

    return make


def _ordered(episode: str, order: Mapping[str, Any]) -> Callable[[Model, Instant], Any]:
    def make(model: Model, now: Instant) -> None:
        model.effects += model.book.order(episode, order, now)

    return make


def _refusal(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, ValueError):
        raise error
    return {"status": "refused", "accepted": 0, "duplicates": 0, "rejected": [], "high_water": None, "reason": str(error)}


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
    if verdict.bad_value is not None:
        raise ValueError(
            f"{name}[{verdict.bad_value['index']}] {verdict.bad_value['rule']}, got {verdict.bad_value['value']!r}"
        )
    return batch.columns[str(name)].values

"""RetrainDispatcher: from a drift episode's request to a launched retrain, effectively once.

Its state (`state.py`) decides and commits, its launcher (`launcher.py`) and its channel (`channel.py`) carry out. In between
stands the order of steps that makes it effectively once: claim and cooldown committed, the attempt on record, the effect
put-if-absent by the order's id, the outcome committed and the cooldown re-armed. Whatever is killed in between, the successor
reads the state and goes on.

On restart: everything is read from the store; orders that were begun are followed up first. Two dispatchers at once (a zombie
on a lost node, a thawed process) are told apart by the fence: the older one ends at its next commit.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import ray
from sqlalchemy import select

from actors import config, failpoints
from actors.clock import Clock, EventClock, Instant, SystemClock
from actors.cluster import build, deployment, watchdog
from actors.cluster.peers import Peers, RayPeers
from actors.config.stored import load_stored
from actors.retraining import handlers
from actors.retraining.admissions import Admission, Answered, Asked
from actors.retraining.channel import ChannelRetrainHandler, RenewReply, TakeReply
from actors.retraining.commits import Plan
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.launcher import MAX_ATTEMPTS_AT_ONCE, STORE_RETRY_S, Launcher, MakeHandler, brief
from actors.retraining.rules.delivery import Backoff, Done, Failed
from actors.retraining.rules.orders import Order, Request
from actors.retraining.state import RetrainingState
from actors.retraining.stored import as_row, as_whole, check_history
from actors.retraining.tables import DISPATCHER
from actors.storage import SCHEMA_VERSION, UNAVAILABLE, Fence, SchemaError, StaleEpochError, Store, StoreError, schema
from actors.storage.schema import SYSTEM

logger = logging.getLogger(__name__)
T = TypeVar("T")

OWNER: Final = "dispatcher"
# What the configuration says of a model, worked out once: patterns and documents cost a millisecond.
_MAX_PLANS: Final = 20_000
# Requests that are answered in one commit; more wait for the next.
_GROUP: Final = 500
_LONGEST_TAKE_S: Final = 300.0
_LONGEST_SILENCE_S: Final = 10 * 365 * 86_400.0
_MAX_EXPLANATION_CHARACTERS: Final = 256 * 1024
_MAX_EPISODES: Final = 1000
_MAX_REASON_CHARACTERS: Final = 1000
# Control characters, and halves of characters that no encoding can carry.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class RetrainDispatcher:
    """Gives at most one order per drift episode, at most one at a time and per cooldown for a model, and loses none.

    All methods take keywords and plain values. Where the store cannot be reached they answer
    `{"status": "unavailable", "reason", "retry_in_s"}` and nothing has changed.
    """

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        storage: str,
        slot: int | None = None,  # noqa: ARG002  every actor is made alike
        clock: Clock | None = None,
        peers: Peers | None = None,
        environment: Mapping[str, str] | None = None,
        make_handler: MakeHandler = handlers.create,
        seed: int | None = None,
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._storage = storage
        self._clock = clock or SystemClock()
        surroundings = Surroundings(
            namespace,
            peers or RayPeers(namespace),
            os.environ if environment is None else environment,
            # Apart from the default executor, which a handful of hanging receivers would fill.
            ThreadPoolExecutor(MAX_ATTEMPTS_AT_ONCE, thread_name_prefix="dispatcher-handler"),
            self._parameters_in_force,
        )
        self._jitter = np.random.default_rng(seed)
        # One thread owns the store, so that commits follow each other and the loop answers while one waits for the disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatcher-store")
        self._state: RetrainingState | None = None
        self._fence: Fence | None = None
        self._store: Store | None = None
        self._settings = config.Settings()
        self._plans: dict[str, Plan] = {}
        self._channel = ChannelRetrainHandler(self._in_store)
        self._launcher = Launcher(
            self._in_store, surroundings, make_handler, self._clock, offer=self._channel.offer, keep_house=self._keep_house
        )
        self._asked: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        # Only the actor watches: a unit test that brings its own peers has nothing to watch.
        self._watches = peers is None
        self._watch_task: asyncio.Task[None] | None = None
        self._export_task: asyncio.Task[None] | None = None
        self._start_loop()

    # --- requests

    async def request(
        self,
        *,
        episode: str,
        model: str,
        version: str,
        metric: str,
        observed_drift: float | None,
        triggered_at: float,
        explanation: dict[str, Any],
    ) -> dict[str, Any]:
        """Ask for the one order of a drift episode; say it again until it is recorded.

        Gives `{"status": "recorded", "decision": "dispatched"|"pending"|"skipped", "order", "reason", "retry_in_s"}`. A
        skipped episode may ask again after `retry_in_s`; None: there is nothing to ask again for. Where the system runs on
        event time (`clock: event`), that passes by `triggered_at`.
        """
        asked = Request(
            model=_text("model", model, 200),
            version=_text("version", version, 200),
            metric=_text("metric", metric, 200),
            observed_drift=_number_or_none("observed_drift", observed_drift),
            triggered_at=_number("triggered_at", triggered_at),
            episode=_text("episode", episode, 200),
            explanation=_explanation(explanation),
        )
        return await self._or_unavailable(self._admitted(self._request(asked), model))

    async def trigger(self, *, model: str, reason: str, version: str | None = None, key: str | None = None) -> dict[str, Any]:
        """Ask for an order by hand: it passes a cooldown and a silence, never another order of the model.

        `key` makes it safe to send again. The reply is that of `request`.
        """
        asked = Request(
            model=_text("model", model, 200),
            version="" if version is None else _text("version", version, 200),
            metric="manual",
            observed_drift=None,
            triggered_at=self._clock.now().wall_s,
            episode="",
            explanation={},
        )
        why = f"manual: {_text('reason', reason, 1000)}"
        once = uuid.uuid4().hex if key is None else _text("key", key, 200)

        def act(state: RetrainingState, now: Instant) -> Admission:
            return state.admissions.trigger(asked, once, now, reason=why)

        return await self._or_unavailable(self._admitted(self._then_wake(act), model))

    async def retry(self, *, order: str) -> dict[str, Any]:
        """Put a failed, dead or expired order back. KeyError: no such order; ValueError: it ended otherwise."""
        put_back = self._then_wake(lambda state, now: state.retry(order, now))
        return await self._or_unavailable(self._admitted(put_back, order))

    async def overtaken(self, *, model: str, version: str, over: list[str] | None = None) -> dict[str, Any]:
        """Learn that a new version of `model` has come: an order that nobody has begun yet expires.

        `over` names the versions before it (None: all others); an order for a later one, which this word has come too late
        for, stays.
        """
        _text("model", model, 200)
        _text("version", version, 200)
        if over is not None and not isinstance(over, list):
            raise ValueError(f"over must be a list of versions, got {_shown(over)}")

        async def act() -> dict[str, Any]:
            expired = await self._in_store(lambda state, now: state.overtaken(model, version, now, over))
            if expired is not None:
                logger.info("order %s of %s expired: version %s came first", expired.id, model, version)
            return {"status": "recorded", "expired": None if expired is None else expired.id}

        return await self._or_unavailable(act())

    # --- the channel

    async def take(self, *, consumer: str, model: str | None = None, timeout_s: float = 20.0) -> TakeReply | dict[str, Any]:
        """Wait up to `timeout_s` for an order of the channel (of `model`, or of any).

        Gives `{"status": "order", "order": {"id", "attempt", "requested_at", "event"}, "token", "lease_s"}` or
        `{"status": "none"}`. The consumer renews within `lease_s` for as long as it works on the order.
        """
        _text("consumer", consumer, 200)
        if model is not None:
            _text("model", model, 200)
        if not 0 <= _number("timeout_s", timeout_s) <= _LONGEST_TAKE_S:
            raise ValueError(f"timeout_s must be from 0 to {_LONGEST_TAKE_S:.0f}, got {timeout_s}")
        return await self._or_unavailable(self._channel.take(consumer=consumer, model=model, timeout_s=timeout_s))

    async def renew(self, *, order: str, token: int) -> RenewReply | dict[str, Any]:
        """Keep an order: `{"status": "renewed", "lease_s"}`, or "lost" where the token is not the newest any more."""
        return await self._or_unavailable(self._channel.renew(order=order, token=token))

    async def finish(
        self, *, order: str, outcome: str, token: int | None = None, reason: str | None = None, new_version: str | None = None
    ) -> dict[str, Any]:
        """Record how a retrain ended: `outcome` "done" or "failed"; without a token it is a person's word, of any handler.

        Gives status "recorded" (also when it is said again), or "stale" where somebody else has the order. KeyError: no such
        order.
        """
        ending = _ending(outcome, reason, new_version)

        async def act() -> dict[str, Any]:
            said = await self._channel.finish(order=order, token=token, ending=ending)
            return {"status": said.status, "reason": said.reason}

        return await self._or_unavailable(act())

    # --- silences

    async def silence(self, *, model: str, duration_s: float, comment: str = "", key: str | None = None) -> dict[str, Any]:
        """Hold back the orders of `model` (a name, or a pattern like `fraud-*`) for `duration_s` seconds."""
        pattern = _text("model", model, 200)
        if not 0 < _number("duration_s", duration_s) <= _LONGEST_SILENCE_S:
            raise ValueError(f"duration_s must be above 0 and at most ten years, got {duration_s}")
        said = "" if not comment else _text("comment", comment, 1000)
        once = uuid.uuid4().hex if key is None else _text("key", key, 200)

        async def act() -> dict[str, Any]:
            id_ = await self._in_store(lambda state, now: state.silence(pattern, float(duration_s), said, once, now))
            return {"status": "recorded", "silence": id_}

        return await self._or_unavailable(act())

    async def unsilence(self, *, silence: str) -> dict[str, Any]:
        """End a silence. KeyError: no such silence."""

        async def act() -> dict[str, Any]:
            await self._in_store(lambda state, now: state.unsilence(silence, now))
            return {"status": "recorded"}

        return await self._or_unavailable(act())

    async def silences(self) -> dict[str, Any]:
        """Give the silences in force: `{"status", "silences": [{"id", "model", "comment", "created_at", "remaining_s"}]}`."""

        async def act() -> dict[str, Any]:
            return {"status": "ok", "silences": await self._in_store(lambda state, now: state.record.silences(now))}

        return await self._or_unavailable(act())

    # --- questions

    async def orders(self, *, episodes: list[str]) -> dict[str, Any]:
        """Give, for each episode that has an order, `{"order", "state", "reason", "new_version"}`."""
        if not isinstance(episodes, list) or len(episodes) > _MAX_EPISODES:
            raise ValueError(f"episodes must be a list of at most {_MAX_EPISODES} ids, got {_shown(episodes)}")

        async def act() -> dict[str, Any]:
            found: dict[str, Order] = await self._in_store(lambda state, _now: state.record.of_episodes(episodes))
            return {
                episode: {
                    "order": order.id,
                    "state": order.state,
                    "reason": order.reason,
                    "new_version": order.new_version,
                }
                for episode, order in found.items()
            }

        return await self._or_unavailable(act())

    async def history(self, *, model: str | None = None, limit: int = 1000, state: str | None = None) -> dict[str, Any]:
        """Give the newest `limit` orders and skipped decisions, oldest first: `{"status": "ok", "rows": [...]}`."""
        check_history(limit, state)

        async def act() -> dict[str, Any]:
            found = await self._in_store(lambda book, _now: book.record.history(model, limit, state))
            return {"status": "ok", "rows": [as_row(order) for order in found]}

        return await self._or_unavailable(act())

    async def order(self, *, order: str) -> dict[str, Any]:
        """Give one order with its explanation and attempts. KeyError: no such order."""

        async def act() -> dict[str, Any]:
            found, attempts = await self._in_store(lambda state, _now: state.record.order(order))
            return as_whole(found, attempts) | {"status": "ok"}

        return await self._or_unavailable(act())

    async def cooldowns(self) -> dict[str, Any]:
        """Give the seconds that are left of every cooldown in force: `{"status": "ok", "cooldowns": {model: seconds}}`."""

        async def act() -> dict[str, Any]:
            return {"status": "ok", "cooldowns": await self._in_store(lambda state, now: state.record.cooldowns(now))}

        return await self._or_unavailable(act())

    # --- the process

    async def hello(self) -> dict[str, Any]:
        """Say who this is; answered while commits and handlers are under way."""
        self._start_loop()
        return {
            "actor": self._name,
            "build": build.BUILD,
            "epoch": 0 if self._fence is None else self._fence.epoch,
            "schema": SCHEMA_VERSION,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
            "boot_id": self._clock.now().boot_id,
        }

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again; a pending order goes to the handler that it names now."""

        async def act() -> dict[str, Any]:
            await self._in_store(self._reloaded)
            self._wake()
            return {"status": "reloaded"}

        return await self._or_unavailable(act())

    # --- the store

    def _start_loop(self) -> None:
        """Start the loop, once there is one to run on: Ray makes the object inside it, a unit test perhaps outside."""
        if self._loop_task is not None and not self._loop_task.done():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._loop_task = loop.create_task(self._launcher.run())
        if self._watches and self._watch_task is None:
            watched = watchdog.watch(
                self._watched, namespace=self._namespace, storage=self._storage, now_s=lambda: self._clock.now().boot_s
            )
            self._watch_task = loop.create_task(watched)
            exported = deployment.exporter()(lambda: Store(self._storage), self._clock, build=build.BUILD)
            self._export_task = loop.create_task(exported)

    def _watched(self) -> dict[str, int | None]:
        """Give every other actor of the system, with its slot; called in a thread."""
        wanted: dict[str, int | None] = dict.fromkeys(name for name in deployment.CORE if name != self._name)
        store = self._store
        if store is not None:
            with store.part(SYSTEM).read() as connection:
                rows = connection.execute(select(schema.placements.c.process, schema.placements.c.slot).distinct())
                wanted |= {row.process: row.slot for row in rows}
        return wanted

    async def _in_store(self, act: Callable[[RetrainingState, Instant], T], /) -> T:
        """Run `act` on the state in the thread that owns it; a process that has been succeeded ends here."""
        self._start_loop()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._on_state, act)
        except StaleEpochError as error:
            self._end_stale(error)
            raise

    def _on_state(self, act: Callable[[RetrainingState, Instant], T]) -> T:
        return act(self._state or self._open(), self._clock.now())

    def _open(self) -> RetrainingState:
        self._store = self._store or Store(self._storage)
        self._settings = _stored_settings(self._store)
        self._fence = self._fence or Fence.raise_epoch(self._store.part(DISPATCHER), OWNER)
        state = RetrainingState(
            self._fence,
            self._store.store_id,
            plan_of=self._plan_of,
            backoff=_backoff(self._settings),
            jitter=self._jitter,
        )
        self._set_clock(state)
        state.start(self._clock.now())
        self._state = state
        return state

    def _reloaded(self, state: RetrainingState, _now: Instant) -> None:
        if self._store is not None:
            self._settings = _stored_settings(self._store)
            self._plans.clear()
            state.commits.backoff = _backoff(self._settings)
            if self._set_clock(state):
                state.start(self._clock.now())
            state.reassign()

    def _set_clock(self, state: RetrainingState) -> bool:
        """Let cooldowns run on the clock that is configured; return whether that is another one than before."""
        wanted = self._settings.clock == "event"
        changed = wanted != (state.commits.events is not None)
        if changed:
            state.commits.events = EventClock() if wanted else None
        return changed

    def _keep_house(self, state: RetrainingState, now: Instant) -> None:
        retention = self._settings.retention
        state.keep_house(now, keep_rows=retention.rows, keep_s=retention.age_s)

    async def _parameters_in_force(self, model: str, names: Collection[str]) -> Mapping[str, Any] | None:
        return await self._in_store(lambda state, _now: state.record.parameters_in_force(model, names))

    def _plan_of(self, model: str) -> Plan:
        if model in self._plans:
            return self._plans[model]
        settings = self._settings.for_model(model)
        handler = settings.handler
        channel = handler if isinstance(handler, config.ChannelHandlerSettings) else config.ChannelHandlerSettings()
        plan = Plan(settings.cooldown_s, settings.dry_run, handler.kind, config.handler_document(handler), channel.lease_s)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[model] = plan
        return plan

    def _end_stale(self, error: StaleEpochError) -> None:
        deployment.end_stale_process(error)

    # --- requests that wait together are committed together

    async def _request(self, asked: Request) -> Admission:
        waiter = self._channel.reserve(asked.model)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._asked.append((Asked(asked, None if waiter is None else waiter.consumer), future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._answer_all())
        answered: Answered | None = None
        try:
            answered = await future
        finally:
            if waiter is not None:
                waiter.settle(None if answered is None else answered.handed)
        if answered.handed is None and answered.admission.decision != "skipped":
            self._wake()
        return answered.admission

    async def _answer_all(self) -> None:
        while self._asked:
            group, self._asked = self._asked[:_GROUP], self._asked[_GROUP:]
            try:
                answers: list[Answered | BaseException] = list(await self._in_store(_answering([each for each, _ in group])))
            except (*UNAVAILABLE, StoreError, SchemaError, StaleEpochError) as error:
                answers = [error] * len(group)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001  one request that cannot be answered takes no other along
                answers = [error] if len(group) == 1 else [await self._alone(each) for each, _ in group]
            for (_, future), answer in zip(group, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, BaseException):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _alone(self, asked: Asked) -> Answered | BaseException:
        try:
            return (await self._in_store(_answering([asked])))[0]
        except BaseException as error:  # noqa: BLE001  handed to whoever asked
            return error

    async def _then_wake(self, act: Callable[[RetrainingState, Instant], Admission]) -> Admission:
        admission = await self._in_store(act)
        if admission.decision != "skipped":
            self._wake()
        return admission

    async def _admitted(self, answer: Awaitable[Admission], what: str) -> dict[str, Any]:
        admission = await answer
        if admission.decision == "skipped":
            logger.warning("retrain of %s skipped: %s", what, admission.reason)
        else:
            logger.info("retrain of %s %s: order %s", what, admission.decision, admission.order)
        return {
            "status": "recorded",
            "decision": admission.decision,
            "order": admission.order,
            "reason": admission.reason,
            "retry_in_s": admission.retry_in_s,
        }

    async def _or_unavailable(self, work: Awaitable[T]) -> T | dict[str, Any]:
        try:
            return await work
        except (*UNAVAILABLE, StoreError, SchemaError) as error:
            return {"status": "unavailable", "reason": brief(error), "retry_in_s": STORE_RETRY_S}

    def _wake(self) -> None:
        self._launcher.wake()
        self._channel.offer()


def _answering(asked: list[Asked]) -> Callable[[RetrainingState, Instant], list[Answered]]:
    def act(state: RetrainingState, now: Instant) -> list[Answered]:
        failpoints.reach("dispatcher.before_claim")
        answers = state.admissions.request_all(asked, now)
        failpoints.reach("dispatcher.after_claim")
        if any(answer.handed is not None for answer in answers):
            failpoints.reach("dispatcher.after_take")
        return answers

    return act


def _ending(outcome: str, reason: str | None, new_version: str | None) -> Done | Failed:
    why = "" if reason is None else str(reason)[:_MAX_REASON_CHARACTERS]
    match outcome:
        case "done":
            return Done(None if new_version is None else _text("new_version", new_version, 200), why)
        case "failed":
            return Failed(why or "the consumer gave no reason")
        case _:
            raise ValueError(f"outcome must be 'done' or 'failed', got {outcome!r}")


def _stored_settings(store: Store) -> config.Settings:
    try:
        return load_stored(store)
    except ValueError as error:  # what another build has stored is no mistake of whoever calls now
        raise StoreError(str(error)) from error


def _backoff(settings: config.Settings) -> Backoff:
    said = settings.delivery
    return Backoff(
        first_s=said.backoff_s,
        ceiling_s=max(said.max_backoff_s, said.backoff_s),
        max_failures=said.attempts,
    )


def _text(field: str, value: object, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or _CONTROL.search(value):
        raise ValueError(f"{field} must be a text of 1 to {longest} characters, none a control character, got {_shown(value)}")
    return value


def _number(field: str, value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{field} must be a number, got {_shown(value)}")  # noqa: TRY004  ValueError is the wire's rule
    if not math.isfinite(value):
        raise ValueError(f"{field} must be finite, got {value}")
    return float(value)


def _number_or_none(field: str, value: object) -> float | None:
    """Take a number; one that is not finite (drift against a constant baseline) must not keep an order from being given."""
    if value is None or (isinstance(value, (float, np.floating)) and not math.isfinite(value)):
        return None
    return _number(field, value)


def _explanation(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"explanation must be a mapping, got {_shown(value)}")  # noqa: TRY004  ValueError is the wire's rule
    if len(str(value)) > _MAX_EXPLANATION_CHARACTERS:
        raise ValueError(f"explanation must have at most {_MAX_EXPLANATION_CHARACTERS} characters, got {len(str(value))}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

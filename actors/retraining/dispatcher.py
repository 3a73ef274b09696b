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
import os
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np

from actors import failpoints, labels, people
from actors.checks import shown
from actors.clock import Clock, Instant, SystemClock
from actors.cluster import actor, build, deployment, watchdog
from actors.cluster.peers import Peers, RayPeers
from actors.labels import ALL, Selector
from actors.replies import (
    Admitted,
    EndingRecorded,
    Hello,
    ModelForgotten,
    Overtaken,
    Recorded,
    Reloaded,
    Renewed,
    SilenceMade,
    Taken,
    Unavailable,
)
from actors.retraining import border, handlers
from actors.retraining.admissions import Admission, Asked
from actors.retraining.answering import Answering
from actors.retraining.asking import Asking
from actors.retraining.channel import ChannelRetrainHandler
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.keeper import Keeper
from actors.retraining.launcher import Launcher, MakeHandler
from actors.retraining.leases import Said
from actors.retraining.rules import gate, orders
from actors.retraining.rules.circuit import MAX_AT_ONCE
from actors.retraining.rules.orders import Request
from actors.retraining.state import RetrainingState
from actors.storage import StoreReader

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LONGEST_TAKE_S: Final = 300.0
_LONGEST_SILENCE_S: Final = 10 * 365 * 86_400.0


class RetrainDispatcher(Answering):
    """Gives at most one order per request, at most one at a time and per cooldown for a model, and loses none.

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
        super().__init__()
        self._name = name
        self._namespace = namespace
        self._storage = storage
        self._clock = clock or SystemClock()
        self._keeper = Keeper(storage, self._clock, np.random.default_rng(seed), self._end_stale)
        surroundings = Surroundings(
            namespace,
            peers or RayPeers(namespace),
            os.environ if environment is None else environment,
            # Apart from the default executor, which a handful of hanging receivers would fill.
            ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="dispatcher-handler"),
            self._parameters_in_force,
        )
        self._channel = ChannelRetrainHandler(self._in_store)
        self._launcher = Launcher(
            self._in_store, surroundings, make_handler, self._clock, offer=self._channel.offer, keeper=self._keeper
        )
        self._asking = Asking(self._in_store, self._channel)
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
        model: str,
        version: str,
        metric: str,
        observed_drift: float | None,
        triggered_at: float,
        explanation: dict[str, Any],
        episode: str = "",
        key: str | None = None,
        cause: str = orders.ALARM,
        ordinal: int | None = None,
        lost: float | None = None,
        price: float | None = None,
    ) -> Admitted | Unavailable:
        """Ask for the one order of a drift episode, or of any other cause under its `key`; repeat until it is recorded.

        A skipped request may be repeated after `retry_in_s`; None: there is nothing to ask again for. Where the system runs on
        event time (`clock: event`), that passes by `triggered_at`.
        """
        asked = border.request_of(
            cause=cause,
            ordinal=ordinal,
            episode=episode,
            model=model,
            version=version,
            metric=metric,
            observed_drift=observed_drift,
            triggered_at=triggered_at,
            explanation=explanation,
            lost=lost,
            price=price,
        )
        once = asked.episode if key is None else border.text("key", key)
        if not once:
            raise ValueError(f"key must be given for cause {cause!r}, got None")
        return await self._or_unavailable(self._admitted(lambda: self._asked(Asked(asked, once)), model))

    async def trigger(
        self,
        *,
        model: str,
        reason: str,
        version: str | None = None,
        key: str | None = None,
        by: str | None = None,
        comment: str | None = None,
    ) -> Admitted | Unavailable:
        """Ask for an order by hand: it passes a cooldown, a silence and `give_up`, never another order of the model.

        `key` makes it safe to send again. A model that has never logged gets its order with a warning.
        """
        asked = Request(
            model=border.model_of(model),
            version="" if version is None else border.text("version", version),
            metric="manual",
            observed_drift=None,
            triggered_at=self._clock.now().wall_s,
            episode="",
            explanation={},
            cause=orders.MANUAL,
        )
        why = f"manual: {border.text('reason', reason, 1000)}"
        once = uuid.uuid4().hex if key is None else border.text("key", key)
        signed = people.signature(by, comment)

        async def act() -> Admitted:
            def triggered(state: RetrainingState, now: Instant) -> Admission:
                return state.admissions.trigger(asked, once, now, reason=why, signed=signed)

            reply = await self._admitted(lambda: self._then_wake(triggered), model)
            if not await self._is_known(model):
                reply["warning"] = f"model {model!r} has never logged"
            return reply

        return await self._or_unavailable(act())

    async def retry(self, *, order: str, by: str | None = None, comment: str | None = None) -> Admitted | Unavailable:
        """Put a failed, dead or expired order back. KeyError: no such order; ValueError: it is in another state."""
        signed = people.signature(by, comment)

        def put_back(state: RetrainingState, now: Instant) -> Admission:
            return state.retry(order, now, signed)

        return await self._or_unavailable(self._admitted(lambda: self._then_wake(put_back), order))

    async def dismiss(
        self, *, order: str, reason: str, by: str | None = None, comment: str | None = None
    ) -> Recorded | Unavailable:
        """Close a failed or dead order that a person has dealt with. KeyError; ValueError: it is in another state."""
        why = border.text("reason", reason, 1000)
        signed = people.signature(by, comment)
        return await self._recorded(lambda state, now: state.dismiss(order, why, now, signed))

    async def front(self, *, order: str, by: str | None = None, comment: str | None = None) -> Recorded | Unavailable:
        """Move an order that waits to the front of the queue. KeyError; ValueError: it does not wait."""
        signed = people.signature(by, comment)
        return await self._recorded(lambda state, now: state.front(order, now, signed))

    async def overtaken(self, *, model: str, version: str, over: list[str] | None = None) -> Overtaken | Unavailable:
        """Learn that a new version of `model` has come: an order that has not been started yet expires.

        `over` names the versions before it (None: all others). An order for a later one stays: this notification may arrive
        after a newer version has itself drifted.
        """
        border.text("model", model)
        border.text("version", version)
        if over is not None and not isinstance(over, list):
            raise ValueError(f"over must be a list of versions, got {shown(over)}")

        async def act() -> Overtaken:
            expired = await self._in_store(lambda state, now: state.overtaken(model, version, now, over))
            if expired is not None:
                logger.info("order %s of %s expired: version %s came first", expired.id, model, version)
            return {"status": "recorded", "expired": None if expired is None else expired.id}

        return await self._or_unavailable(act())

    async def deployed(self, *, model: str, version: str, at: float) -> Recorded | Unavailable:
        """Learn the live version of a model, and since when: its age counts from then on."""
        named, new, since = border.text("model", model), border.text("version", version), border.number("at", at)
        return await self._recorded(lambda state, now: state.deployed(named, new, since, now))

    async def forget(self, *, model: str, purge: bool = False, only_ask: bool = False) -> ModelForgotten | Unavailable:
        """Forget a model that is being removed; its orders and decisions go too where it is purged. Safe to repeat.

        "refused": `order` is not finished. With `only_ask` nothing is forgotten. Its silences stay: they are for patterns.
        """
        named = border.text("model", model)

        async def act() -> ModelForgotten:
            def forgotten(state: RetrainingState, _now: Instant) -> str | None:
                if only_ask:
                    return state.forget(named, purge=purge, only_ask=True)
                failpoints.reach("dispatcher.before_forget")
                order = state.forget(named, purge=purge)
                failpoints.reach("dispatcher.after_forget")
                return order

            order = await self._in_store(forgotten)
            return {"status": "forgotten" if order is None else "refused", "order": order}

        return await self._or_unavailable(act())

    async def verdict(
        self, *, order: str, verdict: str, saved: float, standard_error: float, at: float
    ) -> Recorded | Unavailable:
        """Record whether a retrain paid ("paid", "did not pay"), in errors saved; the first verdict counts."""
        judged = border.verdict_of(verdict=verdict, saved=saved, standard_error=standard_error, at=at)
        return await self._recorded(lambda state, _now: state.verdict(order, judged))

    async def promoted(
        self,
        *,
        key: str,
        model: str,
        version: str,
        over: str | None,
        kind: str,
        evidence: dict[str, Any] | None = None,
        by: str | None = None,
        comment: str | None = None,
    ) -> Recorded | Unavailable:
        """Carry out a decision about versions by `promotion.handler`, effectively once for its `key`.

        `kind`: "promoted", where `version` goes live in place of `over`, or "rolled_back", where it comes back in place of it.
        """
        at = self._clock.now().wall_s
        asked = border.promotion_of(model=model, version=version, over=over, kind=kind, evidence=evidence, at=at)
        once = border.text("key", key)
        signed = people.signature(by, comment)

        def act(state: RetrainingState, now: Instant) -> None:
            failpoints.reach("dispatcher.before_promotion")
            state.promoted(once, asked, now, signed)
            failpoints.reach("dispatcher.after_promotion")

        return await self._recorded(act)

    # --- the channel

    async def take(self, *, consumer: str, model: str | None = None, timeout_s: float = 20.0) -> Taken | Unavailable:
        """Wait up to `timeout_s` for an order of the channel (of `model`, or of any).

        The consumer renews within `lease_s` for as long as it works on the order. Status "unavailable" also where too many
        consumers wait already.
        """
        border.text("consumer", consumer)
        if model is not None:
            border.text("model", model)
        wait_s = border.within("timeout_s", timeout_s, 0, _LONGEST_TAKE_S)
        return await self._or_unavailable(self._channel.take(consumer=consumer, model=model, timeout_s=wait_s))

    async def renew(self, *, order: str, token: int) -> Renewed | Unavailable:
        """Keep an order; "lost" where the token is not the newest any more, or the order has ended."""
        return await self._or_unavailable(self._channel.renew(order=order, token=token))

    async def release(self, *, order: str, token: int, reason: str) -> EndingRecorded | Unavailable:
        """Give an order back that this consumer cannot carry out; after a pause it goes to the next one. KeyError."""
        why = border.text("reason", reason, 1000)

        async def act() -> EndingRecorded:
            said = await self._channel.release(order=order, token=token, reason=why)
            self._wake()
            return _ending_recorded(said)

        return await self._or_unavailable(act())

    async def finish(
        self,
        *,
        order: str,
        outcome: str,
        token: int | None = None,
        reason: str | None = None,
        new_version: str | None = None,
        promise: float | None = None,
        promise_n: float | None = None,
        promise_source: str = "cross_validation",
    ) -> EndingRecorded | Unavailable:
        """Record how a retrain ended: `outcome` "done" or "failed"; without a token a person says so, of any handler's order.

        `promise` is what the new version promises: the cross-validated value of the model's metric on its `promise_n` training
        rows. "stale": somebody else has the order, or another ending is on record. KeyError: no such order.
        """
        ending = border.ending_of(
            outcome=outcome,
            reason=reason,
            new_version=new_version,
            promise=promise,
            promise_n=promise_n,
            promise_source=promise_source,
        )

        async def act() -> EndingRecorded:
            said = await self._channel.finish(order=order, token=token, ending=ending)
            self._launcher.wake()
            return _ending_recorded(said)

        return await self._or_unavailable(act())

    # --- silences

    async def silence(
        self,
        *,
        model: str,
        duration_s: float,
        comment: str = "",
        key: str | None = None,
        label: str | None = None,
        by: str | None = None,
    ) -> SilenceMade | Unavailable:
        """Hold back the orders of `model` (a name, or a pattern like `fraud-*`) for `duration_s` seconds.

        `label` is a selector of labels: of the models that the pattern matches, only those that it matches too.
        """
        pattern = border.pattern_of(model)
        selector = labels.parse(label)
        signed = people.signature(by, comment or None)
        if not 0 < border.number("duration_s", duration_s) <= _LONGEST_SILENCE_S:
            raise ValueError(f"duration_s must be above 0 and at most ten years, got {duration_s}")
        once = uuid.uuid4().hex if key is None else border.text("key", key)

        def put(state: RetrainingState, now: Instant) -> str:
            said = signed.comment or ""
            return state.silence(pattern, float(duration_s), said, once, now, selector=selector, by=signed.by)

        async def act() -> SilenceMade:
            id_ = await self._in_store(put)
            made: SilenceMade = {"status": "recorded", "silence": id_}
            if not await self._is_known(pattern, selector):
                named = f"{pattern!r} with {selector}" if selector else repr(pattern)
                made["warning"] = f"no model that has ever logged matches {named}"
            return made

        return await self._or_unavailable(act())

    async def unsilence(self, *, silence: str) -> Recorded | Unavailable:
        """End a silence. KeyError: no such silence."""
        return await self._recorded(lambda state, now: state.unsilence(silence, now))

    # --- the process

    async def hello(self) -> Hello:
        """Say who this is; answered while commits and handlers are under way."""
        self._start_loop()
        return actor.hello(self._name, epoch=self._keeper.epoch, boot=self._clock.now().boot_id, store=self._keeper.store)

    async def reload(self) -> Reloaded | Unavailable:
        """Read the configuration again; a pending order goes to the handler that it names now."""

        async def act() -> Reloaded:
            await self._in_store(self._keeper.reload)
            self._wake()
            return {"status": "reloaded"}

        return await self._or_unavailable(act())

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
            exported = deployment.exporter()(lambda: StoreReader(self._storage), self._clock, build=build.BUILD)
            self._export_task = loop.create_task(exported)

    def _watched(self) -> dict[str, int | None]:
        """Return every other actor of the system, with its slot; called in a thread."""
        core: dict[str, int | None] = dict.fromkeys(name for name in deployment.CORE if name != self._name)
        return core | self._keeper.processes()

    def _end_stale(self, error: object) -> None:
        deployment.end_stale_process(error)

    # --- between the methods and the state

    async def _in_store(self, act: Callable[[RetrainingState, Instant], T], /) -> T:
        self._start_loop()
        return await self._keeper(act)

    async def _recorded(self, act: Callable[[RetrainingState, Instant], None]) -> Recorded | Unavailable:
        async def acted() -> Recorded:
            await self._in_store(act)
            self._wake()
            return {"status": "recorded"}

        return await self._or_unavailable(acted())

    async def _asked(self, asked: Asked) -> Admission:
        answered = await self._asking.ask(asked)
        if answered.handed is not None:
            self._launcher.wake()  # its lease is to be looked after
        elif answered.admission.decision != "skipped":
            self._wake()
        return answered.admission

    async def _then_wake(self, act: Callable[[RetrainingState, Instant], Admission]) -> Admission:
        admission = await self._in_store(act)
        if admission.decision != "skipped":
            self._wake()
        return admission

    async def _admitted(self, act: Callable[[], Coroutine[Any, Any, Admission]], what: str) -> Admitted:
        admission = await act()
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

    async def _is_known(self, pattern: str, selector: Selector = ALL) -> bool:
        def known(state: RetrainingState, _now: Instant) -> bool:
            def matches(model: str) -> bool:
                return gate.matches(pattern, model) and (not selector or selector.matches(state.commits.plan_of(model).labels))

            return self._keeper.knows(matches)

        return await self._in_store(known)

    async def _parameters_in_force(self, model: str, names: Collection[str]) -> Mapping[str, Any] | None:
        return await self._in_store(lambda state, _now: state.record.parameters_in_force(model, names))

    def _wake(self) -> None:
        self._launcher.wake()
        self._channel.offer()


def _ending_recorded(said: Said) -> EndingRecorded:
    return {"status": said.status, "reason": said.reason}

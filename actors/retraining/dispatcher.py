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
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np

from actors import checks
from actors.clock import Clock, Instant, SystemClock
from actors.cluster import actor, build, deployment, watchdog
from actors.cluster.notices import Notices
from actors.cluster.peers import Peers, RayPeers
from actors.labels import ALL, Selector
from actors.plain import Json
from actors.replies import (
    Admitted,
    EndingRecorded,
    Hello,
    Reloaded,
    Renewed,
    Taken,
    Unavailable,
)
from actors.retraining import arguments, handlers
from actors.retraining.admissions import Admission, Asked
from actors.retraining.channel import ChannelRetrainHandler
from actors.retraining.detector_calls import DetectorCalls
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.launcher import Launcher, MakeHandler
from actors.retraining.leases import Said
from actors.retraining.people_calls import PeopleCalls
from actors.retraining.questions import Questions
from actors.retraining.request_groups import RequestGroups
from actors.retraining.rules import gate, orders
from actors.retraining.rules.circuit import MAX_AT_ONCE
from actors.retraining.state import RetrainingState
from actors.retraining.state_thread import StateThread
from actors.storage import StoreReader

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LONGEST_TAKE_S: Final = 300.0


class RetrainDispatcher(Questions, PeopleCalls, DetectorCalls):
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
        slot: int | None = None,  # every actor is made alike
        clock: Clock | None = None,
        peers: Peers | None = None,
        environment: Mapping[str, str] | None = None,
        make_handler: MakeHandler = handlers.create,
        seed: int | None = None,
    ) -> None:
        super().__init__(clock or SystemClock())
        self._name = name
        self._namespace = namespace
        self._storage = storage
        peers_of_all = peers or RayPeers(namespace)
        self._notices = Notices(peers_of_all, lambda: self._thread.store, self._clock)
        rng = np.random.default_rng(seed)
        self._thread = StateThread(storage, self._clock, rng, self._end_stale, self._notices.happened)
        surroundings = Surroundings(
            namespace,
            peers_of_all,
            os.environ if environment is None else environment,
            # Apart from the default executor, which a handful of hanging receivers would fill.
            ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="dispatcher-handler"),
            self._parameters_in_force,
        )
        self._channel = ChannelRetrainHandler(self._in_store)
        self._launcher = Launcher(
            self._in_store, surroundings, make_handler, self._clock, offer=self._channel.offer, thread=self._thread
        )
        self._groups = RequestGroups(self._in_store, self._channel)
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
        explanation: Json,
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
        asked = arguments.request_of(
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
        once = asked.episode if key is None else checks.text("key", key)
        if not once:
            raise ValueError(f"key must be given for cause {cause!r}, got None")
        return await self._or_unavailable(self._admitted(lambda: self._asked(Asked(asked, once)), model))

    # --- the channel

    async def take(self, *, consumer: str, model: str | None = None, timeout_s: float = 20.0) -> Taken | Unavailable:
        """Wait up to `timeout_s` for an order of the channel (of `model`, or of any).

        The consumer renews within `lease_s` for as long as it works on the order. Status "unavailable" also where too many
        consumers wait already.
        """
        checks.text("consumer", consumer)
        if model is not None:
            checks.text("model", model)
        wait_s = arguments.within("timeout_s", timeout_s, 0, _LONGEST_TAKE_S)
        return await self._or_unavailable(self._channel.take(consumer=consumer, model=model, timeout_s=wait_s))

    async def renew(self, *, order: str, token: int) -> Renewed | Unavailable:
        """Keep an order; "lost" where the token is not the newest any more, or the order has ended."""
        return await self._or_unavailable(self._channel.renew(order=order, token=token))

    async def release(self, *, order: str, token: int, reason: str) -> EndingRecorded | Unavailable:
        """Hand an order back that this consumer cannot carry out; after a pause it goes to the next one. KeyError."""
        why = checks.text("reason", reason, 1000)

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
        ending = arguments.ending_of(
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

    # --- the process

    async def hello(self) -> Hello:
        """Say who this is; answered while commits and handlers are under way."""
        self._start_loop()
        return actor.hello(self._name, epoch=self._thread.epoch, boot=self._clock.now().boot_id, store=self._thread.store)

    async def reload(self) -> Reloaded | Unavailable:
        """Read the configuration again; a pending order goes to the handler that it names now."""

        async def act() -> Reloaded:
            await self._in_store(self._thread.reload)
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
            self._notices.begin()
            watched = watchdog.watch(
                self._watched,
                namespace=self._namespace,
                storage=self._storage,
                now_s=lambda: self._clock.now().boot_s,
                tell=self._notices.actor_down,
            )
            self._watch_task = loop.create_task(watched)
            exported = deployment.exporter()(
                lambda: StoreReader(self._storage), self._clock, build=build.BUILD, tell=self._notices.store_trouble
            )
            self._export_task = loop.create_task(exported)

    def _watched(self) -> dict[str, int | None]:
        """Return every other actor of the system, with its slot; called in a thread."""
        core: dict[str, int | None] = dict.fromkeys(name for name in self._thread.needed() if name != self._name)
        return core | self._thread.processes()

    def _end_stale(self, error: object) -> None:
        deployment.end_stale_process(error)

    # --- between the methods and the state

    async def _in_store(self, act: Callable[[RetrainingState, Instant], T], /) -> T:
        self._start_loop()
        return await self._thread(act)

    async def _asked(self, asked: Asked) -> Admission:
        answered = await self._groups.ask(asked)
        if answered.handed is not None:
            self._launcher.wake()  # its lease is to be looked after
        elif answered.admission.decision != "skipped":
            self._wake()
        return answered.admission

    async def _is_known(self, pattern: str, selector: Selector = ALL) -> bool:
        def known(state: RetrainingState, _now: Instant) -> bool:
            def matches(model: str) -> bool:
                return gate.matches(pattern, model) and (not selector or selector.matches(state.commits.plan_of(model).labels))

            return self._thread.knows(matches)

        return await self._in_store(known)

    async def _parameters_in_force(self, model: str, names: Collection[str]) -> Mapping[str, Any] | None:
        return await self._in_store(lambda state, _now: state.queries.parameters_in_force(model, names))

    def _wake(self) -> None:
        self._launcher.wake()
        self._channel.offer()


def _ending_recorded(said: Said) -> EndingRecorded:
    return {"status": said.status, "reason": said.reason}

"""Carries out the orders that the dispatcher launches itself: round by round, each attempt on record before it begins."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from actors import failpoints
from actors.checks import brief
from actors.clock import Clock, Instant
from actors.cluster.peers import PeerUnavailableError
from actors.config import HandlerSettings
from actors.retraining import handlers
from actors.retraining.calls import STORE_RETRY_S
from actors.retraining.channel import InStore
from actors.retraining.handlers.interface import Handler, Surroundings
from actors.retraining.rows import receiver_of
from actors.retraining.rules import orders
from actors.retraining.rules.circuit import MAX_AT_ONCE, Circuits
from actors.retraining.rules.delivery import Launched, Outcome, Retry
from actors.retraining.rules.orders import Order
from actors.retraining.state import RetrainingState
from actors.retraining.state_thread import StateThread
from actors.storage import UNAVAILABLE, SchemaError, StoreError

logger = logging.getLogger(__name__)

# How often the loop checks the orders if nobody wakes it: for expired leases, ended pauses, jobs to follow.
_ROUND_S: Final = 1.0
# The next query of a running order comes after this share of its time so far: soon for short work, seldom for long training.
_FOLLOW_SHARE: Final = 0.05
_LONGEST_FOLLOW_S: Final = 15.0
# A countdown loses at most this much progress in a reboot, for one small commit each time.
_HOUSEKEEPING_S: Final = 30.0
# A promise that could not be passed on is tried again after this time.
_PROMISE_RETRY_S: Final = 5.0
_CALL_S: Final = 10.0

MakeHandler = Callable[[HandlerSettings, Surroundings], Handler]


class Found(NamedTuple):
    """What one round has to do."""

    came_back: list[Order]  # orders of the channel whose lease ran out
    timed_out: list[Order]  # orders of the channel that their consumer has had for too long
    running: list[Order]
    due: list[Order]
    promises: list[tuple[Order, str]]
    idle: bool  # no order is active, and there is nothing to pass on


class Launcher:
    """Launches what is due, follows what runs, and records what came of it; loses no outcome while the process lives."""

    def __init__(
        self,
        in_store: InStore,
        surroundings: Surroundings,
        make_handler: MakeHandler,
        clock: Clock,
        *,
        offer: Callable[[], None],
        thread: StateThread,
    ) -> None:
        self._in_store = in_store
        self._surroundings = surroundings
        self._make_handler = make_handler
        self._clock = clock
        self._offer = offer
        self._thread = thread
        self._nudge = asyncio.Event()
        self._idle = False
        self._circuits = Circuits()
        self._at: Counter[str] = Counter()  # attempts under way, by receiver
        self._promise_at = 0.0
        self.attempts: dict[str, asyncio.Task[None]] = {}
        self.follow_at: dict[str, float] = {}

    def wake(self) -> None:
        """Begin the next round now."""
        self._nudge.set()

    async def run(self) -> None:
        """Carry the orders out, round by round, until cancelled."""
        housekeeping_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            nudged = self._nudge.is_set()
            self._nudge.clear()
            try:
                if self._idle and not nudged:
                    self._thread.rest()
                else:
                    await self.round()
                if loop.time() >= housekeeping_at:
                    housekeeping_at = loop.time() + _HOUSEKEEPING_S
                    await self._keep_house()
            except (*UNAVAILABLE, StoreError, SchemaError) as error:
                logger.warning("the store is unavailable, trying again in %.0f s: %s", STORE_RETRY_S, brief(error))
                await asyncio.sleep(STORE_RETRY_S)
                continue
            except Exception:
                logger.exception("a round of deliveries failed; the next one is in %.0f s", _ROUND_S)
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it can swallow the cancellation of this loop.
                async with asyncio.timeout(_ROUND_S):
                    await self._nudge.wait()

    async def round(self) -> None:
        """Recover lost attempts, end orders that ran too long, start due orders, follow running ones."""
        found = await self._in_store(_look)
        self._idle = found.idle
        for order in found.came_back:
            logger.warning("order %s of %s was given back: %s", order.id, order.model, order.reason)
        for order in found.timed_out:
            logger.warning("order %s of %s: %s", order.id, order.model, order.reason)
        if found.came_back or found.timed_out:
            self._offer()
        loop_s = asyncio.get_running_loop().time()
        for order in found.running:
            if loop_s >= self.follow_at.get(order.id, 0.0):
                ran_s = self._clock.now().wall_s - (order.dispatched_at or 0.0)
                self.follow_at[order.id] = loop_s + min(max(ran_s * _FOLLOW_SHARE, _ROUND_S), _LONGEST_FOLLOW_S)
                self._begin(order, self._follow(order))
        self.follow_at = {order.id: self.follow_at[order.id] for order in found.running}
        for order in found.due:
            if order.id in self.attempts or len(self.attempts) >= MAX_AT_ONCE:
                continue
            receiver = receiver_of(order)
            if self._circuits.allows(receiver, self._at[receiver], loop_s):
                self._begin(order, self._attempt(order), receiver)
        if found.promises and loop_s >= self._promise_at:
            self._promise_at = loop_s + _PROMISE_RETRY_S
            await self._pass_on(found.promises)

    async def _keep_house(self) -> None:
        await self._in_store(self._thread.keep_house)
        while await self._in_store(lambda state, _now: state.give_back()):
            pass
        if not self._thread.ages():
            return
        while aged := await self._in_store(lambda state, now: state.age_all(now)):
            for deployed, admission in aged:
                about = f"version {deployed.version} of {deployed.model} has come of age"
                became = f"order {admission.order}" if admission.order else f"skipped: {admission.reason}"
                logger.warning("%s: %s", about, became)
            self.wake()
            self._offer()

    def _begin(self, order: Order, work: Coroutine[Any, Any, None], receiver: str | None = None) -> None:
        if order.id in self.attempts:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self.attempts[order.id] = task
        if receiver is not None:
            self._at[receiver] += 1
        task.add_done_callback(lambda done: self._ended(order.id, receiver, done))

    def _ended(self, id_: str, receiver: str | None, task: asyncio.Task[None]) -> None:
        del self.attempts[id_]
        if receiver is not None:
            self._at[receiver] -= 1
            if not self._at[receiver]:
                del self._at[receiver]
            self.wake()  # this receiver has a free slot, and so has the limit
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("order %s: the attempt was interrupted; looking for its outcome", id_, exc_info=error)

    async def _attempt(self, order: Order) -> None:
        def begin(state: RetrainingState, now: Instant) -> Order | None:
            failpoints.reach("dispatcher.before_attempt")
            begun = state.begin(order.id, now, promotion=order.is_promotion)
            failpoints.reach("dispatcher.after_attempt")
            return begun

        begun = await self._in_store(begin)
        if begun is None:
            return
        failpoints.reach("dispatcher.before_effect")
        try:
            outcome: Outcome = await self._handler(begun).launch(begun)
        except Exception as error:  # noqa: BLE001  whatever a handler raises is the reason of a failed attempt
            outcome = Retry(_named(error))
        failpoints.reach("dispatcher.after_effect")
        self._heard(receiver_of(begun), outcome)
        await self._settle(begun, outcome)

    def _heard(self, receiver: str, outcome: Outcome) -> None:
        if not (isinstance(outcome, Retry) and outcome.silent):
            self._circuits.heard(receiver)
        elif self._circuits.silent(receiver, asyncio.get_running_loop().time()):
            logger.warning("%s does not answer: its orders wait and try it one at a time", receiver)

    async def _follow(self, order: Order) -> None:
        overdue = await self._in_store(lambda state, now: state.overdue(order, now))
        try:
            if overdue is not None:
                if not await self._handler(order).stop(order):
                    logger.warning("order %s has run for too long and is being stopped", order.id)
                    return
                outcome: Outcome = overdue
            else:
                outcome = await self._handler(order).follow(order)
        except Exception as error:  # noqa: BLE001  the attempt may go on all the same: a second one must not begin now
            unknown = handlers.without_secrets(Retry(_named(error)), order, self._environment)
            logger.warning("order %s: its state is unknown, retrying: %s", order.id, unknown)
            return
        if not (isinstance(outcome, Launched) and orders.going_on(order, outcome) == order):
            await self._settle(order, outcome)

    def _handler(self, order: Order) -> Handler:
        return self._make_handler(handlers.settings_of(order), self._surroundings)

    @property
    def _environment(self) -> Mapping[str, str]:
        return self._surroundings.environment

    async def _settle(self, order: Order, outcome: Outcome) -> None:
        """Record an outcome, for as long as the store is unavailable: only this process knows it."""
        outcome = handlers.without_secrets(outcome, order, self._environment)

        def act(state: RetrainingState, now: Instant) -> Order | None:
            failpoints.reach("dispatcher.before_done")
            after = state.settle(order.id, order.attempts, outcome, now, promotion=order.is_promotion)
            failpoints.reach("dispatcher.after_done")
            return after

        after = await self._until_stored(act, order)
        if not isinstance(outcome, Launched):
            await self._forget(order)
        if after is not None:
            logger.info("order %s of %s, attempt %d: %s %s", after.id, after.model, after.attempts, after.state, after.reason)
            self.wake()
            self._offer()

    async def _until_stored(self, act: Callable[[RetrainingState, Instant], Order | None], order: Order) -> Order | None:
        while True:
            try:
                return await self._in_store(act)
            except UNAVAILABLE as error:
                logger.warning("order %s: outcome not recorded yet: %s", order.id, brief(error))
                await asyncio.sleep(STORE_RETRY_S)

    async def _forget(self, order: Order) -> None:
        try:
            await self._handler(order).forget(order)
        except Exception as error:  # noqa: BLE001  a failed cleanup leaves garbage and affects no order
            logger.info("order %s: not cleaned up: %s", order.id, error)

    async def _pass_on(self, promises: list[tuple[Order, str]]) -> None:
        """Pass the promises of new versions to their detectors; unacknowledged ones stay recorded and are sent again."""
        for order, metric in promises:
            promise = order.promise
            if promise is None or order.new_version is None:
                continue
            try:
                reply = await self._surroundings.peers.call(
                    "broadcaster",
                    "promise",
                    timeout_s=_CALL_S,
                    model=order.model,
                    version=order.new_version,
                    values={metric: promise.value},
                    n=promise.n,
                    source=promise.source,
                )
            except PeerUnavailableError as error:
                logger.info("the promise of order %s will be passed on later: %s", order.id, error)
                continue
            except ValueError as error:
                logger.warning("the promise of order %s is refused and not used: %s", order.id, error)
                reply = {"status": "recorded"}
            except Exception:
                logger.exception("the promise of order %s could not be passed on; retrying", order.id)
                continue
            if reply.get("status") == "recorded":
                await self._in_store(_passed_on(order.id))
                self.wake()


def _look(state: RetrainingState, now: Instant) -> Found:
    came_back, timed_out = state.leases.lapse(now), state.leases.overdue(now)
    promises, (promoting, to_promote) = state.promises_due(), state.promotions_under_way(now)
    idle = not (promises or promoting or to_promote or state.queries.any_active() or state.queries.waits_to_promote())
    # Promotions first: they are short, and a version that has won should not wait for retrains.
    running, due = promoting + state.queries.running(), to_promote + state.due(now)
    return Found(came_back, timed_out, running, due, promises, idle)


def _passed_on(id_: str) -> Callable[[RetrainingState, Instant], None]:
    return lambda state, _now: state.promise_passed_on(id_)


def _named(error: Exception) -> str:
    """Return kind and text of a handler's error."""
    return f"{type(error).__name__}: {error}"

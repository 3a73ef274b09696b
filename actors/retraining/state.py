"""The dispatcher's book: every decision about retrain orders, one fenced transaction each.

The rules are in `actors.retraining`; here they meet the store. Methods are called from one thread, take the instant they
happen at, and return values; StaleEpochError and the database's errors pass through, and then nothing has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from actors.clock import EVENT_TIME, EventClock, Instant
from actors.retraining import tables
from actors.retraining.rules import gate, lease, orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Jitter, Launched, Outcome, Retry
from actors.retraining.rules.gate import AlreadyActive, CoolingDown, Dispatch, DryRun, Silence, Silenced
from actors.retraining.rules.lease import LeaseTerms
from actors.retraining.rules.orders import Order, Request
from actors.storage import Fence

CHANNEL: Final = tables.CHANNEL
# Several rounds of the dispatcher: a longer pause between them is an outage.
_SERVED_S: Final = 5.0
# Attempts that are begun in one round; more wait for the next.
_MOST_DUE: Final = 256
# Where a lease is longer than this, the first one is not: see LeaseTerms.
_FIRST_LEASE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration says about retraining one model. `handler_settings` is what the handler is made from."""

    cooldown_s: float
    dry_run: bool
    handler: str
    handler_settings: Mapping[str, object]
    lease_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a request: `decision` is dispatched, pending or skipped."""

    decision: str
    order: str | None
    reason: str
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """An order in a consumer's hands, and the seconds until its first renewal is due."""

    order: Order
    lease_s: float


class OrderBook:
    """Orders, cooldowns, silences and leases of one system, kept in the store."""

    def __init__(
        self, fence: Fence, store_id: str, *, plan_of: Callable[[str], Plan], backoff: Backoff, jitter: Jitter
    ) -> None:
        self._fence = fence
        self._store_id = store_id
        self.plan_of = plan_of
        self.backoff = backoff
        self._jitter = jitter
        self._swept: Instant | None = None  # when leases were last looked through
        self.events: EventClock | None = None  # what cooldowns and silences run on, in place of the wall's clock

    # --- from a request to an order

    def start(self, now: Instant) -> None:
        """Take over from a predecessor: countdowns of another boot carry on under this one."""
        with self._fence.write() as connection:
            if self.events is not None:  # as far as it had come: an arming from now on must not lie in the past
                for cooldown in tables.read_cooldowns(connection).values():
                    if cooldown.countdown.since.boot_id == EVENT_TIME:
                        self.events.advance_to(cooldown.countdown.since.wall_s)
            tables.rebase_countdowns(connection, now, self._pace(now))
            tables.put_sighting(connection, now)
            for order in tables.running_orders(connection, channel=True):
                # Nobody knows how long renewals went unheard: consumers that live get a whole lease to be heard again.
                terms = _terms(self.plan_of(order.model))
                tables.put(connection, replace(order, wait=Countdown(now, terms.renewed_s)))
        self._swept = now

    def request(self, asked: Request, now: Instant) -> Admission:
        """Answer an episode's request; the same order for the same episode, however often it asks."""
        return self.request_for(asked, None, now)[0]

    def request_for(self, asked: Request, consumer: str | None, now: Instant) -> tuple[Admission, Handed | None]:
        """Answer a request, and hand a new order of the channel to a consumer who waits for it, all in one commit."""
        id_ = orders.order_id(self._store_id, asked.episode)
        with self._fence.write() as connection:
            admission = self._admit(connection, id_, asked, asked.episode, now, reason="", manual=False)
            handed = None
            if consumer is not None and admission.decision == "dispatched":
                offered = self._offered(connection, asked.model, now)
                handed = self._hand_over(connection, offered[0], consumer, now) if offered else None
            return admission, handed

    def trigger(self, asked: Request, key: str, now: Instant, *, reason: str) -> Admission:
        """Answer a person's request, who passes cooldown and silence; the same order for the same `key`."""
        id_ = orders.order_id(self._store_id, f"manual\0{key}")
        with self._fence.write() as connection:
            return self._admit(connection, id_, asked, key, now, reason=reason, manual=True)

    def _admit(
        self, connection: Connection, id_: str, asked: Request, asker: str, now: Instant, *, reason: str, manual: bool
    ) -> Admission:
        known = tables.read_order(connection, id_)
        if known is not None:
            return _known(known)
        plan = self.plan_of(asked.model)
        active = tables.active_order(connection, asked.model)
        decision = gate.admit(
            asked.model,
            now=self._pace(now),
            active=None if active is None else active.id,
            cooldown=tables.read_cooldown(connection, asked.model),
            silences=[silence for silence, _created_at in tables.read_silences(connection)],
            manual=manual,
            dry_run=plan.dry_run,
        )
        order = Order(id_, asked, orders.PENDING, reason, plan.handler, plan.handler_settings, now.wall_s, manual=manual)
        match decision:
            case Dispatch(passed=passed):
                order = replace(order, reason=_with_passed(reason, passed))
                if plan.handler == CHANNEL:
                    order = replace(order, dispatched_at=now.wall_s)  # to stand in the channel is to be handed over
                tables.put_new(connection, order)
                self._arm(connection, order, plan, now)
                return _known(order)
            case DryRun(passed=passed):
                why = _with_passed(reason or f"dry run: would have been launched by {plan.handler}", passed)
                tables.put_new(connection, replace(order, state=orders.DRY_RUN, reason=why, finished_at=now.wall_s))
                # The cooldown is armed as if it had been launched, so that the record is what would have happened.
                self._arm(connection, order, plan, now)
                return Admission("skipped", id_, why)
            case CoolingDown(order=last, retry_in_s=retry_in_s):
                why = f"cooling down after {last}, {retry_in_s:.0f} s left"
                skipped = orders.skip_id(self._store_id, asker, f"cooldown {last}")
                return self._skip(connection, order, id_=skipped, reason=why, retry_in_s=retry_in_s, now=now)
            case Silenced(silence=silence, comment=comment, retry_in_s=retry_in_s):
                why = f"silenced by {silence}" + (f": {comment}" if comment else "")
                skipped = orders.skip_id(self._store_id, asker, f"silence {silence}")
                return self._skip(connection, order, id_=skipped, reason=why, retry_in_s=retry_in_s, now=now)
            case AlreadyActive(order=other, retry_in_s=retry_in_s):
                why = f"order {other} of this model is not finished"
                skipped = orders.skip_id(self._store_id, asker, f"active {other}")
                return self._skip(connection, order, id_=skipped, reason=why, retry_in_s=retry_in_s, now=now)

    def _skip(
        self, connection: Connection, order: Order, *, id_: str, reason: str, retry_in_s: float, now: Instant
    ) -> Admission:
        tables.put_new(connection, replace(order, id=id_, state=orders.SKIPPED, reason=reason, finished_at=now.wall_s))
        return Admission("skipped", None, reason, retry_in_s)

    # --- delivery by the dispatcher

    def due(self, now: Instant) -> list[Order]:
        """Give the pending orders that a handler other than the channel should launch now."""
        with self._fence.part.read() as connection:
            return tables.due_orders(connection, now, channel=False, limit=_MOST_DUE)

    def running(self) -> list[Order]:
        """Give the orders that a handler other than the channel has begun to launch."""
        with self._fence.part.read() as connection:
            return tables.running_orders(connection, channel=False)

    def begin(self, id_: str, now: Instant) -> Order | None:
        """Put the next attempt on record, before anything is launched; None where the order is not due any more."""
        with self._fence.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or order.handler == CHANNEL or not order.is_due(now):
                return None
            # Each attempt is a launch of its own: the cooldown counts from the last one that may have had an effect.
            begun = replace(orders.begun(order, now), launched=False)
            tables.put(connection, begun)
            tables.put_attempt(connection, begun, now)
            return begun

    def settle(self, id_: str, attempt: int, outcome: Outcome, now: Instant) -> Order | None:
        """Record what came of an attempt, and re-arm the cooldown after the effect; None where it is not the present one."""
        with self._fence.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or order.state != orders.RUNNING or order.attempts != attempt:
                return None
            return self._settle(connection, order, outcome, now)

    def _settle(self, connection: Connection, order: Order, outcome: Outcome, now: Instant) -> Order:
        after = orders.settled(order, outcome, now, self.backoff, self._jitter)
        if not order.launched:
            # Time has passed since the claim armed it, and an attempt that failed may have launched something after all.
            self._arm(connection, order, self.plan_of(order.model), now)
        tables.put(connection, after)
        if not isinstance(outcome, Launched):
            tables.end_attempt(connection, after, type(outcome).__name__.lower(), getattr(outcome, "reason", ""), now)
        return after

    def reassign(self) -> None:
        """Give every pending order the handler that the configuration names now."""
        with self._fence.write() as connection:
            for order in tables.active_orders(connection):
                plan = self.plan_of(order.model)
                waits = order.state == orders.PENDING and order.tuning is None
                if waits and (plan.handler, plan.handler_settings) != (order.handler, order.handler_settings):
                    tables.put(
                        connection, replace(order, handler=plan.handler, handler_settings=plan.handler_settings, wait=None)
                    )

    # --- the channel

    def take(self, consumer: str, model: str | None, now: Instant) -> Handed | None:
        """Hand the oldest order of the channel to `consumer`; None where there is none."""
        with self._fence.part.read() as connection:
            if not self._offered(connection, model, now):
                return None
        with self._fence.write() as connection:
            offered = self._offered(connection, model, now)
            return self._hand_over(connection, offered[0], consumer, now) if offered else None

    def _hand_over(self, connection: Connection, order: Order, consumer: str, now: Instant) -> Handed:
        plan = self.plan_of(order.model)
        terms = _terms(plan)
        taken = replace(lease.handed_over(order, consumer, now, terms), launched=True)
        if not order.launched:
            self._arm(connection, order, plan, now)
        tables.put(connection, taken)
        tables.put_attempt(connection, taken, now)
        return Handed(taken, terms.first_s)

    def _offered(self, connection: Connection, model: str | None, now: Instant) -> list[Order]:
        return tables.due_orders(connection, now, channel=True, model=model, limit=1)

    def renew(self, id_: str, token: int, now: Instant) -> float | None:
        """Renew a lease; give its seconds, or None where the token is not the newest, or the order has ended."""
        with self._fence.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or not lease.holds(order, token):
                return None
            terms = _terms(self.plan_of(order.model))
            # A lease that ran out and was not handed on is taken up again: nobody else has the order.
            tables.put(
                connection,
                replace(order, state=orders.RUNNING, wait=Countdown(now, terms.renewed_s)),
            )
            return terms.renewed_s

    def finish(self, id_: str, token: int | None, outcome: Outcome, now: Instant) -> tuple[str, str]:
        """Record a consumer's word (or, without a token, a person's); give a status and why.

        "recorded" also for a word that is on record already; "stale" where the order has been handed to somebody else or
        has ended otherwise. KeyError for an unknown order.
        """
        with self._fence.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None:
                raise KeyError(f"order must be the id of a known retrain order, got {id_!r}")
            new_version = getattr(outcome, "new_version", None)
            if not order.is_active:
                if order.state != type(outcome).__name__.lower() or (token is not None and token != order.attempts):
                    return "stale", f"the order is {order.state} already"
                if new_version and order.new_version is None:
                    tables.put(connection, replace(order, new_version=new_version))
                return "recorded", f"the order was {order.state} already"
            if token is not None and not lease.holds(order, token):
                return "stale", f"attempt {order.attempts} has been handed to another consumer"
            self._settle(connection, order, outcome, now)
            return "recorded", ""

    def lapse(self, now: Instant) -> list[Order]:
        """Take back every order of the channel whose lease has run out; to be called every second or so.

        Where it was not, renewals could not be heard either (a frozen process, a store that was away), and the leases are
        longer by that time.
        """
        unserved_s = now.boot_s - self._swept.boot_s if self._swept is not None else 0.0
        with self._fence.part.read() as connection:
            held = tables.running_orders(connection, channel=True)
        changed: list[Order] = []
        if held and unserved_s > _SERVED_S:
            changed = [lease.prolonged(order, unserved_s) for order in held]
        elif any(order.wait is not None and order.wait.is_over(now) for order in held):
            changed = [after for order in held if (after := lease.lapsed(order, now, self.backoff, self._jitter)) is not None]
        if changed:
            # Between the read and here nothing can have changed: all that writes goes through the one thread that is here.
            with self._fence.write() as connection:
                for order in changed:
                    tables.put(connection, order)
                    if order.state != orders.RUNNING:
                        tables.end_attempt(connection, order, Retry.__name__.lower(), order.reason, now)
        self._swept = now
        return [order for order in changed if order.state != orders.RUNNING]

    # --- what else changes an order

    def overtaken(self, model: str, version: str, now: Instant, over: Sequence[str] | None = None) -> Order | None:
        """Note a new version of a model, which came after `over`; give the order that expired by it, if one did."""
        with self._fence.write() as connection:
            order = tables.active_order(connection, model)
            if order is None:
                return None
            after = orders.overtaken(order, version, now, over)
            if after != order:
                tables.put(connection, after)
            return after if after.state == orders.EXPIRED else None

    def retry(self, id_: str, now: Instant) -> Admission:
        """Put a failed, dead or expired order back, at a person's word. KeyError, ValueError for any other."""
        with self._fence.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None:
                raise KeyError(f"order must be the id of a known retrain order, got {id_!r}")
            if order.is_active:
                return Admission("pending", id_, f"the order is {order.state} already")
            again = orders.put_back(order, f"put back by hand; it was {order.state}: {order.reason}")
            active = tables.active_order(connection, order.model)
            if active is not None:
                return Admission("skipped", None, f"order {active.id} of this model is not finished", gate.ASK_AGAIN_S)
            plan = self.plan_of(order.model)
            if order.tuning is None:
                again = replace(again, handler=plan.handler, handler_settings=plan.handler_settings)
            tables.put(connection, again)
            self._arm(connection, again, plan, now)
            return _known(again)

    # --- silences

    def silence(self, pattern: str, duration_s: float, comment: str, key: str, now: Instant) -> str:
        """Silence the models that `pattern` matches; the same silence for the same `key`."""
        id_ = f"{self._store_id}-q-{uuid.uuid5(uuid.NAMESPACE_OID, key).hex[:16]}"
        with self._fence.write() as connection:
            tables.put_silence(connection, Silence(id_, pattern, Countdown(self._pace(now), duration_s), comment), now)
        return id_

    def unsilence(self, id_: str, now: Instant) -> None:
        """End a silence. KeyError where there is none of that id."""
        with self._fence.write() as connection:
            if not tables.expire_silence(connection, id_, now):
                raise KeyError(f"silence must be the id of a known silence, got {id_!r}")

    def silences(self, now: Instant) -> list[dict[str, Any]]:
        """Give the silences in force, as plain rows."""
        with self._fence.part.read() as connection:
            return [
                {
                    "id": silence.id,
                    "model": silence.pattern,
                    "comment": silence.comment,
                    "created_at": created_at,
                    "remaining_s": silence.countdown.remaining_s(self._pace(now)),
                }
                for silence, created_at in tables.read_silences(connection)
                if not silence.countdown.is_over(self._pace(now))
            ]

    # --- questions

    def history(self, model: str | None, limit: int, state: str | None) -> list[Order]:
        """Give the newest `limit` orders and decisions, oldest first."""
        with self._fence.part.read() as connection:
            return tables.read_history(connection, model=model, limit=limit, state=state)

    def order(self, id_: str) -> tuple[Order, list[dict[str, Any]]]:
        """Give an order and its attempts. KeyError."""
        with self._fence.part.read() as connection:
            order = tables.read_order(connection, id_)
            if order is None:
                raise KeyError(f"order must be the id of a known retrain order, got {id_!r}")
            return order, tables.read_attempts(connection, id_)

    def of_episodes(self, episodes: Sequence[str]) -> dict[str, Order]:
        """Give the order of each episode that has one."""
        ids = {orders.order_id(self._store_id, episode): episode for episode in episodes}
        with self._fence.part.read() as connection:
            return {ids[id_]: order for id_, order in tables.read_orders(connection, ids).items()}

    def cooldowns(self, now: Instant) -> dict[str, float]:
        """Give the seconds that are left of every cooldown in force, by model."""
        with self._fence.part.read() as connection:
            found = tables.read_cooldowns(connection)
        return {
            model: cooldown.countdown.remaining_s(self._pace(now))
            for model, cooldown in found.items()
            if not cooldown.countdown.is_over(self._pace(now))
        }

    def keep_house(self, now: Instant, *, keep_rows: int, keep_s: float) -> None:
        """Put this instant on record, and delete what is too old or too much."""
        with self._fence.write() as connection:
            tables.put_sighting(connection, now)
            tables.prune(connection, keep_rows=keep_rows, older_than_s=now.wall_s - keep_s)
            tables.prune_silences(connection, self._pace(now), older_than_s=now.wall_s - keep_s)

    def _arm(self, connection: Connection, order: Order, plan: Plan, now: Instant) -> None:
        tables.put_cooldown(connection, order.model, order.id, Countdown(self._pace(now), plan.cooldown_s))

    def _pace(self, now: Instant) -> Instant:
        """Give the moment by the clock that cooldowns and silences run on."""
        return now if self.events is None else self.events.now()


def _known(order: Order) -> Admission:
    if order.state == orders.DRY_RUN:
        return Admission("skipped", order.id, order.reason)
    return Admission("pending" if order.dispatched_at is None else "dispatched", order.id, order.reason)


def _with_passed(reason: str, passed: tuple[str, ...]) -> str:
    if not passed:
        return reason
    return f"{reason} (passes {' and '.join(passed)})".strip()


def _terms(plan: Plan) -> LeaseTerms:
    return LeaseTerms(first_s=min(_FIRST_LEASE_S, plan.lease_s), renewed_s=plan.lease_s)

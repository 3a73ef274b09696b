"""From requests to orders: which of them becomes one now, and what is on record about the others.

Requests that wait together are answered in one commit, so that an fsync serves hundreds of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from sqlalchemy import Connection

from actors.clock import Instant
from actors.people import NOBODY, Signature
from actors.retraining import model_tables, tables
from actors.retraining.commits import Commits, Handed, Plan
from actors.retraining.model_tables import Deployed
from actors.retraining.rules import gate, orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.gate import AlreadyActive, Cooldown, CoolingDown, Dispatch, DryRun, GivenUp, Silence, Silenced
from actors.retraining.rules.orders import Order, Request


class Admission(NamedTuple):
    """What became of a request. A skipped one may ask again after `retry_in_s`; None: there is nothing to ask again for."""

    decision: Literal["dispatched", "pending", "skipped"]
    order: str | None
    reason: str
    retry_in_s: float | None = None


class Asked(NamedTuple):
    """A request with its key (of an alarm: its episode), and the consumer who waits for an order of its model, if one does."""

    request: Request
    key: str
    consumer: str | None = None


class Answered(NamedTuple):
    """The answer to a request, and the order where it was handed to the consumer in the same commit."""

    admission: Admission
    handed: Handed | None = None


class Admissions:
    """Answers requests; the same order for the same request, however often it comes."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def request(self, asked: Request, now: Instant) -> Admission:
        """Answer one request by itself."""
        return self.request_all([Asked(asked, asked.episode)], now)[0].admission

    def request_all(self, asked: Sequence[Asked], now: Instant) -> list[Answered]:
        """Answer requests in their order, in one commit, and hand new orders of the channel to the consumers who wait."""
        ids = [orders.order_id(self._commits.store_id, each.key) for each in asked]
        with self._commits.write() as connection:
            ground = _Ground(connection, ids, [each.request.model for each in asked])
            admissions = []
            for id_, each in zip(ids, asked, strict=True):
                if self._commits.events is not None:
                    self._commits.events.advance_to(each.request.triggered_at)
                admissions.append(self._admit(ground, id_, each.request, each.key, now))
            ground.write(connection)
            return [
                Answered(admission, self._handed(connection, ground, each, admission, now))
                for each, admission in zip(asked, admissions, strict=True)
            ]

    def trigger(self, asked: Request, key: str, now: Instant, *, reason: str, signed: Signature = NOBODY) -> Admission:
        """Answer a person's request, who passes cooldown and silence; the same order for the same `key`."""
        asked = replace(asked, cause=orders.MANUAL)
        lives = self._commits.lives_of(asked.model)
        id_ = orders.order_id(self._commits.store_id, orders.manual_key(key, lives))
        with self._commits.write() as connection:
            ground = _Ground(connection, [id_], [asked.model])
            is_new = id_ not in ground.orders
            admission = self._admit(ground, id_, asked, key, now, reason=reason)
            ground.write(connection)
            if is_new and admission.order is not None:
                tables.put_act(connection, id_, "triggered", signed, now)
            # A person has looked at the model: what came to nothing before does not count any more.
            model_tables.restore_patience(connection, asked.model)
            return admission

    def aged(self, asked: Request, deployed: Deployed, now: Instant) -> Admission:
        """Answer the request of a version that has come of age; where it becomes an order, its age begins anew."""
        lives = self._commits.lives_of(asked.model)
        key = orders.age_key(self._commits.store_id, asked.model, asked.version, asked.ordinal or 0, lives)
        id_ = orders.order_id(self._commits.store_id, key)
        with self._commits.write() as connection:
            ground = _Ground(connection, [id_], [asked.model])
            admission = self._admit(ground, id_, asked, key, now)
            ground.write(connection)
            if admission.order is not None:
                pace = self._commits.pace(now)
                model_tables.put_deployment(connection, deployed._replace(since=pace, ordinal=deployed.ordinal + 1))
            return admission

    def _handed(
        self, connection: Connection, ground: _Ground, asked: Asked, admission: Admission, now: Instant
    ) -> Handed | None:
        order = ground.active.get(asked.request.model)
        if asked.consumer is None or admission.decision != "dispatched" or order is None:
            return None
        if order.handler != tables.CHANNEL or not order.is_due(now):
            return None
        handed = self._commits.hand_over(connection, order, asked.consumer, now)
        ground.active[order.model] = handed.order
        return handed

    def _admit(self, ground: _Ground, id_: str, asked: Request, key: str, now: Instant, *, reason: str = "") -> Admission:
        known = ground.orders.get(id_)
        if known is not None:
            return admission_of(known)
        plan = self._commits.plan_of(asked.model)
        active = ground.active.get(asked.model)
        retry_in_s: float | None
        decision = gate.admit(
            asked.model,
            now=self._commits.pace(now),
            active=None if active is None else active.id,
            cooldown=ground.cooldowns.get(asked.model),
            silences=ground.silences,
            labels=plan.labels,
            in_a_row=ground.patience.get(asked.model, 0),
            give_up=plan.give_up,
            manual=asked.cause == orders.MANUAL,
            dry_run=plan.dry_run,
        )
        order = Order(id_, asked, orders.PENDING, reason, plan.handler, plan.handler_settings, now.wall_s)
        match decision:
            case Dispatch(passed=passed):
                order = replace(order, reason=_with_passed(reason, passed))
                if plan.handler == tables.CHANNEL and not self._commits.limits.queues:
                    order = replace(order, dispatched_at=now.wall_s)  # an order in the channel counts as handed over
                self._put_armed(ground, order, plan, now)
                return admission_of(order)
            case DryRun(passed=passed):
                why = _with_passed(reason or f"dry run: would have been launched by {plan.handler}", passed)
                # The cooldown is armed as if it had been launched, so that the record is what would have happened.
                self._put_armed(ground, replace(order, state=orders.DRY_RUN, reason=why, finished_at=now.wall_s), plan, now)
                return Admission("skipped", id_, why)
            case CoolingDown(order=last, retry_in_s=retry_in_s):
                why, because = f"cooling down after {last}, {_left(retry_in_s)} left", f"cooldown {last}"
            case Silenced(silence=silence, comment=comment, retry_in_s=retry_in_s):
                why, because = f"silenced by {silence}" + (f": {comment}" if comment else ""), f"silence {silence}"
            case AlreadyActive(order=other, retry_in_s=retry_in_s):
                why, because = f"order {other} of this model is not finished", f"active {other}"
            case GivenUp(in_a_row=in_a_row):
                why = f"gave up: {in_a_row} retrains in a row did not pay, failed or died; a trigger or a reload starts again"
                because, retry_in_s = f"gave up {in_a_row}", None
        skipped = orders.skip_id(self._commits.store_id, key, because)
        ground.put(replace(order, id=skipped, state=orders.SKIPPED, reason=why, finished_at=now.wall_s))
        return Admission("skipped", None, why, retry_in_s)

    def _put_armed(self, ground: _Ground, order: Order, plan: Plan, now: Instant) -> None:
        ground.put(order)
        ground.arm(order.model, Cooldown(order.id, Countdown(self._commits.pace(now), plan.cooldown_s)))


class _Ground:
    """The state for the decisions on a group of requests, with earlier decisions applied; written once, at the end."""

    def __init__(self, connection: Connection, ids: Sequence[str], models: Sequence[str]) -> None:
        self.orders = tables.read_orders(connection, ids)
        self.active = tables.active_orders_of(connection, models)
        self.cooldowns = model_tables.read_cooldowns_of(connection, models)
        self.patience = model_tables.read_patience_of(connection, models)
        self.silences: list[Silence] = [silence for silence, _created_at in model_tables.read_silences(connection)]
        self._new: dict[str, Order] = {}
        self._armed: dict[str, Cooldown] = {}

    def put(self, order: Order) -> None:
        self._new.setdefault(order.id, order)
        if order.state != orders.SKIPPED:
            self.orders[order.id] = order
        if order.is_active:
            self.active[order.model] = order

    def arm(self, model: str, cooldown: Cooldown) -> None:
        self.cooldowns[model] = self._armed[model] = cooldown

    def write(self, connection: Connection) -> None:
        tables.put_new(connection, list(self._new.values()))
        model_tables.put_cooldowns(connection, self._armed)


def admission_of(order: Order) -> Admission:
    """Return the answer to a request whose order is on record."""
    if order.state == orders.DRY_RUN:
        return Admission("skipped", order.id, order.reason)
    return Admission("pending" if order.dispatched_at is None else "dispatched", order.id, order.reason)


def _with_passed(reason: str, passed: tuple[str, ...]) -> str:
    if not passed:
        return reason
    return f"{reason} (passes {' and '.join(passed)})".strip()


def _left(seconds: float) -> str:
    """Return a wait as a person reads it.

    >>> _left(1790.0), _left(9000.0), _left(2355540.0)
    ('1790 s', '2.5 h', '27.3 d')
    """
    return (
        f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"
    )

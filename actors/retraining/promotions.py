"""Decisions about versions, carried out by the promotion handler: each effectively once, never by the retrain handler.

A decision is an order of another kind: it has the same states, attempts and delivery schedule, and an id of its own that every
resend keeps. It arms no cooldown, and a model may have several under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, func, select

from actors.clock import Instant
from actors.retraining import tables
from actors.retraining.rows import order_of, values_of
from actors.retraining.rules import orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Jitter, Launched, Outcome
from actors.retraining.rules.orders import Order, Request
from actors.retraining.tables import promotions

_MOST_DUE: Final = 64
NO_HANDLER: Final = "none"
MLFLOW_ALIAS: Final = "mlflow_alias"


@dataclass(frozen=True, slots=True)
class PromotionPlan:
    """The promotion settings of one model; without a handler, decisions are only recorded."""

    handler: str = NO_HANDLER
    handler_settings: Mapping[str, object] | None = None


def record(connection: Connection, id_: str, asked: Request, plan: PromotionPlan, now: Instant) -> Order:
    """Put a decision on record, once for its id, and return it."""
    order = Order(
        id_,
        asked,
        orders.PENDING,
        "",
        plan.handler,
        plan.handler_settings or {},
        now.wall_s,
    )
    if plan.handler == NO_HANDLER:
        order = replace(order, state=orders.DONE, reason="no promotion.handler is configured", finished_at=now.wall_s)
    elif plan.handler == tables.CHANNEL:
        why = "promotion.handler must be one that is launched, not the channel"
        order = replace(order, state=orders.DEAD, reason=why, finished_at=now.wall_s)
    tables.put_new(connection, [order], promotions)
    return read(connection, order.id) or order


def read(connection: Connection, id_: str) -> Order | None:
    """Return one decision by its id."""
    row = connection.execute(select(promotions).where(promotions.c.id == id_)).first()
    return None if row is None else order_of(row)


def history(connection: Connection, model: str | None, limit: int) -> list[Order]:
    """Return the newest `limit` decisions, oldest first."""
    wanted = select(promotions).order_by(promotions.c.seq.desc()).limit(limit)
    if model is not None:
        wanted = wanted.where(promotions.c.model == model)
    return [order_of(row) for row in reversed(connection.execute(wanted).all())]


def in_registry(connection: Connection, model: str) -> list[tuple[int, str, bool, bool, str | None]]:
    """Return the newest decisions that move an alias: number, version, is it under way, was it done, why it is dead."""
    table = promotions.c
    columns = select(table.seq, table.version, table.state, table.new_version, table.reason)
    wanted = columns.where(promotions.c.model == model, promotions.c.handler == MLFLOW_ALIAS)
    found = connection.execute(wanted.order_by(promotions.c.seq.desc()).limit(_MOST_DUE))
    return [
        (
            int(row.seq),
            str(row.version),
            row.state in orders.ACTIVE,
            row.state == orders.DONE and row.new_version is not None,
            str(row.reason) if row.state == orders.DEAD else None,
        )
        for row in found
    ]


def due(connection: Connection, now: Instant) -> list[Order]:
    """Return the oldest decisions that may be carried out now, of each model only the first: their order matters."""
    return [order for order in _firsts(connection) if order.is_due(now)]


def running(connection: Connection) -> list[Order]:
    """Return the decisions that a handler has begun to carry out."""
    return [order for order in _firsts(connection) if order.state == orders.RUNNING]


def active_of(connection: Connection, model: str) -> Order | None:
    """Return the oldest decision about a model that has not been carried out yet."""
    return next((order for order in _active(connection) if order.model == model), None)


def any_active(connection: Connection) -> bool:
    """Return whether any decision has not been carried out yet."""
    wanted = select(promotions.c.id).where(promotions.c.state.in_(orders.ACTIVE)).limit(1)
    return connection.execute(wanted).first() is not None


def begin(connection: Connection, id_: str, now: Instant) -> Order | None:
    """Put the next attempt on record; None where the decision is not due any more."""
    order = read(connection, id_)
    if order is None or not order.is_due(now):
        return None
    begun = orders.begun(order, now)
    _put(connection, begun)
    tables.put_attempt(connection, begun, now)
    return begun


def settle(
    connection: Connection, id_: str, attempt: int, outcome: Outcome, now: Instant, *, backoff: Backoff, jitter: Jitter
) -> Order | None:
    """Record what came of an attempt; None where it is not the present one."""
    order = read(connection, id_)
    if order is None or order.state != orders.RUNNING or order.attempts != attempt:
        return None
    after = orders.settled(order, outcome, now, backoff, jitter)
    _put(connection, after)
    if not isinstance(outcome, Launched):
        tables.end_attempt(connection, after, type(outcome).__name__.lower(), getattr(outcome, "reason", ""), now)
    return after


def put_back(connection: Connection, id_: str) -> Order | None:
    """Put a failed or dead decision back; None where there is none of that id. ValueError: it is in another state."""
    order = read(connection, id_)
    if order is None:
        return None
    again = orders.put_back(order, f"retried by hand; it was {order.state}: {order.reason}")
    _put(connection, again)
    return again


def prune(connection: Connection, *, keep_rows: int, older_than_s: float) -> None:
    """Delete ended decisions beyond the newest `keep_rows` or recorded before `older_than_s`, at most 1,000 at a time."""
    newest = connection.execute(select(func.max(promotions.c.seq))).scalar() or 0
    too_old = (promotions.c.seq <= newest - keep_rows) | (promotions.c.requested_at < older_than_s)
    gone = select(promotions.c.seq).where(promotions.c.state.not_in(orders.ACTIVE), too_old).order_by(promotions.c.seq)
    last = connection.execute(gone.limit(1000)).scalars().all()
    if last:
        ended = promotions.c.state.not_in(orders.ACTIVE)
        connection.execute(promotions.delete().where(promotions.c.seq <= last[-1], ended, too_old))


def rebase(connection: Connection, now: Instant, seen: Instant | None) -> None:
    """Let the pauses of another boot carry on under this one."""
    for order in _active(connection):
        if order.wait is not None and order.wait.since.boot_id != now.boot_id:
            _put(connection, replace(order, wait=Countdown(now, order.wait.rebased(now, seen).left_s)))


def _active(connection: Connection) -> list[Order]:
    wanted = select(promotions).where(promotions.c.state.in_(orders.ACTIVE)).order_by(promotions.c.seq)
    return [order_of(row) for row in connection.execute(wanted)]


def _firsts(connection: Connection) -> list[Order]:
    firsts: dict[str, Order] = {}
    for order in _active(connection):
        firsts.setdefault(order.model, order)
    return list(firsts.values())[:_MOST_DUE]


def _put(connection: Connection, order: Order) -> None:
    connection.execute(promotions.update().where(promotions.c.id == order.id), values_of(order))

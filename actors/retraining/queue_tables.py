"""What the queue asks the table of orders: which may start now, and what its limits are compared with."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from actors.clock import Instant
from actors.retraining.rows import order_of
from actors.retraining.rules import orders
from actors.retraining.rules.orders import Order
from actors.retraining.rules.queue import HOUR_S, Load, Waiting
from actors.retraining.tables import CHANNEL, retrains, turns
from actors.storage.schema import insert_or_keep


def due_orders(
    connection: Connection,
    now: Instant,
    *,
    channel: bool,
    model: str | None = None,
    limit: int,
    of_receiver: int | None = None,
) -> list[Order]:
    """Return the oldest pending orders whose pause has ended, of the channel or of all other handlers.

    At most `of_receiver` of them go to one receiver, so that a thousand for one that hangs do not hide the others.
    """
    wanted = _due(now, channel=channel, model=model)
    if of_receiver is None:
        return [
            order_of(row) for row in connection.execute(select(retrains).where(wanted).order_by(retrains.c.seq).limit(limit))
        ]
    nth = func.row_number().over(partition_by=retrains.c.receiver, order_by=retrains.c.seq)
    ranked = select(retrains.c.seq, nth.label("nth")).where(wanted).subquery()
    fair = select(retrains).join(ranked, ranked.c.seq == retrains.c.seq).where(ranked.c.nth <= of_receiver)
    return [order_of(row) for row in connection.execute(fair.order_by(retrains.c.seq).limit(limit))]


def waiting_orders(connection: Connection, now: Instant, *, channel: bool | None, model: str | None = None) -> list[Waiting]:
    """Return what the queue looks at of the orders that may start now, oldest first; `channel` None: of all handlers."""
    columns = select(retrains.c.id, retrains.c.lost, retrains.c.price, retrains.c.front)
    rows = connection.execute(columns.where(_due(now, channel=channel, model=model)).order_by(retrains.c.seq))
    return [Waiting(row.id, row.lost, row.price, row.front) for row in rows]


def read_load(connection: Connection, now: Instant) -> Load:
    """Return what the limits of the queue are compared with."""
    running = connection.execute(select(func.count()).where(retrains.c.state == orders.RUNNING)).scalar_one()
    started = select(retrains.c.started_wall_s, retrains.c.started_boot_s, retrains.c.started_boot_id)
    # By either clock: a wall clock that was stepped forward must not free a slot early.
    recent = (retrains.c.started_wall_s > now.wall_s - HOUR_S) | (
        (retrains.c.started_boot_id == now.boot_id) & (retrains.c.started_boot_s > now.boot_s - HOUR_S)
    )
    last_hour = sum(now.seconds_since(Instant(*row)) < HOUR_S for row in connection.execute(started.where(recent)))
    so_far = connection.execute(select(turns.c.started)).scalar() or 0
    return Load(int(running), last_hour, int(so_far))


def count_start(connection: Connection) -> None:
    """Count one more start under limits."""
    connection.execute(insert_or_keep(connection, turns).values(one=1, started=0))
    connection.execute(turns.update().values(started=turns.c.started + 1))


def last_front(connection: Connection) -> int:
    """Return the highest `front` of all active orders."""
    found = connection.execute(select(func.max(retrains.c.front)).where(retrains.c.state.in_(orders.ACTIVE))).scalar()
    return int(found or 0)


def _due(now: Instant, *, channel: bool | None, model: str | None) -> ColumnElement[bool]:
    # Every pause counts from this boot: a dispatcher that starts rebases them (`rebase_countdowns`).
    over = (retrains.c.wait_boot_id == now.boot_id) & (retrains.c.wait_boot_s + retrains.c.wait_left_s <= now.boot_s)
    wanted = (retrains.c.state == orders.PENDING) & (retrains.c.wait_boot_id.is_(None) | over)
    if channel is not None:
        wanted &= retrains.c.handler == CHANNEL if channel else retrains.c.handler != CHANNEL
    return wanted if model is None else wanted & (retrains.c.model == model)

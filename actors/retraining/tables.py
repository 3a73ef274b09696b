"""Tables of the part `dispatcher`: orders and decisions, their attempts, cooldowns, silences.

Orders and skipped decisions share one table, since together they are a model's history. A countdown is kept as the instant
it counts from (both clocks and the boot they belong to) and the seconds that were left then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    Text,
    bindparam,
    delete,
    false,
    func,
    select,
    text,
)

from actors.clock import Instant
from actors.people import Signature
from actors.replies import ActRow, AttemptRow, Happening
from actors.retraining.rows import order_of, values_of
from actors.retraining.rules import happened as happening_of
from actors.retraining.rules import orders
from actors.retraining.rules.orders import Order
from actors.storage import happenings
from actors.storage.schema import BigInt, PartKind, add_columns, insert_or_keep

# The one handler whose orders wait for consumers, and are not launched.
CHANNEL: Final = "channel"


def _later_columns() -> list[Column[Any]]:
    """Make the columns of `retrains` that schema version 2 has added."""
    return [
        Column("cause", String(20), nullable=False, server_default=orders.ALARM),
        Column("ordinal", Integer),
        Column("lost", Float),
        Column("price", Float),
        Column("receiver", Text),  # what an order's attempts go to: those at one receiver must not hold up the others
        Column("front", Integer, nullable=False, server_default="0"),
        Column("started_wall_s", Float),
        Column("started_boot_s", Float),
        Column("started_boot_id", String(64)),
        Column("promise", Float),
        Column("promise_n", Float),
        Column("promise_source", String(20)),
        Column("promise_passed_on", Boolean, nullable=False, server_default=false()),
        Column("verdict", String(20)),
        Column("verdict_saved", Float),
        Column("verdict_error", Float),
        Column("verdict_at", Float),
    ]


def _from_1_to_2(connection: Connection) -> None:
    add_columns("retrains", *_later_columns())(connection)
    connection.execute(retrains.update().where(retrains.c.manual).values(cause=orders.MANUAL))
    for index in (_promises_due, _started):
        index.create(connection, checkfirst=True)


def _silence_columns() -> list[Column[Any]]:
    """Make the columns of `silences` that schema version 3 has added."""
    return [Column("selector", Text, nullable=False, server_default=""), Column("made_by", String(200))]


def _from_2_to_3(connection: Connection) -> None:
    add_columns("silences", *_silence_columns())(connection)


DISPATCHER = PartKind("dispatcher", migrations={1: _from_1_to_2, 2: _from_2_to_3})


def _countdown_columns(prefix: str, *, nullable: bool) -> list[Column[Any]]:
    return [
        Column(f"{prefix}_wall_s", Float, nullable=nullable),
        Column(f"{prefix}_boot_s", Float, nullable=nullable),
        Column(f"{prefix}_boot_id", String(64), nullable=nullable),
        Column(f"{prefix}_left_s", Float, nullable=nullable),
    ]


def _order_columns() -> list[Column[Any]]:
    """Make the columns that hold an order."""
    return [
        Column("seq", BigInt, primary_key=True, autoincrement=True),
        Column("id", String(64), nullable=False, unique=True),
        Column("model", String(200), nullable=False),
        Column("version", Text, nullable=False),
        Column("metric", Text, nullable=False),
        Column("observed_drift", Float),
        Column("triggered_at", Float, nullable=False),
        Column("episode", String(200), nullable=False),
        Column("explanation", Text, nullable=False),
        Column("manual", Boolean, nullable=False),
        Column("state", String(10), nullable=False),
        Column("reason", Text, nullable=False),
        Column("handler", String(250), nullable=False),
        Column("handler_settings", Text, nullable=False),
        Column("requested_at", Float, nullable=False),
        Column("dispatched_at", Float),
        Column("finished_at", Float),
        Column("attempts", Integer, nullable=False),
        Column("failures", Integer, nullable=False),
        Column("rounds", Integer, nullable=False),
        Column("launched", Boolean, nullable=False),
        *_countdown_columns("wait", nullable=True),
        Column("consumer", String(200)),
        Column("overtaken_by", Text),
        Column("new_version", Text),
        Column("tuning", Text),
        *_later_columns(),
    ]


retrains = Table("retrains", DISPATCHER.metadata, *_order_columns())
Index("retrains_by_model", retrains.c.model, retrains.c.seq)
Index("retrains_by_state", retrains.c.state, retrains.c.seq)
# The rule itself, kept by the database: at most one pending or running order of a model.
_ACTIVE = text("state IN ('pending', 'running')")
Index("one_active_retrain", retrains.c.model, unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)

_DUE = text("promise IS NOT NULL AND NOT promise_passed_on")
_promises_due = Index("retrain_promises_due", retrains.c.seq, sqlite_where=_DUE, postgresql_where=_DUE)
_started = Index("retrains_started", retrains.c.started_wall_s)

# Decisions about versions that the promotion handler carries out: orders too, but none of a retrain.
promotions = Table("retrain_promotions", DISPATCHER.metadata, *_order_columns())
Index("promotions_by_state", promotions.c.state, promotions.c.seq)

attempts = Table(
    "retrain_attempts",
    DISPATCHER.metadata,
    Column("retrain", String(64), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("handler", String(250), nullable=False),
    Column("consumer", String(200)),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String(20)),
    Column("reason", Text),
)
# What people have done with an order: its state tells what it is, this who made it so.
acts = Table(
    "retrain_acts",
    DISPATCHER.metadata,
    Column("number", BigInt, primary_key=True, autoincrement=True),
    Column("retrain", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("act", String(20), nullable=False),
    Column("made_by", String(200)),
    Column("comment", Text),
    Index("acts_of_retrain", "retrain"),
)
cooldowns = Table(
    "cooldowns",
    DISPATCHER.metadata,
    Column("model", String(200), primary_key=True),
    Column("retrain", String(64), nullable=False),
    *_countdown_columns("armed", nullable=False),
)
silences = Table(
    "silences",
    DISPATCHER.metadata,
    Column("id", String(64), primary_key=True),
    Column("pattern", String(200), nullable=False),
    Column("comment", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expired_at", Float),
    *_countdown_columns("armed", nullable=False),
    *_silence_columns(),
)
# The live version of each model, and since when; `ordinal` counts the retrains that its age has asked for.
deployments = Table(
    "retrain_deployments",
    DISPATCHER.metadata,
    Column("model", String(200), primary_key=True),
    Column("version", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("since_wall_s", Float, nullable=False),
    Column("since_boot_s", Float, nullable=False),
    Column("since_boot_id", String(64), nullable=False),
)
# How many retrains of a model in a row did not pay, failed or died.
patience = Table(
    "retrain_patience",
    DISPATCHER.metadata,
    Column("model", String(200), primary_key=True),
    Column("in_a_row", Integer, nullable=False),
)
# One row: how many orders were started under limits, so that the oldest one gets its turn whatever is restarted.
turns = Table(
    "retrain_turns",
    DISPATCHER.metadata,
    Column("one", Integer, primary_key=True),
    Column("started", Integer, nullable=False),
)
# One row: the last instant that a dispatcher put on record, so that what ran until then counts after a reboot.
sightings = Table(
    "dispatcher_sightings",
    DISPATCHER.metadata,
    Column("one", Integer, primary_key=True),
    Column("wall_s", Float, nullable=False),
    Column("boot_s", Float, nullable=False),
    Column("boot_id", String(64), nullable=False),
)

happened = happenings.table(DISPATCHER)

_CHUNK: Final = 500  # a statement takes a bounded number of parameters
_COUNTED = (orders.PENDING, orders.RUNNING, orders.DONE, orders.FAILED, orders.DEAD, orders.SKIPPED)


def read_status(connection: Connection) -> dict[str, int]:
    """Count orders by state: the part `retrains` of the status. `expired` and `dry_run` only where there are any."""
    rows = connection.execute(select(retrains.c.state, func.count()).group_by(retrains.c.state))
    return dict.fromkeys(_COUNTED, 0) | {str(state): int(count) for state, count in rows}


def read_history(
    connection: Connection,
    *,
    model: str | None,
    limit: int,
    state: str | None = None,
    judged: bool = False,
    selects: Callable[[str], bool] | None = None,
) -> list[Order]:
    """Return the newest `limit` orders and decisions, oldest first; only those with a verdict where `judged`.

    `selects` leaves those of the models that it is true of.
    """
    wanted = select(retrains).order_by(retrains.c.seq.desc())
    if judged:
        wanted = wanted.where(retrains.c.verdict.is_not(None))
    if model is not None:
        wanted = wanted.where(retrains.c.model == model)
    if state is not None:
        wanted = wanted.where(retrains.c.state == state)
    if selects is None:
        rows = connection.execute(wanted.limit(limit)).all()
    else:
        with connection.execute(wanted.execution_options(yield_per=_CHUNK)) as found:
            rows = list(islice((row for row in found if selects(row.model)), limit))
    return [order_of(row) for row in reversed(rows)]


# Built once: for what every request passes through, building a statement costs more than running it.
_ORDER: Final = select(retrains).where(retrains.c.id == bindparam("of"))
_ACTIVE_ORDER: Final = select(retrains).where(retrains.c.model == bindparam("of"), retrains.c.state.in_(orders.ACTIVE))
_ORDERS: Final = select(retrains).where(retrains.c.id.in_(bindparam("of", expanding=True)))
_ACTIVE_ORDERS: Final = select(retrains).where(
    retrains.c.model.in_(bindparam("of", expanding=True)), retrains.c.state.in_(orders.ACTIVE)
)
_ACTS: Final = select(acts).where(acts.c.retrain.in_(bindparam("of", expanding=True))).order_by(acts.c.number)
_UPDATE: Final = retrains.update().where(retrains.c.id == bindparam("of"))


def read_order(connection: Connection, id_: str) -> Order | None:
    """Return one order by its id."""
    row = connection.execute(_ORDER, {"of": id_}).first()
    return None if row is None else order_of(row)


def read_orders(connection: Connection, ids: Iterable[str]) -> dict[str, Order]:
    """Return the orders of these ids that exist."""
    return {row.id: order_of(row) for row in rows_of(connection, _ORDERS, ids)}


def known_order(connection: Connection, id_: str) -> Order:
    """Return one order by its id. KeyError: no such order."""
    order = read_order(connection, id_)
    if order is None:
        raise KeyError(f"order must be the id of a known retrain order, got {id_!r}")
    return order


def read_attempts(connection: Connection, id_: str) -> list[AttemptRow]:
    """Return an order's attempts, as plain rows."""
    wanted = select(attempts).where(attempts.c.retrain == id_).order_by(attempts.c.attempt)
    return [
        {
            "attempt": row.attempt,
            "handler": row.handler,
            "consumer": row.consumer,
            "started_at": row.started_at,
            "ended_at": row.ended_at,
            "outcome": row.outcome,
            "reason": row.reason,
        }
        for row in connection.execute(wanted)
    ]


def put_act(connection: Connection, retrain: str, act: str, signed: Signature, now: Instant) -> None:
    """Put what a person has done with an order on record."""
    row = {"retrain": retrain, "at": now.wall_s, "act": act, "made_by": signed.by, "comment": signed.comment}
    connection.execute(acts.insert().values(row))
    of_id = (select(table.c.model).where(table.c.id == retrain) for table in (retrains, promotions))
    models = [connection.execute(wanted).scalar() for wanted in of_id]
    tell(connection, happening_of.acted(retrain, next(filter(None, models), None), act, signed, now))


def read_acts(connection: Connection, ids: Iterable[str]) -> dict[str, list[ActRow]]:
    """Return what people have done with each of these orders, oldest first."""
    found: dict[str, list[ActRow]] = {}
    for row in rows_of(connection, _ACTS, ids):
        found.setdefault(row.retrain, []).append({"at": row.at, "act": row.act, "by": row.made_by, "comment": row.comment})
    return found


def active_order(connection: Connection, model: str) -> Order | None:
    """Return the model's pending or running order: there is at most one."""
    row = connection.execute(_ACTIVE_ORDER, {"of": model}).first()
    return None if row is None else order_of(row)


def active_orders_of(connection: Connection, models: Iterable[str]) -> dict[str, Order]:
    """Return the pending or running order of each of these models that has one."""
    return {row.model: order_of(row) for row in rows_of(connection, _ACTIVE_ORDERS, models)}


def active_orders(connection: Connection) -> list[Order]:
    """Return all pending and running orders, oldest first; never more than one a model."""
    wanted = select(retrains).where(retrains.c.state.in_(orders.ACTIVE)).order_by(retrains.c.seq)
    return [order_of(row) for row in connection.execute(wanted)]


def promises_due(connection: Connection, limit: int) -> list[Order]:
    """Return the oldest orders whose promise has not been passed on yet."""
    rows = connection.execute(select(retrains).where(_DUE).order_by(retrains.c.seq).limit(limit))
    return [order_of(row) for row in rows]


def promise_passed_on(connection: Connection, id_: str) -> None:
    """Note that the promise of an order is with the detector of its model."""
    connection.execute(retrains.update().where(retrains.c.id == id_).values(promise_passed_on=True))


def any_active(connection: Connection) -> bool:
    """Return whether any order is pending or running."""
    return connection.execute(select(retrains.c.id).where(retrains.c.state.in_(orders.ACTIVE)).limit(1)).first() is not None


def running_orders(connection: Connection, *, channel: bool) -> list[Order]:
    """Return the orders in consumers' hands, or those that all other handlers have begun; oldest first."""
    ours = retrains.c.handler == CHANNEL if channel else retrains.c.handler != CHANNEL
    wanted = select(retrains).where(ours, retrains.c.state == orders.RUNNING).order_by(retrains.c.seq)
    return [order_of(row) for row in connection.execute(wanted)]


def put_new(connection: Connection, new: Sequence[Order], table: Table = retrains) -> None:
    """Insert orders and decisions; keep those that are there."""
    if new:
        connection.execute(insert_or_keep(connection, table), [values_of(order) for order in new])


def put(connection: Connection, order: Order) -> None:
    """Write an order's changed state, and what it tells people."""
    connection.execute(_UPDATE, {"of": order.id, **values_of(order)})
    tell(connection, happening_of.to_order(order))


def tell(connection: Connection, what: Happening | None) -> None:
    """Write what happened, once for its id."""
    if what is not None:
        happenings.record(connection, happened, [what])


def put_attempt(connection: Connection, order: Order, now: Instant) -> None:
    """Put the attempt that begins on record."""
    connection.execute(
        insert_or_keep(connection, attempts).values(
            retrain=order.id, attempt=order.attempts, handler=order.handler, consumer=order.consumer, started_at=now.wall_s
        )
    )


def end_attempt(connection: Connection, order: Order, outcome: str, reason: str, now: Instant) -> None:
    """Note what the order's latest attempt came to."""
    latest = attempts.update().where(attempts.c.retrain == order.id, attempts.c.attempt == order.attempts)
    connection.execute(latest.values(ended_at=now.wall_s, outcome=outcome, reason=reason))


def prune(connection: Connection, *, keep_rows: int, older_than_s: float, batch: int = 1000) -> int:
    """Delete ended orders and decisions beyond the newest `keep_rows` or requested before `older_than_s`; count them.

    At most `batch` at a time, so that other calls do not wait long; active orders and each model's cooldown stay.
    """
    newest = connection.execute(select(func.max(retrains.c.seq))).scalar() or 0
    gone = select(retrains.c.id).where(
        retrains.c.state.not_in(orders.ACTIVE),
        (retrains.c.seq <= newest - keep_rows) | (retrains.c.requested_at < older_than_s),
    )
    ids: Sequence[str] = connection.execute(gone.order_by(retrains.c.seq).limit(batch)).scalars().all()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        for table in (attempts, acts):
            connection.execute(delete(table).where(table.c.retrain.in_(some)))
        connection.execute(delete(retrains).where(retrains.c.id.in_(some)))
    return len(ids)


def forget(connection: Connection, model: str, *, purge: bool) -> None:
    """Forget what a model's orders have still to pass on; with `purge` delete all of them, and its decisions."""
    connection.execute(retrains.update().where(retrains.c.model == model, _DUE).values(promise_passed_on=True))
    if not purge:
        return
    for table in (retrains, promotions):
        own = select(table.c.id).where(table.c.model == model)
        for of_order in (attempts, acts):
            connection.execute(delete(of_order).where(of_order.c.retrain.in_(own)))
        connection.execute(delete(table).where(table.c.model == model))
    happenings.forget(connection, happened, model)


def rows_of(connection: Connection, query: Select[Any], keys: Iterable[str]) -> Iterator[Row[Any]]:
    """Run `query` for these keys, so many at a time as a statement takes parameters."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), _CHUNK):
        yield from connection.execute(query, {"of": wanted[start : start + _CHUNK]})

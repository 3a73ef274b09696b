"""Tables of the part `dispatcher`: orders and decisions, their attempts, cooldowns, silences.

Orders and skipped decisions share one table, since together they are a model's history. A countdown is kept as the instant
it counts from (both clocks and the boot they belong to) and the seconds that were left then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict

import numpy as np
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
    func,
    select,
    text,
)

from actors.clock import Instant
from actors.retraining.rules import orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.gate import Cooldown, Silence
from actors.retraining.rules.orders import Order, Request
from actors.storage.schema import BigInt, PartKind, insert_or_keep, upsert

# The one handler whose orders wait for consumers, and are not launched.
CHANNEL: Final = "channel"

DISPATCHER = PartKind("dispatcher")


def _countdown_columns(prefix: str, *, nullable: bool) -> list[Column[Any]]:
    return [
        Column(f"{prefix}_wall_s", Float, nullable=nullable),
        Column(f"{prefix}_boot_s", Float, nullable=nullable),
        Column(f"{prefix}_boot_id", String(64), nullable=nullable),
        Column(f"{prefix}_left_s", Float, nullable=nullable),
    ]


retrains = Table(
    "retrains",
    DISPATCHER.metadata,
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
)
Index("retrains_by_model", retrains.c.model, retrains.c.seq)
Index("retrains_by_state", retrains.c.state, retrains.c.seq)
# The rule itself, kept by the database: at most one pending or running order of a model.
_ACTIVE = text("state IN ('pending', 'running')")
Index("one_active_retrain", retrains.c.model, unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)

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

_CHUNK: Final = 500  # a statement takes a bounded number of parameters
_COUNTED = (orders.PENDING, orders.RUNNING, orders.DONE, orders.FAILED, orders.DEAD, orders.SKIPPED)
_WITH_COUNTDOWN = ((retrains, "wait"), (cooldowns, "armed"), (silences, "armed"))


class Attempt(TypedDict):
    """One attempt of an order, as people see it. Times are wall-clock seconds."""

    attempt: int
    handler: str
    consumer: str | None
    started_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


def read_status(connection: Connection) -> dict[str, int]:
    """Count orders by state: the part `retrains` of the status. `expired` and `dry_run` only where there are any."""
    rows = connection.execute(select(retrains.c.state, func.count()).group_by(retrains.c.state))
    return dict.fromkeys(_COUNTED, 0) | {str(state): int(count) for state, count in rows}


def read_history(connection: Connection, *, model: str | None, limit: int, state: str | None = None) -> list[Order]:
    """Return the newest `limit` orders and decisions, oldest first."""
    wanted = select(retrains).order_by(retrains.c.seq.desc()).limit(limit)
    if model is not None:
        wanted = wanted.where(retrains.c.model == model)
    if state is not None:
        wanted = wanted.where(retrains.c.state == state)
    return [_order(row) for row in reversed(connection.execute(wanted).all())]


# Built once: for what every request passes through, building a statement costs more than running it.
_ORDER: Final = select(retrains).where(retrains.c.id == bindparam("of"))
_ACTIVE_ORDER: Final = select(retrains).where(retrains.c.model == bindparam("of"), retrains.c.state.in_(orders.ACTIVE))
_ORDERS: Final = select(retrains).where(retrains.c.id.in_(bindparam("of", expanding=True)))
_ACTIVE_ORDERS: Final = select(retrains).where(
    retrains.c.model.in_(bindparam("of", expanding=True)), retrains.c.state.in_(orders.ACTIVE)
)
_COOLDOWNS: Final = select(cooldowns).where(cooldowns.c.model.in_(bindparam("of", expanding=True)))
_SILENCES: Final = select(silences).where(silences.c.expired_at.is_(None)).order_by(silences.c.created_at)
_UPDATE: Final = retrains.update().where(retrains.c.id == bindparam("of"))


def read_order(connection: Connection, id_: str) -> Order | None:
    """Return one order by its id."""
    row = connection.execute(_ORDER, {"of": id_}).first()
    return None if row is None else _order(row)


def read_orders(connection: Connection, ids: Iterable[str]) -> dict[str, Order]:
    """Return the orders of these ids that exist."""
    return {row.id: _order(row) for row in _rows_of(connection, _ORDERS, ids)}


def known_order(connection: Connection, id_: str) -> Order:
    """Return one order by its id. KeyError: no such order."""
    order = read_order(connection, id_)
    if order is None:
        raise KeyError(f"order must be the id of a known retrain order, got {id_!r}")
    return order


def read_attempts(connection: Connection, id_: str) -> list[Attempt]:
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


def active_order(connection: Connection, model: str) -> Order | None:
    """Return the model's pending or running order: there is at most one."""
    row = connection.execute(_ACTIVE_ORDER, {"of": model}).first()
    return None if row is None else _order(row)


def active_orders_of(connection: Connection, models: Iterable[str]) -> dict[str, Order]:
    """Return the pending or running order of each of these models that has one."""
    return {row.model: _order(row) for row in _rows_of(connection, _ACTIVE_ORDERS, models)}


def active_orders(connection: Connection) -> list[Order]:
    """Return all pending and running orders, oldest first; never more than one a model."""
    wanted = select(retrains).where(retrains.c.state.in_(orders.ACTIVE)).order_by(retrains.c.seq)
    return [_order(row) for row in connection.execute(wanted)]


def due_orders(connection: Connection, now: Instant, *, channel: bool, model: str | None = None, limit: int) -> list[Order]:
    """Return the oldest pending orders whose pause is over, of the channel or of all other handlers."""
    # Every pause counts from this boot: a dispatcher that starts rebases them (`rebase_countdowns`).
    over = (retrains.c.wait_boot_id == now.boot_id) & (retrains.c.wait_boot_s + retrains.c.wait_left_s <= now.boot_s)
    wanted = _of_channel(channel).where(retrains.c.state == orders.PENDING, retrains.c.wait_boot_id.is_(None) | over)
    if model is not None:
        wanted = wanted.where(retrains.c.model == model)
    return [_order(row) for row in connection.execute(wanted.limit(limit))]


def running_orders(connection: Connection, *, channel: bool) -> list[Order]:
    """Return the orders in consumers' hands, or those that all other handlers have begun; oldest first."""
    return [_order(row) for row in connection.execute(_of_channel(channel).where(retrains.c.state == orders.RUNNING))]


def _of_channel(channel: bool) -> Select[Any]:  # noqa: FBT001
    ours = retrains.c.handler == CHANNEL if channel else retrains.c.handler != CHANNEL
    return select(retrains).where(ours).order_by(retrains.c.seq)


def read_cooldowns_of(connection: Connection, models: Iterable[str]) -> dict[str, Cooldown]:
    """Return the cooldown, over or not, of each of these models that has one."""
    rows = _rows_of(connection, _COOLDOWNS, models)
    return {row.model: Cooldown(row.retrain, _countdown(row, "armed")) for row in rows}


def read_cooldowns(connection: Connection) -> dict[str, Cooldown]:
    """Return every model's cooldown, over or not."""
    return {row.model: Cooldown(row.retrain, _countdown(row, "armed")) for row in connection.execute(select(cooldowns))}


def read_silences(connection: Connection) -> list[tuple[Silence, float]]:
    """Return the silences that nobody has ended, each with when it was made; some may be over."""
    return [
        (Silence(row.id, row.pattern, _countdown(row, "armed"), row.comment), row.created_at)
        for row in connection.execute(_SILENCES)
    ]


def read_sighting(connection: Connection) -> Instant | None:
    """Return the last instant on record."""
    row = connection.execute(select(sightings)).first()
    return None if row is None else Instant(row.wall_s, row.boot_s, row.boot_id)


def put_sighting(connection: Connection, now: Instant) -> None:
    """Put this instant on record."""
    row = upsert(connection, sightings, "wall_s", "boot_s", "boot_id")
    connection.execute(row.values(one=1, wall_s=now.wall_s, boot_s=now.boot_s, boot_id=now.boot_id))


def rebase_countdowns(connection: Connection, now: Instant, pace: Instant) -> None:
    """Let every countdown of another boot carry on under this one; called once by a dispatcher that starts.

    Leases and waits run on the clock of `now`, cooldowns and silences on that of `pace`.
    """
    seen = read_sighting(connection)
    at = {"wait": now, "armed": pace}
    for table, prefix in _WITH_COUNTDOWN:
        now = at[prefix]
        boot_id = table.c[f"{prefix}_boot_id"]
        (key,) = table.primary_key
        for row in connection.execute(select(table).where(boot_id.is_not(None), boot_id != now.boot_id)).all():
            countdown = _countdown(row, prefix).rebased(now, seen)
            changed = table.update().where(key == row._mapping[key])  # noqa: SLF001  SQLAlchemy's public name for a row's mapping
            connection.execute(changed.values(_countdown_values(prefix, countdown)))


def put_new(connection: Connection, new: Sequence[Order]) -> None:
    """Insert orders and decisions; keep those that are there."""
    if new:
        connection.execute(insert_or_keep(connection, retrains), [_values(order) for order in new])


def put(connection: Connection, order: Order) -> None:
    """Write an order's changed state."""
    connection.execute(_UPDATE, {"of": order.id, **_values(order)})


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


def put_cooldowns(connection: Connection, armed: Mapping[str, Cooldown]) -> None:
    """Arm the cooldown of each of these models."""
    rows = [
        {"model": model, "retrain": cooldown.order, **_countdown_values("armed", cooldown.countdown)}
        for model, cooldown in armed.items()
    ]
    if rows:
        connection.execute(upsert(connection, cooldowns, *(name for name in rows[0] if name != "model")), rows)


def put_silence(connection: Connection, silence: Silence, now: Instant) -> None:
    """Insert a silence; keep the one of that id."""
    connection.execute(
        insert_or_keep(connection, silences).values(
            id=silence.id,
            pattern=silence.pattern,
            comment=silence.comment,
            created_at=now.wall_s,
            **_countdown_values("armed", silence.countdown),
        )
    )


def expire_silence(connection: Connection, id_: str, now: Instant) -> bool:
    """End a silence; False where there is none of that id."""
    known = connection.execute(select(silences.c.id).where(silences.c.id == id_)).first() is not None
    running = silences.c.expired_at.is_(None)
    connection.execute(silences.update().where(silences.c.id == id_, running).values(expired_at=now.wall_s))
    return known


def prune(connection: Connection, *, keep_rows: int, older_than_s: float, batch: int = 1000) -> int:
    """Delete ended orders and decisions beyond the newest `keep_rows` or requested before `older_than_s`; count them.

    At most `batch` at a time, so that nobody waits long; active orders and each model's cooldown stay.
    """
    newest = connection.execute(select(func.max(retrains.c.seq))).scalar() or 0
    gone = select(retrains.c.id).where(
        retrains.c.state.not_in(orders.ACTIVE),
        (retrains.c.seq <= newest - keep_rows) | (retrains.c.requested_at < older_than_s),
    )
    ids: Sequence[str] = connection.execute(gone.order_by(retrains.c.seq).limit(batch)).scalars().all()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        connection.execute(delete(attempts).where(attempts.c.retrain.in_(some)))
        connection.execute(delete(retrains).where(retrains.c.id.in_(some)))
    return len(ids)


def prune_silences(connection: Connection, now: Instant, *, older_than_s: float) -> None:
    """Delete the silences that were made before `older_than_s` and are over."""
    for row in connection.execute(select(silences).where(silences.c.created_at < older_than_s)).all():
        if row.expired_at is not None or _countdown(row, "armed").is_over(now):
            connection.execute(delete(silences).where(silences.c.id == row.id))


def plain(value: object) -> Any:
    """Return `value` as JSON can hold it: numpy as lists and numbers, numbers that are not finite as None."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def _rows_of(connection: Connection, query: Select[Any], keys: Iterable[str]) -> Iterator[Row[Any]]:
    """Run `query` for these keys, so many at a time as a statement takes parameters."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), _CHUNK):
        yield from connection.execute(query, {"of": wanted[start : start + _CHUNK]})


def _values(order: Order) -> dict[str, Any]:
    asked = order.request
    return {
        "id": order.id,
        "model": asked.model,
        "version": asked.version,
        "metric": asked.metric,
        "observed_drift": asked.observed_drift,
        "triggered_at": asked.triggered_at,
        "episode": asked.episode,
        "explanation": json.dumps(plain(dict(asked.explanation))),
        "manual": order.manual,
        "state": order.state,
        "reason": order.reason,
        "handler": order.handler,
        "handler_settings": json.dumps(plain(dict(order.handler_settings))),
        "requested_at": order.requested_at,
        "dispatched_at": order.dispatched_at,
        "finished_at": order.finished_at,
        "attempts": order.attempts,
        "failures": order.failures,
        "rounds": order.rounds,
        "launched": order.launched,
        **_countdown_values("wait", order.wait),
        "consumer": order.consumer,
        "overtaken_by": order.overtaken_by,
        "new_version": order.new_version,
        "tuning": None if order.tuning is None else json.dumps(plain(dict(order.tuning))),
    }


def _order(row: Row[Any]) -> Order:
    return Order(
        id=row.id,
        request=Request(
            model=row.model,
            version=row.version,
            metric=row.metric,
            observed_drift=row.observed_drift,
            triggered_at=row.triggered_at,
            episode=row.episode,
            explanation=json.loads(row.explanation),
        ),
        state=row.state,
        reason=row.reason,
        handler=row.handler,
        handler_settings=json.loads(row.handler_settings),
        requested_at=row.requested_at,
        dispatched_at=row.dispatched_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        failures=row.failures,
        rounds=row.rounds,
        launched=bool(row.launched),
        wait=None if row.wait_boot_id is None else _countdown(row, "wait"),
        consumer=row.consumer,
        overtaken_by=row.overtaken_by,
        new_version=row.new_version,
        tuning=None if row.tuning is None else json.loads(row.tuning),
        manual=bool(row.manual),
    )


def _countdown(row: Row[Any], prefix: str) -> Countdown:
    found = row._mapping  # noqa: SLF001  SQLAlchemy's public name for a row's mapping
    since = Instant(found[f"{prefix}_wall_s"], found[f"{prefix}_boot_s"], found[f"{prefix}_boot_id"])
    return Countdown(since, found[f"{prefix}_left_s"])


def _countdown_values(prefix: str, countdown: Countdown | None) -> dict[str, Any]:
    return {
        f"{prefix}_wall_s": None if countdown is None else countdown.since.wall_s,
        f"{prefix}_boot_s": None if countdown is None else countdown.since.boot_s,
        f"{prefix}_boot_id": None if countdown is None else countdown.since.boot_id,
        f"{prefix}_left_s": None if countdown is None else countdown.left_s,
    }

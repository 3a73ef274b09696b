"""The table `happenings` of a part: its actor writes a row in the same transaction that makes it true.

    DETECTOR = PartKind("detector")
    happened = happenings.table(DETECTOR)
    with fence.write() as connection:
        ...
        happenings.record(connection, happened, [happening("alarm", episode, now.wall_s, model="fraud")])

So a process that is killed leaves both the fact and its happening, or neither. On PostgreSQL, where the parts share a
database, they share this table too.

Rows appear in the order of their numbers, so a reader that goes on after the last number it has seen misses none. SQLite has
one writer a file. On PostgreSQL a number is taken before its transaction commits, and those of other processes may commit
first: there a transaction holds a lock from its first number to its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from sqlalchemy import Column, Connection, Float, Index, Row, Select, String, Table, Text, delete, func, or_, select, text

from actors.replies import Happening, NumberedHappening
from actors.storage.schema import SYSTEM, BigInt, PartKind, insert_or_keep
from actors.storage.store import HAPPENED, Part, Store

_PRUNED: Final = 1000  # rows in one step, so that no writer waits long
_SYSTEM_ROWS: Final = 10_000
_ONE_AFTER_THE_OTHER: Final = text("SELECT pg_advisory_xact_lock(hashtext('visutility happenings'))")


def table(kind: PartKind) -> Table:
    """Add the table to a kind of part, and return it."""
    return Table(
        "happenings",
        kind.metadata,
        Column("number", BigInt, primary_key=True, autoincrement=True),
        Column("id", String(400), nullable=False, unique=True),
        Column("at", Float, nullable=False),
        Column("kind", String(20), nullable=False),
        Column("severity", String(10), nullable=False),
        Column("model", String(200)),
        Column("version", Text),
        Column("metric", Text),
        Column("subject", String(200)),
        Column("by", Text),
        Column("comment", Text),
        Column("data", Text, nullable=False),
        Index("happenings_by_time", "at"),
        Index("happenings_of_model", "model", "at"),
        sqlite_autoincrement=True,  # the number of a row that retention has deleted is never given again
    )


# What happens to the system itself: written by those who watch it, whose own parts may be what is in trouble.
of_system: Final = table(SYSTEM)


def record(connection: Connection, happened: Table, rows: Sequence[Happening]) -> None:
    """Write what happened; what is there already under its id stays as it is."""
    if rows:
        if connection.dialect.name == "postgresql":
            connection.execute(_ONE_AFTER_THE_OTHER)
        written = [{**row, "data": json.dumps(row["data"])} for row in rows]
        if connection.execute(insert_or_keep(connection, happened), written).rowcount:
            connection.info[HAPPENED] = True


def record_of_system(store: Store, row: Happening) -> None:
    """Write, in a transaction of its own, what happened to the system; of older rows the newest 10,000 stay."""
    with store.system.write() as connection:
        record(connection, of_system, [row])
        prune(connection, of_system, keep_rows=_SYSTEM_ROWS, older_than_s=0.0)


def prune(connection: Connection, happened: Table, *, keep_rows: int, older_than_s: float) -> None:
    """Delete the oldest rows: those before `older_than_s`, and those beyond the newest `keep_rows`; a thousand at a time."""
    newest = connection.execute(select(func.max(happened.c.number))).scalar() or 0
    too_old = or_(happened.c.number <= newest - keep_rows, happened.c.at < older_than_s)
    gone = select(happened.c.number).where(too_old).order_by(happened.c.number).limit(_PRUNED)
    numbers = connection.execute(gone).scalars().all()
    if numbers:
        connection.execute(delete(happened).where(happened.c.number <= numbers[-1], too_old))


def forget(connection: Connection, happened: Table, model: str) -> None:
    """Delete what happened to a model."""
    connection.execute(delete(happened).where(happened.c.model == model))


def newest(
    part: Part,
    happened: Table,
    *,
    model: str | None = None,
    since: float | None = None,
    before: tuple[float, str] | None = None,
    limit: int = 100,
) -> list[NumberedHappening]:
    """Return the newest rows of a part, newest first: at or after `since`, and before the (at, id) of the last one seen."""
    wanted = select(happened).order_by(happened.c.at.desc(), happened.c.id.desc()).limit(limit)
    if model is not None:
        wanted = wanted.where(happened.c.model == model)
    if since is not None:
        wanted = wanted.where(happened.c.at >= since)
    if before is not None:
        at, id_ = before
        wanted = wanted.where(or_(happened.c.at < at, (happened.c.at == at) & (happened.c.id < id_)))
    return list(_read(part, wanted))


def after(part: Part, happened: Table, number: int, limit: int = 1000) -> list[NumberedHappening]:
    """Return the rows of a part that were written after `number`, oldest first; 0: from the first one on."""
    return list(_read(part, select(happened).where(happened.c.number > number).order_by(happened.c.number).limit(limit)))


def _read(part: Part, wanted: Select[Any]) -> Iterator[NumberedHappening]:
    with part.read() as connection:
        for row in connection.execute(wanted).all():
            yield _shown(part.name, row)


def _shown(part: str, row: Row[Any]) -> NumberedHappening:
    found = {**row._mapping, "part": part, "data": json.loads(row.data)}
    return cast(NumberedHappening, found)

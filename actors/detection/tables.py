"""Tables of the part `detector`: what a detector process must find again.

A model belongs to one process, so one writer numbers its batches: `log` holds them in that order, `number` 1, 2, ... A
model's state is its last snapshot (`states`, up to the batch `models.snapshot`) and the log after it. Every commit writes a few
small rows and the batch's own bytes, never a detector's whole state.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgpack
import numpy as np
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    and_,
    bindparam,
    column,
    delete,
    func,
    select,
    values,
)

from actors.checks import brief
from actors.detection.rows import Changes, Damage, EpisodeRow, QuarantineRow, StateRow
from actors.detection.seal import seal, unseal
from actors.replies import Episode, Json, happening
from actors.storage import happenings
from actors.storage.schema import BigInt, PartKind, upsert
from actors.wire import Floats

DETECTOR = PartKind("detector")

models = Table(
    "models",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("process", String(220), nullable=False),
    Column("events", BigInt, nullable=False),
    Column("duplicates", BigInt, nullable=False),
    Column("rejected", BigInt, nullable=False),
    Column("number", BigInt, nullable=False),  # of the last batch in the log
    Column("snapshot", BigInt, nullable=False),  # of the last batch that `states` know
    Column("last_at", Float, nullable=False),  # when it was received
    Column("memory", LargeBinary, nullable=False),  # versions, their counts and progress: what status shows
)
log = Table(
    "log",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("number", BigInt, primary_key=True),
    Column("producer", String(200)),
    Column("sequence", BigInt, nullable=False),  # of the payload's first row
    Column("skip", Integer, nullable=False),  # rows at its front that had been counted before
    Column("count", Integer, nullable=False),  # rows after those, rejected ones included
    Column("received_at", Float, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
producers = Table(
    "producers",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("producer", String(200), primary_key=True),
    Column("high_water", BigInt, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("client", LargeBinary),  # the counters that a client sent along
    Index("producers_seen", "seen_at"),
)
states = Table(
    "states",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("version", String(200), primary_key=True),
    Column("metric", String(200), primary_key=True),
    Column("kind", String(100), nullable=False),
    Column("state", LargeBinary, nullable=False),
)
samples = Table(  # baselines that were given, so that one can be pinned
    "samples",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("version", String(200), primary_key=True),
    Column("metric", String(200), primary_key=True),
    Column("sample", LargeBinary, nullable=False),  # float64[n], little-endian
)
episodes = Table(
    "episodes",
    DETECTOR.metadata,
    Column("id", String(80), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("open", Integer, nullable=False),  # 1 while it is in the state machine's hands
    Column("opened_at", Float, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("episodes_of_model", "model", "open"),
)
# The verdicts of people once more, apart from the records: to count them must not unpack every episode.
judgements = Table(
    "judgements",
    DETECTOR.metadata,
    Column("episode", String(80), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("verdict", String(10), nullable=False),
    Index("judgements_by_time", "opened_at"),
)
outbox = Table(
    "outbox",
    DETECTOR.metadata,
    Column("id", String(120), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("process", String(220), nullable=False),
    Column("method", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)
# A batch is noted here before it is tried for the first time in a process's life: one that kills its process is recognised.
attempts = Table(
    "attempts",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("producer", String(200), primary_key=True),
    Column("sequence", BigInt, nullable=False),
    Column("tries", Integer, nullable=False),
)
quarantine = Table(
    "quarantine",
    DETECTOR.metadata,
    Column("model", String(200), primary_key=True),
    Column("producer", String(200), primary_key=True),
    Column("sequence", BigInt, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

happened = happenings.table(DETECTOR)

_OF_EPISODE: Final = frozenset({"id", "model", "version", "ordinal", "request", "order", "watches", "decisions", "held"})
_CHUNK: Final = 500  # names in one IN list
_FEW: Final = 8  # questions instead of a join
T = TypeVar("T")


def pack(value: object) -> bytes:
    """Encode a plain value for a column, behind a checksum."""
    return seal(msgpack.packb(value))


def unpack(value: bytes) -> Any:
    """Decode what `pack` encoded. Raises one of UNREADABLE where it was damaged."""
    return msgpack.unpackb(unseal(value), strict_map_key=False)


# What reading a row raises whose bytes are damaged, or were written by something else.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)


# --- writing: called inside a fenced transaction, rows as dicts ------------------------------------------------------


def episode_row(record: Episode) -> EpisodeRow:
    """Return the row of an episode's record."""
    return {
        "id": record["id"],
        "model": record["model"],
        "version": record["version"],
        "ordinal": record["ordinal"],
        "open": int(record["held"]),
        "opened_at": record["opened_at"],
        "record": pack(record),
    }


_REPLACED: Final[Sequence[tuple[str, Table, tuple[str, ...]]]] = (
    ("producers", producers, ("high_water", "seen_at", "client")),
    ("models", models, ("events", "duplicates", "rejected", "number", "snapshot", "last_at", "memory")),
    ("states", states, ("kind", "state")),
    ("samples", samples, ("sample",)),
    ("episodes", episodes, ("open", "record")),
    ("judgements", judgements, ("verdict",)),
    ("outbox", outbox, ("body", "created_at")),
    ("quarantine", quarantine, ("reason",)),
)


# The columns whose bytes are not made by `pack`.
_SEALED: Final[Mapping[str, str]] = {"states": "state", "samples": "sample"}
_KEYS: Final[Mapping[str, tuple[Table, tuple[str, ...]]]] = {
    "log": (log, ("number",)),
    "states": (states, ("version", "metric")),
    "samples": (samples, ("version", "metric")),
    "episodes": (episodes, ("id",)),
    "outbox": (outbox, ("id",)),
}
DAMAGED: Final = tuple(f"({name})" for name in _KEYS)  # replaces the producer when a damaged row is set aside


def write(connection: Connection, changes: Changes) -> None:
    """Write everything; the caller's transaction commits it."""
    for damage in changes.damaged:
        _set_aside(connection, damage, changes.at_s)
        key = f"{damage.table}:{damage.model}:{damage.key!r}"[:300]
        told = happening("store_trouble", key, changes.at_s, "warning", model=damage.model, comment=str(damage)[:500])
        happenings.record(connection, happened, [told])
    if changes.log:
        connection.execute(log.insert(), [{**row, "payload": seal(row["payload"])} for row in changes.log])
    for name, table, updated in _REPLACED:
        rows = getattr(changes, name)
        if name in _SEALED:
            rows = [{**row, _SEALED[name]: seal(row[_SEALED[name]])} for row in rows]
        if rows:
            connection.execute(upsert(connection, table, *updated), rows)
    happenings.record(connection, happened, changes.happenings)
    for id_ in changes.sent:
        connection.execute(delete(outbox).where(outbox.c.id == id_))
    if changes.tried:
        mine = and_(attempts.c.model == bindparam("m"), attempts.c.producer == bindparam("p"))
        connection.execute(delete(attempts).where(mine), [{"m": model, "p": producer} for model, producer in changes.tried])
    for model, version in changes.dropped_versions:
        for table in (states, samples):
            connection.execute(delete(table).where(table.c.model == model, table.c.version == version))


def _set_aside(connection: Connection, damage: Damage, at_s: float) -> None:
    """Move a row that cannot be read into quarantine, under its table's name instead of a producer's."""
    table, names = _KEYS[damage.table]
    row: QuarantineRow = {
        "model": damage.model,
        "producer": f"({damage.table})",
        "sequence": zlib.crc32(repr(damage.key).encode()),
        "count": damage.count,
        "received_at": at_s,
        "reason": str(damage)[:500],
        "payload": damage.content,
    }
    connection.execute(upsert(connection, quarantine, "reason"), [row])
    here = [table.c[name] == value for name, value in zip(names, damage.key, strict=True)]
    connection.execute(delete(table).where(table.c.model == damage.model, *here))


def load_attempts(connection: Connection, batches: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Return how often each batch, a sequence by (model, producer), was tried and has not come through."""
    found = dict.fromkeys(batches, 0)
    for part in chunks(sorted(batches)):
        for row in _rows_of(connection, attempts, part):
            if row.sequence == batches[row.model, row.producer]:
                found[row.model, row.producer] = row.tries
    return found


def write_attempts(connection: Connection, tried: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """Put (sequence, tries) of batches, by (model, producer), on record."""
    rows = [{"model": m, "producer": p, "sequence": seq, "tries": tries} for (m, p), (seq, tries) in tried.items()]
    connection.execute(upsert(connection, attempts, "sequence", "tries"), rows)


def last_numbers(connection: Connection, model: str) -> tuple[int, int]:
    """Return the highest ordinal of a model's episodes, and the highest number of its log; 0 where there is none."""
    ordinal = connection.execute(select(func.max(episodes.c.ordinal)).where(episodes.c.model == model)).scalar()
    number = connection.execute(select(func.max(log.c.number)).where(log.c.model == model)).scalar()
    counted = connection.execute(select(models.c.number).where(models.c.model == model)).scalar()
    return int(ordinal or 0), max(int(number or 0), int(counted or 0))


def put_episode(connection: Connection, record: Episode) -> None:
    """Write an episode's record."""
    connection.execute(upsert(connection, episodes, "open", "record"), [episode_row(record)])


def remove_model(connection: Connection, model: str, *, episodes_too: bool) -> None:
    """Delete every row of a model; its episodes only where they are to go too."""
    known = (episodes, judgements, happened) if episodes_too else ()
    tables = (log, producers, states, samples, outbox, attempts, quarantine, models, *known)
    for table in tables:
        connection.execute(delete(table).where(table.c.model == model))


# --- reading ---------------------------------------------------------------------------------------------------------


def load_models(connection: Connection, process: str) -> list[Any]:
    """Return the rows of every model of a process."""
    return list(connection.execute(select(models).where(models.c.process == process)))


def load_some_models(connection: Connection, names: Sequence[str]) -> list[Any]:
    """Return the rows of these models, as far as there are any."""
    found: list[Any] = []
    for part in chunks(names):
        found.extend(connection.execute(select(models).where(models.c.model.in_(part))))
    return found


# The readers below leave out what cannot be read, and add it to `damaged`.


def load_states(connection: Connection, names: Sequence[str], damaged: list[Damage]) -> list[StateRow]:
    """Return the snapshots of these models."""
    found: list[StateRow] = []
    for part in chunks(names):
        for row in connection.execute(select(states).where(states.c.model.in_(part))):
            try:
                state = unseal(row.state)
            except ValueError as error:
                damaged.append(Damage("states", row.model, (row.version, row.metric), row.state, str(error)))
                continue
            found.append({"model": row.model, "version": row.version, "metric": row.metric, "kind": row.kind, "state": state})
    return found


def load_samples(connection: Connection, model: str, version: str, damaged: list[Damage]) -> dict[str, Floats]:
    """Return the given baselines of a version: float64[n] by metric."""
    found: dict[str, Floats] = {}
    wanted = select(samples).where(samples.c.model == model, samples.c.version == version)
    for row in connection.execute(wanted):
        try:
            found[row.metric] = sample_of(row.sample)
        except ValueError as error:
            damaged.append(Damage("samples", model, (version, row.metric), row.sample, str(error)))
    return found


def sample_of(stored: bytes) -> Floats:
    """Decode a baseline: float64[n]. ValueError: it was damaged."""
    # A baseline that an older build has written is whole numbers of eight bytes, of which the first may be any.
    values = np.frombuffer(stored if len(stored) % 8 == 0 else unseal(stored), dtype="<f8")
    if not np.isfinite(values).all():
        raise ValueError("its values must be finite")
    return values


def load_producers(connection: Connection, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the high-water marks of (model, producer); an unknown one is left out."""
    found: dict[tuple[str, str], int] = {}
    for part in chunks(pairs):
        found.update({(row.model, row.producer): row.high_water for row in _rows_of(connection, producers, part)})
    return found


def load_open_episodes(connection: Connection, process: str, damaged: list[Damage]) -> list[Episode]:
    """Return the records of the episodes of a process that its state machines still hold, oldest first."""
    rows = connection.execute(
        select(episodes.c.id, episodes.c.model, episodes.c.record)
        .join(models, models.c.model == episodes.c.model)
        .where(models.c.process == process, episodes.c.open == 1)
        .order_by(episodes.c.opened_at, episodes.c.ordinal)
    )
    return _readable(rows, damaged)


def load_model_episodes(connection: Connection, model: str, damaged: list[Damage]) -> list[Episode]:
    """Return the records of a model's episodes that its state machine still holds, oldest first."""
    rows = connection.execute(
        select(episodes.c.id, episodes.c.model, episodes.c.record)
        .where(episodes.c.model == model, episodes.c.open == 1)
        .order_by(episodes.c.opened_at, episodes.c.ordinal)
    )
    return _readable(rows, damaged)


def _readable(rows: Iterable[Any], damaged: list[Damage]) -> list[Episode]:
    found: list[Episode] = []
    for row in rows:
        try:
            found.append(episode_of(row.record))
        except UNREADABLE as error:
            damaged.append(Damage("episodes", row.model, (row.id,), row.record, brief(error)))
    return found


class Call(NamedTuple):
    """A call of the dispatcher that waits in the outbox."""

    model: str
    method: str
    body: Json


def load_outbox(connection: Connection, process: str, damaged: list[Damage]) -> dict[str, Call]:
    """Return what has to be sent still by its id, oldest first."""
    found: dict[str, Call] = {}
    for row in connection.execute(select(outbox).where(outbox.c.process == process).order_by(outbox.c.created_at)):
        try:
            body = unpack(row.body)
            if not isinstance(body, dict):
                raise TypeError(f"it must be a mapping, got {type(body).__name__}")
            found[row.id] = Call(row.model, row.method, body)
        except UNREADABLE as error:
            damaged.append(Damage("outbox", row.model, (row.id,), row.body, brief(error)))
    return found


def episode_of(record: bytes) -> Episode:
    """Decode an episode's record. Raises one of UNREADABLE where it was damaged."""
    found = unpack(record)
    if not isinstance(found, dict) or not found.keys() >= _OF_EPISODE:
        raise ValueError(f"it must be an episode with {', '.join(sorted(_OF_EPISODE))}")
    return cast("Episode", found)


def chunks(names: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut names into parts that one IN list takes."""
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]


def _rows_of(connection: Connection, table: Table, pairs: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """Return the rows of (model, producer): a question for each model, or for each producer, where these are few."""
    of_model: dict[str, list[str]] = {}
    of_producer: dict[str, list[str]] = {}
    for model, producer in pairs:
        of_model.setdefault(model, []).append(producer)
        of_producer.setdefault(producer, []).append(model)
    if min(len(of_model), len(of_producer)) > _FEW:
        yield from connection.execute(_joined(table, pairs))
    # An IN list of any length is one statement, compiled once; a join is compiled anew each time, which takes longer than all
    # the rest of a commit (2,500 producers that resend to a process that has just begun: 0.65 of 1.04 s).
    elif len(of_model) <= len(of_producer):
        for model, producers_of in of_model.items():
            yield from connection.execute(select(table).where(table.c.model == model, table.c.producer.in_(producers_of)))
    else:
        for producer, models_of in of_producer.items():
            yield from connection.execute(select(table).where(table.c.model.in_(models_of), table.c.producer == producer))


def _joined(table: Table, pairs: Sequence[tuple[str, str]]) -> Select[Any]:
    """Select the rows of (model, producer) by a join, for which SQLite uses the primary key; for a tuple's IN it scans."""
    asked = values(column("model", String), column("producer", String), name="asked").data(pairs).cte("asked")
    return select(table).join_from(asked, table, and_(table.c.model == asked.c.model, table.c.producer == asked.c.producer))

"""The shapes that cross a process: raw events checked, batches packed into columns, columns checked.

A job whose environment lacks this package copies these three lines and calls with plain values, by keyword:

    import ray
    broadcaster = ray.get_actor("broadcaster", namespace="visutility")
    ray.get(broadcaster.broadcast.remote(events=[{"model_name": "fraud", "model_version": "7", "accuracy": 0.91}]))

The packed batch is a msgpack map: `v` (schema), `n` (rows), `versions` (texts), `which` (uint16[n]: the version of each row;
left out where there is one version), `time` and `columns` (name -> column), `texts` (name -> list of text or nil). A column is
float64[n], little-endian; or 8 bytes, one value for all rows; or a pair of such bytes and a bit mask of the rows that have it
(bits packed, the first row is the highest bit). So a NaN in a row that has the column is a bad value, and not an absent one.
A batch holds the events of one model, in the order of their sequence numbers.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeGuard

import msgpack
import numpy as np
import numpy.typing as npt

from actors import replies

Floats = npt.NDArray[np.float64]
Rejection = replies.Rejection
Bools = npt.NDArray[np.bool_]
Payload = bytes | memoryview  # a packed batch
Row = tuple[str, float, Mapping[str, Any]]  # version, time, metrics: numbers, texts, None for absent

SCHEMA: Final = 1
NAMED: Final = ("accuracy", "precision", "recall")
UNVERSIONED: Final = "unversioned"
FIELDS: Final = frozenset({"model_name", "model_version", "timestamp", "extras", *NAMED})
RESERVED: Final = FIELDS - set(NAMED)  # a metric of such a name could not be told from the field

MAX_CALL_BYTES: Final = 8 * 2**20  # one call: several times what is worth sending at once, and a bound on everybody's memory
MAX_ROWS: Final = 1_000_000
MAX_EVENTS: Final = 100_000  # raw events of one call: each costs some microseconds of the broadcaster's only loop
MAX_NAME: Final = 200
MAX_EXTRAS_BYTES: Final = 16 * 1024
MAX_COLUMNS: Final = 256
MAX_VERSIONS: Final = 1000
MAX_CELLS: Final = 4 * 2**20  # rows times columns of one batch: constants pack into 8 bytes and decode into 8 bytes a row
MAX_LISTED: Final = 1000  # rejections that a reply lists one by one; how many there are follows from the counts
AHEAD_S: Final = 300.0  # a clock that is so far ahead is taken for right; a value beyond is in milliseconds or wrong

_SHOWN: Final = 80
_PART_BYTES: Final = MAX_CALL_BYTES // 2  # the aim where a batch is split; names and texts have the other half
_PART_ROWS: Final = 100_000  # where columns are split: a column of a part is 800 KB at most
_ARRAY_BYTES: Final = 64 * 1024  # of a payload: about where one copy costs more than an array's own few microseconds


@dataclass(frozen=True, slots=True)
class Column:
    """`values: float64[n]`; `present: bool[n]`, None where every row has the metric."""

    values: Floats
    present: Bools | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one model in columns."""

    rows: int
    versions: list[str]
    times: Floats
    columns: Mapping[str, Column]
    which: npt.NDArray[np.uint16] | None = None
    texts: Mapping[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which rows count. `ok: bool[n]` is None where all do; `listed` holds at most MAX_LISTED of the others."""

    ok: Bools | None
    rejected: int
    listed: list[Rejection]


class Packed(NamedTuple):
    """A batch that every limit of the wire allows. `emptied` says why its only row was emptied, so that it will be rejected."""

    rows: int
    payload: bytes
    emptied: Rejection | None = None


@dataclass(slots=True)
class Sorted:
    """Raw events of one call by model: for each its rows, and the index that each row had in the call."""

    rows: dict[str, list[Row]]
    indices: dict[str, list[int]]
    rejected: list[Rejection]


# --- names ------------------------------------------------------------------------------------------------------


def check_model(name: object) -> str:
    """Return the model's name, or raise ValueError naming the rule."""
    rule = _model_rule(name)
    if rule is not None:
        raise ValueError(f"model_name {rule}, got {shown(name)!r}")
    return str(name)


def check_version(version: object) -> str:
    """Return the version, or raise ValueError naming the rule."""
    rule = _text_rule(version)
    if rule is not None:
        raise ValueError(f"model_version {rule}, got {shown(version)!r}")
    return str(version)


def metric_rule(name: object) -> str | None:
    """Say what is wrong with a metric's name, None if nothing is."""
    if name in RESERVED:
        return "must not be the name of a field"
    return _text_rule(name)


def shown(value: object) -> Any:
    """Give a plain and short stand-in of a value for an error."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return (
            value if isinstance(value, float) or abs(value) < 2**63 else str(value)[:_SHOWN] if value < 10**99 else "huge int"
        )
    if isinstance(value, np.generic):
        return shown(value.item())
    if isinstance(value, str):
        return value[:_SHOWN]
    if isinstance(value, bytes | bytearray | list | tuple | dict | set):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _text_rule(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if not 1 <= len(value) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if value.isascii() and value.isprintable():
        return None
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        return "must not hold a control character"
    if any(0xD800 <= ord(c) < 0xE000 for c in value):
        return "must be encodable as UTF-8"
    return None


def _model_rule(value: object) -> str | None:
    rule = _text_rule(value)
    if rule is None and any(c in "*?[" for c in str(value)):
        return "must not hold one of * ? ["
    return rule


# --- packed batches ---------------------------------------------------------------------------------------------


def pack(batch: Batch) -> bytes:
    """Encode a batch that `unpack` would take."""
    message: dict[str, Any] = {
        "v": SCHEMA,
        "n": batch.rows,
        "versions": batch.versions,
        "time": _pack_values(batch.times, batch.rows),
        "columns": {name: _pack_column(column, batch.rows) for name, column in batch.columns.items()},
    }
    if batch.which is not None:
        message["which"] = batch.which.astype("<u2", copy=False).tobytes()
    if batch.texts:
        message["texts"] = dict(batch.texts)
    return bytes(msgpack.packb(message))


def packed_rows(rows: Sequence[Row]) -> list[Packed]:
    """Pack rows of one model, in their order, into as few batches as halving gives that fit the wire.

    A row that no batch can carry (a text that UTF-8 cannot encode, or a row that is too large) is emptied and packed alone: it
    keeps its number, and whoever counts the batch rejects it.
    """
    waiting, done = [rows] if rows else [], []
    while waiting:
        part = waiting.pop()
        packed = _packed_if_it_fits(part)
        if packed is not None:
            done.append(packed)
        elif len(part) == 1:
            done.append(_emptied(part[0]))
        else:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]
    return done


def packed_columns(batch: Batch) -> Iterator[Packed]:
    """Pack a batch of columns without texts, in the order of its rows, into batches that fit the wire."""
    columns = len(batch.columns)
    most = min(_PART_ROWS, _PART_BYTES // (8 * columns + 8), MAX_CELLS // max(columns, 1))
    for start in range(0, batch.rows, most):
        part = batch if batch.rows <= most else _cut(batch, start, start + most)
        yield Packed(part.rows, pack(part))


def split_rows(rows: Sequence[Row]) -> Iterator[Batch]:
    """Make batches of rows, in their order, each with no more columns, versions and cells than the wire takes."""
    waiting = [rows] if rows else []
    while waiting:
        part = waiting.pop()
        if len(part) == 1 or _is_narrow(part):
            yield batch_of_rows(part)
        else:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]


def declared_rows(payload: object) -> int:
    """Say how many events a payload that was refused means to hold, as far as it can be read: 1 where it cannot."""
    try:
        rows = msgpack.unpackb(arrived(payload))["n"]
    except Exception:  # noqa: BLE001  it was refused for being anything at all
        return 1
    return rows if isinstance(rows, int) and 1 <= rows <= MAX_ROWS else 1


def for_travel(payload: bytes) -> bytes | npt.NDArray[np.uint8]:
    """Give a packed batch as it is sent: a large one as uint8[n], which Ray writes once and lets be read in its place."""
    return payload if len(payload) < _ARRAY_BYTES else np.frombuffer(payload, dtype=np.uint8)


def arrived(payload: object) -> Payload:
    """Return a packed batch as it came: bytes, or a view of uint8[n]. ValueError for anything else, and for one too large."""
    if isinstance(payload, np.ndarray) and payload.dtype == np.uint8 and payload.ndim == 1 and payload.flags.c_contiguous:
        payload = payload.data
    if not isinstance(payload, bytes | memoryview):
        raise ValueError(f"payload must be bytes, got {type(payload).__name__}")  # noqa: TRY004  the wire's rule
    if len(payload) > MAX_CALL_BYTES:
        raise ValueError(f"payload must have at most {MAX_CALL_BYTES} bytes, got {len(payload)}")
    return payload


def unpack(payload: object) -> Batch:
    """Decode a batch; ValueError says what about the envelope is wrong. The values are not checked yet."""
    payload = arrived(payload)
    try:
        message = msgpack.unpackb(payload)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"payload must be a whole msgpack map, got {len(payload)} bytes that are not ({error})") from None
    if not isinstance(message, dict):
        raise ValueError(f"payload must be a msgpack map, got {type(message).__name__}")  # noqa: TRY004  the wire's rule
    if message.get("v") != SCHEMA:
        raise ValueError(f"payload v must be {SCHEMA}, the schema that this build knows, got {shown(message.get('v'))!r}")
    unknown = message.keys() - {"v", "n", "versions", "which", "time", "columns", "texts"}
    if unknown:
        raise ValueError(f"payload must hold no other key, got {shown(min(unknown, key=str))!r}")
    rows = message.get("n")
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"payload n must be a whole number from 1 to {MAX_ROWS}, got {shown(rows)!r}")
    versions = _versions(message.get("versions"))
    columns = message.get("columns")
    if not isinstance(columns, dict) or len(columns) > MAX_COLUMNS:
        raise ValueError(f"payload columns must be a map of at most {MAX_COLUMNS} columns, got {shown(columns)!r}")
    _check_names(columns)
    texts = message.get("texts", {})
    cells = rows * (len(columns) + (len(texts) if isinstance(texts, dict) else 0))
    if cells > MAX_CELLS:  # before anything is decoded: a constant column has 8 bytes here, and 8 bytes a row in memory
        raise ValueError(f"payload must have at most {MAX_CELLS} cells (rows times columns), got {cells}")
    return Batch(
        rows=rows,
        versions=versions,
        times=_values("time", message.get("time"), rows),
        columns={name: _column(name, packed, rows) for name, packed in columns.items()},
        which=_which(message.get("which"), rows, len(versions)),
        texts=_texts(texts, rows),
    )


def check(batch: Batch, now_s: float, skip: int = 0) -> Verdict:
    """Say which rows from `skip` on count at the time `now_s`; `index` of a rejection counts from the batch's first row.

    The same batch at the same time always gets the same verdict: a log is read again with the time it was received.
    """
    bad: list[tuple[str, Floats, Bools, str]] = []  # field, values, rows, rule
    low, high = float(batch.times.min()), float(batch.times.max())
    if not (low >= 0.0 and high <= now_s + AHEAD_S):
        with np.errstate(invalid="ignore"):
            wrong = ~((batch.times >= 0.0) & (batch.times <= now_s + AHEAD_S))
        bad.append(("timestamp", batch.times, wrong, "must be seconds since the epoch, not in the future"))
    filled: Bools | None = np.zeros(batch.rows, dtype=np.bool_)
    for name, column in batch.columns.items():
        named = name in NAMED
        if column.present is None:
            filled = None
        elif filled is not None:
            filled |= column.present
        low, high = float(column.values.min()), float(column.values.max())
        if (low >= 0.0 and high <= 1.0) if named else (math.isfinite(low) and math.isfinite(high)):
            continue
        fine = (column.values >= 0.0) & (column.values <= 1.0) if named else np.isfinite(column.values)
        wrong = ~fine if column.present is None else ~fine & column.present
        bad.append((name, column.values, wrong, "must be a number from 0 to 1" if named else "must be a finite number"))
    if filled is not None and not filled.all():
        bad.append(("metrics", np.zeros(batch.rows), ~filled, "must hold at least one number"))
    if batch.texts:
        lengths = _text_bytes(batch)
        wrong = lengths > MAX_EXTRAS_BYTES
        if wrong.any():
            bad.append(("extras", lengths, wrong, f"must have at most {MAX_EXTRAS_BYTES} bytes"))
    if not bad:
        return Verdict(None, 0, [])
    return _verdict(batch.rows, skip, bad)


def rows_of(batch: Batch, number: int, ok: Bools | None, skip: int) -> Any:
    """Give what indexes the rows of the version `number`, of those that count: None (all), a slice, or numbers."""
    if batch.which is None and ok is None:
        return slice(skip, None) if skip else None
    chosen = np.ones(batch.rows, dtype=np.bool_) if ok is None else ok.copy()
    chosen[:skip] = False
    if batch.which is not None:
        chosen &= batch.which == number
    return np.flatnonzero(chosen)


def values_of(batch: Batch, metric: str, version: str, ok: Bools | None, skip: int) -> Floats:
    """Give the values of one metric of one version, of the rows that count."""
    column = batch.columns.get(metric)
    if column is None or version not in batch.versions:
        return np.empty(0)
    rows = rows_of(batch, batch.versions.index(version), ok, skip)
    rows = slice(None) if rows is None else rows
    return column.values[rows] if column.present is None else column.values[rows][column.present[rows]]


def batch_of_columns(metrics: Mapping[str, Any], *, version: str, timestamps: Any, now_s: float) -> Batch:
    """Make a batch of one version from arrays of equal length: float64[n] each; ValueError names the column and the rule.

    `timestamps` is float64[n], one number for all rows, or None for `now_s`.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"metrics must be a mapping of names to columns, at least one, got {shown(metrics)!r}")
    columns = {}
    rows = -1
    for name, values in metrics.items():
        rule = metric_rule(name)
        if rule is not None:
            raise ValueError(f"metric name {rule}, got {shown(name)!r}")
        array = _as_column(str(name), values)
        if rows not in {-1, len(array)}:
            raise ValueError(f"{name} must have as many rows as the other columns, {rows}, got {len(array)}")
        rows = len(array)
        columns[str(name)] = Column(array)
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"metrics must hold at most {MAX_COLUMNS} columns, got {len(columns)}")
    if timestamps is None or isinstance(timestamps, int | float | np.number):
        times = np.full(rows, now_s if timestamps is None else float(timestamps))
    else:
        times = _as_column("timestamps", timestamps)
        if len(times) != rows:
            raise ValueError(f"timestamps must have as many rows as the columns, {rows}, got {len(times)}")
    return Batch(rows, [check_version(version)], times, columns)


def batch_of_rows(rows: Sequence[Row]) -> Batch:
    """Make one batch of rows of one model, types already checked; it may be more than the wire takes (see `split_rows`)."""
    n = len(rows)
    names: dict[str, None] = {}
    for _, _, metrics in rows:
        names.update(dict.fromkeys(metrics))
    columns: dict[str, Column] = {}
    texts: dict[str, list[str | None]] = {}
    for name in names:
        cells = [metrics.get(name) for _, _, metrics in rows]
        kinds = set(map(type, cells))
        try:
            if any(issubclass(kind, str) for kind in kinds):  # numpy would read a number out of "0.9"
                _split(name, cells, columns, texts)
            else:
                columns[name] = Column(np.array(cells, dtype=np.float64)) if type(None) not in kinds else _sparse(cells)
        except OverflowError:  # an int beyond float64
            _split(name, cells, columns, texts)
    versions = list(dict.fromkeys(version for version, _, _ in rows))
    which = None
    if len(versions) > 1:
        number = {version: i for i, version in enumerate(versions)}
        which = np.fromiter((number[version] for version, _, _ in rows), dtype=np.uint16, count=n)
    times = np.fromiter((time for _, time, _ in rows), dtype=np.float64, count=n)
    return Batch(n, versions, times, columns, which, texts)


# --- raw events -------------------------------------------------------------------------------------------------


def sort_events(events: object, now_s: float, *, one_model: bool = False, known: Container[str] = ()) -> Sorted:
    """Check raw events one by one and sort them by model.

    A bad event is rejected alone. A bad envelope raises ValueError: no list, too many, too large. Where a rejected event names
    one of the `known` models, or one that has a good event in this call, it keeps its row, empty, and so is counted as
    rejected; no model begins with a bad event. With `one_model` (the caller numbers its events) all must be of one model, and
    every rejected event keeps its row, so that it consumes its number.
    """
    if not isinstance(events, list | tuple):
        raise ValueError(f"events must be a list of mappings, got {shown(events)!r}")  # noqa: TRY004  the wire's rule
    if len(events) > MAX_EVENTS:
        raise ValueError(f"events must be at most {MAX_EVENTS} in one call, got {len(events)}")
    rows: dict[str, dict[int, Row]] = {}
    rejected: list[Rejection] = []
    total_bytes = 0
    for index, event in enumerate(events):
        try:
            (model, version, time, metrics), size = _row_of_event(event, now_s)
        except _BadEventError as bad:
            rejected.append({"index": index, "field": bad.field, "value": shown(bad.value), "rule": bad.rule})
            size = bad.size
        else:
            rows.setdefault(model, {})[index] = (version, time, metrics)
        total_bytes += size
        if total_bytes > MAX_CALL_BYTES:
            raise ValueError(f"events must have at most {MAX_CALL_BYTES} bytes in one call, got more")
    named = [event.get("model_name") if isinstance(event, Mapping) else None for event in events]
    names = {name for name in named if _is_model(name)}
    if one_model and events and len(names) != 1:
        raise ValueError(f"events of a call with a sequence must be of one model, got {len(names)}")
    for index in (rejection["index"] for rejection in rejected):
        name = next(iter(names)) if one_model else named[index]
        if _is_model(name) and (one_model or name in rows or name in known):
            rows.setdefault(name, {})[index] = (UNVERSIONED, now_s, {})
    indices = {model: sorted(found) for model, found in rows.items()}
    return Sorted({model: [found[index] for index in indices[model]] for model, found in rows.items()}, indices, rejected)


def check_sequence(producer: object, sequence: object) -> None:
    """Raise ValueError unless both are given, or neither."""
    if producer is None and sequence is None:
        return
    rule = _text_rule(producer)
    if rule is not None:
        raise ValueError(f"producer {rule} where a sequence is given, got {shown(producer)!r}")
    if isinstance(sequence, bool) or not isinstance(sequence, int | np.integer) or not 0 <= int(sequence) < 2**62:
        raise ValueError(f"sequence must be a whole number >= 0, got {shown(sequence)!r}")


def told_rejection(told: object) -> Rejection | None:
    """Read why a sender has emptied rows; None where it says nothing that can be read."""
    if not isinstance(told, Mapping) or not isinstance(told.get("rule"), str):
        return None
    return {
        "index": 0,
        "field": str(told.get("field"))[:MAX_NAME],
        "value": shown(told.get("value")),
        "rule": told["rule"][:500],
    }


class _BadEventError(Exception):
    def __init__(self, field: str, value: object, rule: str, size: int = 0) -> None:
        super().__init__(field)
        self.field, self.value, self.rule, self.size = field, value, rule, size


def _row_of_event(event: object, now_s: float) -> tuple[tuple[str, str, float, dict[str, Any]], int]:  # noqa: C901  one check a field
    if not isinstance(event, Mapping):
        raise _BadEventError("event", event, "must be a mapping", len(event) if isinstance(event, str | bytes) else 0)
    size = sum(len(value) for value in event.values() if isinstance(value, str | bytes | list | tuple))
    for key in event:
        if key not in FIELDS:
            raise _BadEventError(
                str(shown(key)), event[key], "is not a field of an event; an own number goes into extras", size
            )
    model, version = event.get("model_name"), event.get("model_version", UNVERSIONED)
    rule = _model_rule(model)
    if rule is not None:
        raise _BadEventError("model_name", model, rule, size)
    rule = _text_rule(version)
    if rule is not None:
        raise _BadEventError("model_version", version, rule, size)
    time = event.get("timestamp")
    if time is None:
        time = now_s
    elif not is_number(time) or not 0.0 <= float(time) <= now_s + AHEAD_S:
        raise _BadEventError("timestamp", time, "must be seconds since the epoch, not in the future", size)
    metrics: dict[str, Any] = {}
    for name in NAMED:
        value = event.get(name)
        if value is None:
            continue
        if not is_number(value) or not 0.0 <= float(value) <= 1.0:
            raise _BadEventError(name, value, "must be a number from 0 to 1", size)
        metrics[name] = value
    extras = event.get("extras")
    if extras is not None:
        size += _take_extras(extras, metrics, size)
    if not any(not isinstance(value, str) for value in metrics.values()):
        raise _BadEventError("metrics", None, "must hold at least one number", size)
    return (str(model), str(version), float(time), metrics), size


def _take_extras(extras: object, metrics: dict[str, Any], size: int) -> int:  # noqa: C901  one check a rule
    if not isinstance(extras, Mapping):
        raise _BadEventError("extras", extras, "must be a mapping of names to numbers and texts", size)
    used = 0
    for name, value in extras.items():
        rule = metric_rule(name) if name not in NAMED else "must not be the name of a field"
        if rule is not None:
            raise _BadEventError("extras", name, f"a name in extras {rule}", size + used)
        used += len(name) + 9
        if value is None:
            continue
        if isinstance(value, str):
            try:
                used += len(value.encode())
            except UnicodeEncodeError:
                raise _BadEventError(f"extras.{name}", value[:0], "must be encodable as UTF-8", size + used) from None
        elif not is_number(value):
            used += len(value) if isinstance(value, bytes | list | tuple | dict) else 0
            raise _BadEventError(f"extras.{name}", value, "must be a number or a text, not nested", size + used)
        elif not _finite(value):
            raise _BadEventError(f"extras.{name}", value, "must be a finite number", size + used)
        metrics[name] = value
    if used > MAX_EXTRAS_BYTES:
        raise _BadEventError("extras", extras, f"must have at most {MAX_EXTRAS_BYTES} bytes", size + used)
    if len(metrics) > MAX_COLUMNS:
        raise _BadEventError("extras", extras, f"must hold at most {MAX_COLUMNS - len(NAMED)} names", size + used)
    return used


def is_number(value: object) -> bool:
    """Tell whether the value counts as a number: int, float or a numpy scalar of them; no bool."""
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool) and _converts(value)


def _converts(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _finite(value: Any) -> bool:
    return math.isfinite(float(value))


def _is_model(name: object) -> TypeGuard[str]:
    return _model_rule(name) is None


# --- columns ----------------------------------------------------------------------------------------------------


def _pack_values(values: Floats, rows: int) -> bytes:
    # A batch logged without timestamps has one for all rows; the strict comparison keeps a -0.0 and a NaN as they are.
    if rows > 1 and values[0] == values[-1] and values[0] != 0.0 and bool((values == values[0]).all()):
        values = values[:1]
    return values.astype("<f8", copy=False).tobytes()


def _pack_column(column: Column, rows: int) -> bytes | list[bytes]:
    values = _pack_values(column.values, rows)
    return values if column.present is None else [values, np.packbits(column.present).tobytes()]


def _values(name: str, packed: object, rows: int) -> Floats:
    if not isinstance(packed, bytes) or len(packed) not in {8 * rows, 8}:
        raise ValueError(f"payload {name} must be {8 * rows} bytes of float64, got {shown(packed)!r}")
    values = np.frombuffer(packed, dtype="<f8")
    return values if len(values) == rows else np.full(rows, values[0])


def _column(name: str, packed: object, rows: int) -> Column:
    if not isinstance(packed, list):
        return Column(_values(name, packed, rows))
    if len(packed) != 2 or not isinstance(packed[1], bytes) or len(packed[1]) != (rows + 7) // 8:
        raise ValueError(f"payload {name} must be bytes or a pair of bytes and a mask of {rows} bits, got {shown(packed)!r}")
    present = np.unpackbits(np.frombuffer(packed[1], dtype=np.uint8), count=rows).astype(np.bool_)
    return Column(_values(name, packed[0], rows), present)


def _versions(versions: object) -> list[str]:
    if not isinstance(versions, list) or not 1 <= len(versions) <= MAX_VERSIONS:
        raise ValueError(f"payload versions must be a list of 1 to {MAX_VERSIONS} texts, got {shown(versions)!r}")
    return [check_version(version) for version in versions]


def _which(packed: object, rows: int, versions: int) -> npt.NDArray[np.uint16] | None:
    if packed is None:
        if versions != 1:
            raise ValueError(f"payload which must say the version of each row where there are {versions}, got None")
        return None
    if not isinstance(packed, bytes) or len(packed) != 2 * rows:
        raise ValueError(f"payload which must be {2 * rows} bytes of uint16, got {shown(packed)!r}")
    which = np.frombuffer(packed, dtype="<u2")
    if int(which.max()) >= versions:
        raise ValueError(f"payload which must be below {versions}, the number of versions, got {int(which.max())}")
    return which


def _texts(texts: object, rows: int) -> dict[str, list[str | None]]:
    if not isinstance(texts, dict) or len(texts) > MAX_COLUMNS:
        raise ValueError(f"payload texts must be a map of at most {MAX_COLUMNS} lists, got {shown(texts)!r}")
    _check_names(texts)
    for name, cells in texts.items():
        if not isinstance(cells, list) or len(cells) != rows or not all(c is None or isinstance(c, str) for c in cells):
            raise ValueError(f"payload {name} must be a list of {rows} texts or nil, got {shown(cells)!r}")
    return texts


def _check_names(columns: Iterable[object]) -> None:
    for name in columns:
        rule = metric_rule(name)
        if rule is not None:
            raise ValueError(f"payload column name {rule}, got {shown(name)!r}")


def _is_narrow(rows: Sequence[Row]) -> bool:
    """Tell whether one batch can hold the rows: an upper bound, before anything is built."""
    names: set[str] = set()
    for _, _, metrics in rows:
        if not metrics.keys() <= names:
            names.update(metrics)
    columns = len(names)
    return (
        columns <= MAX_COLUMNS
        and len({version for version, _, _ in rows}) <= MAX_VERSIONS
        and len(rows) * (8 * columns + 10) <= _PART_BYTES
        and len(rows) * 2 * columns <= MAX_CELLS  # a name may have numbers in one row and texts in another
    )


def _packed_if_it_fits(rows: Sequence[Row]) -> Packed | None:
    if not _is_narrow(rows):
        return None
    try:
        payload = pack(batch_of_rows(rows))
    except UnicodeEncodeError:
        return None
    return Packed(len(rows), payload) if len(payload) <= MAX_CALL_BYTES else None


def _emptied(row: Row) -> Packed:
    version, time, metrics = row
    found: Rejection = {
        "index": 0,
        "field": "metrics",
        "value": len(metrics),
        "rule": f"must be at most {MAX_COLUMNS} names and {MAX_CALL_BYTES} bytes",
    }
    for name, value in metrics.items():
        if isinstance(value, str) and _text_problem(value) is not None:
            found = {"index": 0, "field": str(shown(name)), "value": ascii(value[:20]), "rule": str(_text_problem(value))}
            break
    return Packed(1, pack(batch_of_rows([(version, time, {})])), found)


def _text_problem(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be encodable as UTF-8"
    return None if len(value) <= MAX_EXTRAS_BYTES else f"must have at most {MAX_EXTRAS_BYTES} bytes"


def _cut(batch: Batch, start: int, end: int) -> Batch:
    columns = {name: Column(column.values[start:end]) for name, column in batch.columns.items()}
    times = batch.times[start:end]
    return Batch(len(times), batch.versions, times, columns)


def _text_bytes(batch: Batch) -> Floats:
    lengths = np.zeros(batch.rows)
    for name, column in batch.columns.items():
        if name not in NAMED:
            lengths += float(len(name) + 9) if column.present is None else (len(name) + 9.0) * column.present
    for name, cells in batch.texts.items():
        lengths += np.fromiter(
            (0 if cell is None else len(name) + len(cell.encode("utf-8", "surrogatepass")) for cell in cells),
            np.float64,
            batch.rows,
        )
    return lengths


def _verdict(rows: int, skip: int, bad: list[tuple[str, Floats, Bools, str]]) -> Verdict:
    ok = np.ones(rows, dtype=np.bool_)
    listed: list[Rejection] = []
    for name, values, wrong, rule in bad:
        new = np.flatnonzero(wrong & ok)
        ok &= ~wrong
        for row in new[new >= skip][: MAX_LISTED - len(listed)].tolist():
            value = None if name == "metrics" else float(values[row])
            listed.append({"index": row, "field": name, "value": value, "rule": rule})
    listed.sort(key=lambda rejection: rejection["index"])
    return Verdict(ok, int((~ok[skip:]).sum()), listed)


def _as_column(name: str, values: Any) -> Floats:
    if isinstance(values, str | bytes):
        raise ValueError(f"{name} must be a column of numbers, got a text")  # noqa: TRY004  the wire's rule
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be a column of numbers: {error}") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be a column of numbers, got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got {array.ndim}")
    if not 1 <= len(array) <= MAX_ROWS:
        raise ValueError(f"{name} must have 1 to {MAX_ROWS} rows, got {len(array)}")
    return np.array(array, dtype=np.float64)  # a copy: the caller may go on to use its array


def _sparse(cells: list[Any]) -> Column:
    present = np.fromiter((cell is not None for cell in cells), np.bool_, len(cells))
    return Column(np.array([0.0 if cell is None else cell for cell in cells], dtype=np.float64), present)


def _split(name: str, cells: list[Any], columns: dict[str, Column], texts: dict[str, list[str | None]]) -> None:
    """Store cells that are numbers here and texts there; an int that no float64 holds becomes infinite, and is rejected."""
    numbers = [None if isinstance(cell, str) else cell for cell in cells]
    if any(cell is not None for cell in numbers):
        columns[name] = _sparse([cell if cell is None or _converts(cell) else math.inf for cell in numbers])
        if columns[name].present is not None and bool(columns[name].present.all()):  # type: ignore[union-attr]
            columns[name] = Column(columns[name].values)
    if any(isinstance(cell, str) for cell in cells):
        texts[name] = [cell if isinstance(cell, str) else None for cell in cells]

"""The packed batch: its shape, how it is encoded and decoded, and which of its rows count.

A job whose environment lacks this package copies these three lines and calls with plain values, by keyword:

    import ray
    broadcaster = ray.get_actor("broadcaster", namespace="visutility")
    ray.get(broadcaster.broadcast.remote(events=[{"model_name": "fraud", "model_version": "7", "accuracy": 0.91}]))

A packed batch is a msgpack map: `v` (schema), `n` (rows), `versions` (texts), `which` (uint16[n]: the version of each row; left
out where there is one version), `time` and `columns` (name -> column), `texts` (name -> list of text or nil), and in schema 2
`weights` (a column: the predictions behind each event). A column is float64[n], little-endian; or 8 bytes, one value for all
rows; or a pair of such bytes and a bit mask of the rows that have it (bits packed, the first row is the highest bit). So a NaN
in a row that has the column is a bad value, not an absent one. A batch holds the events of one model, in the order of their
sequence numbers. A batch without weights is written as schema 1, which builds before schema 2 read too.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeGuard

import msgpack
import numpy as np
import numpy.typing as npt

from actors import columns as reading
from actors import replies
from actors.checks import shown, stand_in

Floats = npt.NDArray[np.float64]
Rejection = replies.Rejection
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Payload = bytes | memoryview  # a packed batch
# Version, time, metrics (numbers, texts, None for absent), n (predictions behind the event, None for absent).
Row = tuple[str, float, Mapping[str, Any], float | None]

SCHEMA: Final = 2  # the newest that this build reads; it reads all before
NAMED: Final = ("accuracy", "precision", "recall")
UNVERSIONED: Final = "unversioned"
FIELDS: Final = frozenset({"model_name", "model_version", "timestamp", "extras", "n", *NAMED})
RESERVED: Final = FIELDS - {*NAMED, "n"}  # a metric of such a name would look like the field; `n` has a place of its own

MAX_CALL_BYTES: Final = 8 * 2**20  # one call: several times what is worth sending at once, and a bound on everybody's memory
MAX_ROWS: Final = 1_000_000
MAX_NAME: Final = 200
MAX_EXTRAS_BYTES: Final = 16 * 1024
MAX_COLUMNS: Final = 256
MAX_VERSIONS: Final = 1000
MAX_CELLS: Final = 4 * 2**20  # rows times columns of one batch: constants pack into 8 bytes and decode into 8 bytes a row
MAX_LISTED: Final = 1000  # rejections that a reply lists one by one; how many there are follows from the counts
MAX_WEIGHT: Final = 1e12
WEIGHT_RULE: Final = f"must be a number above 0, at most {MAX_WEIGHT:g}"
AHEAD_S: Final = 300.0  # a clock that is so far ahead is taken for right; a value beyond is in milliseconds or wrong

_ARRAY_BYTES: Final = 64 * 1024  # of a payload: about where one copy costs more than an array's own few microseconds


_Bad = tuple[str, Floats, Bools, str]  # field, values, the rows where it is wrong, rule
Rule = Callable[[object], str | None]  # says what is wrong with a name, None if nothing is

_KEYS: Final = {
    1: frozenset({"v", "n", "versions", "which", "time", "columns", "texts"}),
    2: frozenset({"v", "n", "versions", "which", "time", "columns", "texts", "weights"}),
}
_UNWANTED: Final = (  # categories of characters that no name may hold
    *((kind, "must not hold a control character") for kind in ("Cc", "Zl", "Zp")),
    ("Cs", "must be encodable as UTF-8"),
    ("Cf", "must not hold a character that cannot be seen (zero width, direction, format)"),
)
_RULES: Final = {True: "must be a number from 0 to 1", False: "must be a finite number"}  # whether it is one of NAMED


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
    weights: Column | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which rows count, and which of their values.

    `batch` is the batch without its bad values: a NaN or an infinity alongside a finite value is left out alone, and
    `bad_values` counts those of the rows that count. `ok: bool[n]` is None where all rows count; `listed` holds at most
    MAX_LISTED of those that do not, `bad_value` one of the values that were left out.
    """

    batch: Batch
    ok: Bools | None
    rejected: int
    listed: list[Rejection]
    bad_values: int = 0
    bad_value: Rejection | None = None


# --- names ------------------------------------------------------------------------------------------------------


def check_model(name: object) -> str:
    """Return the model's name, or raise ValueError naming the rule."""
    rule = model_rule(name)
    if rule is not None:
        raise ValueError(f"model_name {rule}, got {shown(name)}")
    return str(name)


def check_version(version: object) -> str:
    """Return the version, or raise ValueError naming the rule."""
    rule = text_rule(version)
    if rule is not None:
        raise ValueError(f"model_version {rule}, got {shown(version)}")
    return str(version)


def metric_rule(name: object) -> str | None:
    """Say what is wrong with a metric's name, None if nothing is."""
    if name in RESERVED:
        return "must not be the name of a field"
    return text_rule(name)


def text_rule(value: object) -> str | None:
    """Say what is wrong with a name, None if nothing is."""
    if not isinstance(value, str):
        return "must be a text"
    if not 1 <= len(value) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if value.isascii() and value.isprintable():
        return None
    kinds = set(map(unicodedata.category, value))
    return next((rule for bad, rule in _UNWANTED if bad in kinds), None)


def _stored_rule(value: object) -> str | None:
    """Say what is wrong with a name in the store, where names lie that earlier builds took."""
    return None if isinstance(value, str) and 1 <= len(value) <= MAX_NAME else f"must be a text of 1 to {MAX_NAME} characters"


def is_model(name: object) -> TypeGuard[str]:
    """Tell whether the name can be a model's."""
    return model_rule(name) is None


def model_rule(value: object) -> str | None:
    """Say what is wrong with a model's name, None if nothing is."""
    rule = text_rule(value)
    if rule is None and any(c in "*?[" for c in str(value)):
        return "must not hold one of * ? ["
    return rule


# --- packed batches ---------------------------------------------------------------------------------------------


def pack(batch: Batch) -> bytes:
    """Encode a batch that `unpack` would take."""
    message: dict[str, Any] = {
        "v": 1 if batch.weights is None else 2,
        "n": batch.rows,
        "versions": batch.versions,
        "time": _pack_values(batch.times, batch.rows),
        "columns": {name: _pack_column(column, batch.rows) for name, column in batch.columns.items()},
    }
    if batch.which is not None:
        message["which"] = batch.which.astype("<u2", copy=False).tobytes()
    if batch.texts:
        message["texts"] = dict(batch.texts)
    if batch.weights is not None:
        message["weights"] = _pack_column(batch.weights, batch.rows)
    return bytes(msgpack.packb(message))


def declared_rows(payload: object) -> int:
    """Say how many events a payload that was refused means to hold, as far as it can be read: 1 where it cannot."""
    try:
        rows = msgpack.unpackb(arrived(payload))["n"]
    except Exception:  # noqa: BLE001  it was refused for being anything at all
        return 1
    return rows if isinstance(rows, int) and 1 <= rows <= MAX_ROWS else 1


def for_travel(payload: bytes) -> bytes | npt.NDArray[np.uint8]:
    """Return a packed batch as it is sent: a large one as uint8[n], which Ray writes once and lets be read in its place."""
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


def unpack(payload: object, *, stored: bool = False) -> Batch:
    """Decode a batch; ValueError says what about the envelope is wrong. The values are not checked yet.

    `stored`: it comes from the log, which may hold names that today's rules refuse.
    """
    payload = arrived(payload)
    try:
        message = msgpack.unpackb(payload)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"payload must be a whole msgpack map, got {len(payload)} bytes that are not ({error})") from None
    if not isinstance(message, dict):
        raise ValueError(f"payload must be a msgpack map, got {type(message).__name__}")  # noqa: TRY004  the wire's rule
    schema = message.get("v")
    if type(schema) is not int or schema not in _KEYS:
        raise ValueError(
            f"payload v must be {' or '.join(map(str, _KEYS))}, a schema that this build knows, got {shown(schema)}"
        )
    unknown = message.keys() - _KEYS[schema]
    if unknown:
        raise ValueError(f"payload must hold no other key, got {shown(min(unknown, key=str))}")
    rows = message.get("n")
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"payload n must be a whole number from 1 to {MAX_ROWS}, got {shown(rows)}")
    rule = _stored_rule if stored else text_rule
    versions = _versions(message.get("versions"), rule)
    columns = message.get("columns")
    if not isinstance(columns, dict) or len(columns) > MAX_COLUMNS:
        raise ValueError(f"payload columns must be a map of at most {MAX_COLUMNS} columns, got {shown(columns)}")
    _check_names(columns, rule)
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
        texts=_texts(texts, rows, rule),
        weights=None if "weights" not in message else _column("weights", message["weights"], rows),
    )


def check(batch: Batch, now_s: float, skip: int = 0) -> Verdict:  # noqa: C901  a pass over the columns, one check each
    """Say which rows from `skip` on count at the time `now_s`; `index` of a rejection counts from the batch's first row.

    The same batch at the same time always gets the same verdict: a log is read again with the time it was received.
    """
    bad: list[_Bad] = []
    if not (float(batch.times.min()) >= 0.0 and float(batch.times.max()) <= now_s + AHEAD_S):
        with np.errstate(invalid="ignore"):
            wrong = ~((batch.times >= 0.0) & (batch.times <= now_s + AHEAD_S))
        bad.append(("timestamp", batch.times, wrong, "must be seconds since the epoch, not in the future"))
    if batch.weights is not None:
        bad += _bad_weights(batch.weights)
    dropped: list[_Bad] = []  # values that are left out alone
    filled: Bools | None = np.zeros(batch.rows, dtype=np.bool_)
    columns: dict[str, Column] | None = None
    for name, column in batch.columns.items():
        cleaned = _cleaned(name, column, bad, dropped)
        if cleaned is not column:
            columns = dict(batch.columns) if columns is None else columns
            columns[name] = cleaned
        if cleaned.present is None:
            filled = None
        elif filled is not None:
            filled |= cleaned.present
    if filled is not None and not filled.all():
        bad += [(name, values, wrong & ~filled, rule) for name, values, wrong, rule in dropped]
        bad.append(("metrics", np.zeros(batch.rows), ~filled, "must hold at least one number"))
    if batch.texts:
        lengths = _text_bytes(batch)
        wrong = lengths > MAX_EXTRAS_BYTES
        if wrong.any():
            bad.append(("extras", lengths, wrong, f"must have at most {MAX_EXTRAS_BYTES} bytes"))
    cleaned_batch = batch if columns is None else replace(batch, columns=columns)
    ok, listed = (None, []) if not bad else _listed(batch.rows, skip, bad)
    rejected = 0 if ok is None else int((~ok[skip:]).sum())
    if not dropped:
        return Verdict(cleaned_batch, ok, rejected, listed)
    counted = [(name, values, wrong if ok is None else wrong & ok, rule) for name, values, wrong, rule in dropped]
    bad_values = sum(int(wrong[skip:].sum()) for _, _, wrong, _ in counted)
    _, left_out = _listed(batch.rows, skip, counted, most=1)
    return Verdict(cleaned_batch, ok, rejected, listed, bad_values, left_out[0] if left_out else None)


def clamped(batch: Batch, now_s: float) -> tuple[Batch, float]:
    """Return a batch whose times its sender has stamped, none of them ahead of AHEAD_S, and by how many seconds one was."""
    latest = float(batch.times.max())
    if not latest > now_s + AHEAD_S:
        return batch, 0.0
    times = np.where(batch.times > now_s + AHEAD_S, now_s, batch.times)
    return replace(batch, times=times), latest - now_s


def recheck(payload: Payload, received_at: float, skip: int) -> Verdict:
    """Read a batch of the log again: the verdict that it got when it was received."""
    return check(unpack(payload, stored=True), received_at, skip)


def rows_of(batch: Batch, number: int, ok: Bools | None, skip: int) -> Any:
    """Return what indexes the rows of the version `number` that count: None (all), a slice, or numbers."""
    if batch.which is None and ok is None:
        return slice(skip, None) if skip else None
    chosen = np.ones(batch.rows, dtype=np.bool_) if ok is None else ok.copy()
    chosen[:skip] = False
    if batch.which is not None:
        chosen &= batch.which == number
    return np.flatnonzero(chosen)


def values_of(batch: Batch, metric: str, version: str, ok: Bools | None, skip: int) -> Floats:
    """Return the values of one metric of one version, of the rows that count."""
    column = batch.columns.get(metric)
    if column is None or version not in batch.versions:
        return np.empty(0)
    rows = rows_of(batch, batch.versions.index(version), ok, skip)
    rows = slice(None) if rows is None else rows
    return column.values[rows] if column.present is None else column.values[rows][column.present[rows]]


def batch_of_columns(
    metrics: Mapping[str, Any], *, version: str, timestamps: Any, now_s: float, n: Any = None, least: int = 1
) -> Batch:
    """Make a batch of one version from columns of equal length, of any library; ValueError names the column and the rule.

    `timestamps` is a column, one time for all rows, or None for `now_s`; `n` a column, one number for all rows, or None;
    `least` the fewest rows that it may have.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"metrics must be a mapping of names to columns, at least one, got {shown(metrics)}")
    check_version(version)
    columns = {}
    rows = -1
    for name, values in metrics.items():
        rule = metric_rule(name)
        if rule is not None:
            raise ValueError(f"metric name {rule}, got {shown(name)}")
        array, present = reading.column(str(name), values)
        if rows not in {-1, len(array)}:
            raise ValueError(f"{name} must have as many rows as the other columns, {rows}, got {len(array)}")
        rows = len(array)
        columns[str(name)] = Column(array, present)
    if not least <= rows <= MAX_ROWS:
        raise ValueError(f"{next(iter(metrics))} must have {least} to {MAX_ROWS} rows, got {rows}")
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"metrics must hold at most {MAX_COLUMNS} columns, got {len(columns)}")
    times, weights = _times_of(timestamps, rows, now_s), None if n is None else _weights_of(n, rows)
    return Batch(rows, [version], times, columns, weights=weights)


def batch_of_rows(rows: Sequence[Row]) -> Batch:
    """Make one batch of rows of one model, types already checked; it may be more than the wire takes (see `split_rows`)."""
    n = len(rows)
    names: dict[str, None] = {}
    for _, _, metrics, _ in rows:
        names.update(dict.fromkeys(metrics))
    columns: dict[str, Column] = {}
    texts: dict[str, list[str | None]] = {}
    for name in names:
        cells = [metrics.get(name) for _, _, metrics, _ in rows]
        kinds = set(map(type, cells))
        try:
            if any(issubclass(kind, str) for kind in kinds):  # numpy would read a number out of "0.9"
                _split(name, cells, columns, texts)
            else:
                columns[name] = Column(np.array(cells, dtype=np.float64)) if type(None) not in kinds else _sparse(cells)
        except OverflowError:  # an int beyond float64
            _split(name, cells, columns, texts)
    versions = list(dict.fromkeys(row[0] for row in rows))
    which = None
    if len(versions) > 1:
        number = {version: i for i, version in enumerate(versions)}
        which = np.fromiter((number[row[0]] for row in rows), dtype=np.uint16, count=n)
    times = np.fromiter((row[1] for row in rows), dtype=np.float64, count=n)
    weights = [row[3] for row in rows]
    sparse = None if weights.count(None) == n else _sparse(weights)
    return Batch(n, versions, times, columns, which, texts, sparse)


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
        raise ValueError(f"payload {name} must be {8 * rows} bytes of float64, got {shown(packed)}")
    values = np.frombuffer(packed, dtype="<f8")
    return values if len(values) == rows else np.full(rows, values[0])


def _column(name: str, packed: object, rows: int) -> Column:
    if not isinstance(packed, list):
        return Column(_values(name, packed, rows))
    if len(packed) != 2 or not isinstance(packed[1], bytes) or len(packed[1]) != (rows + 7) // 8:
        raise ValueError(f"payload {name} must be bytes or a pair of bytes and a mask of {rows} bits, got {shown(packed)}")
    present = np.unpackbits(np.frombuffer(packed[1], dtype=np.uint8), count=rows).astype(np.bool_)
    return Column(_values(name, packed[0], rows), present)


def _versions(versions: object, rule: Rule) -> list[str]:
    if not isinstance(versions, list) or not 1 <= len(versions) <= MAX_VERSIONS:
        raise ValueError(f"payload versions must be a list of 1 to {MAX_VERSIONS} texts, got {shown(versions)}")
    for version in versions:
        broken = rule(version)
        if broken is not None:
            raise ValueError(f"model_version {broken}, got {shown(version)}")
    return versions


def _which(packed: object, rows: int, versions: int) -> npt.NDArray[np.uint16] | None:
    if packed is None:
        if versions != 1:
            raise ValueError(f"payload which must say the version of each row where there are {versions}, got None")
        return None
    if not isinstance(packed, bytes) or len(packed) != 2 * rows:
        raise ValueError(f"payload which must be {2 * rows} bytes of uint16, got {shown(packed)}")
    which = np.frombuffer(packed, dtype="<u2")
    if int(which.max()) >= versions:
        raise ValueError(f"payload which must be below {versions}, the number of versions, got {int(which.max())}")
    return which


def _texts(texts: object, rows: int, rule: Rule) -> dict[str, list[str | None]]:
    if not isinstance(texts, dict) or len(texts) > MAX_COLUMNS:
        raise ValueError(f"payload texts must be a map of at most {MAX_COLUMNS} lists, got {shown(texts)}")
    _check_names(texts, rule)
    for name, cells in texts.items():
        if not isinstance(cells, list) or len(cells) != rows or not all(c is None or isinstance(c, str) for c in cells):
            raise ValueError(f"payload {name} must be a list of {rows} texts or nil, got {shown(cells)}")
    return texts


def _check_names(columns: Iterable[object], rule: Rule) -> None:
    for name in columns:
        broken = "must not be the name of a field" if name in RESERVED else rule(name)
        if broken is not None:
            raise ValueError(f"payload column name {broken}, got {shown(name)}")


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


def _cleaned(name: str, column: Column, bad: list[_Bad], dropped: list[_Bad]) -> Column:
    """Return the column without what is no finite number; note in `dropped` what that is, in `bad` what is out of range."""
    named = name in NAMED
    low, high = float(column.values.min()), float(column.values.max())
    if (low >= 0.0 and high <= 1.0) if named else (math.isfinite(low) and math.isfinite(high)):
        return column
    finite = np.isfinite(column.values)
    if named:
        wrong = finite & ~((column.values >= 0.0) & (column.values <= 1.0))
        wrong = wrong if column.present is None else wrong & column.present
        if wrong.any():
            bad.append((name, column.values, wrong, _RULES[named]))
    lost = ~finite if column.present is None else ~finite & column.present
    if not lost.any():
        return column
    dropped.append((name, column.values, lost, _RULES[named]))
    return Column(column.values, finite if column.present is None else finite & column.present)


def _bad_weights(weights: Column) -> list[_Bad]:
    low, high = float(weights.values.min()), float(weights.values.max())
    if weights.present is None and low > 0.0 and high <= MAX_WEIGHT:
        return []
    wrong = ~((weights.values > 0.0) & (weights.values <= MAX_WEIGHT))
    wrong = wrong if weights.present is None else wrong & weights.present
    return [("n", weights.values, wrong, WEIGHT_RULE)] if wrong.any() else []


def _listed(rows: int, skip: int, bad: list[_Bad], most: int = MAX_LISTED) -> tuple[Bools, list[Rejection]]:
    """Return which rows have nothing bad, and a rejection for each of the others from `skip` on, at most `most`."""
    ok = np.ones(rows, dtype=np.bool_)
    listed: list[Rejection] = []
    for name, values, wrong, rule in bad:
        new = np.flatnonzero(wrong & ok)
        ok &= ~wrong
        for row in new[new >= skip][: most - len(listed)].tolist():
            value = None if name == "metrics" else stand_in(float(values[row]))
            listed.append({"index": row, "field": name, "value": value, "rule": rule})
    listed.sort(key=lambda rejection: rejection["index"])
    return ok, listed


def _times_of(timestamps: Any, rows: int, now_s: float) -> Floats:
    one = now_s if timestamps is None else reading.seconds(timestamps)
    if one is not None:
        return np.full(rows, one)
    times = reading.times("timestamps", timestamps)
    if len(times) != rows:
        raise ValueError(f"timestamps must have as many rows as the columns, {rows}, got {len(times)}")
    return times


def _weights_of(n: Any, rows: int) -> Column:
    one = reading.number(n)
    if one is not None:
        return Column(np.full(rows, float(one)))
    values, present = reading.column("n", n)
    if len(values) != rows:
        raise ValueError(f"n must have as many rows as the columns, {rows}, got {len(values)}")
    return Column(values, present)


def _sparse(cells: Sequence[Any]) -> Column:
    present = np.fromiter((cell is not None for cell in cells), np.bool_, len(cells))
    values = np.array([0.0 if cell is None else cell for cell in cells], dtype=np.float64)
    return Column(values, None if present.all() else present)


def _converts(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _split(name: str, cells: list[Any], columns: dict[str, Column], texts: dict[str, list[str | None]]) -> None:
    """Store cells that are numbers here and texts there; an int that no float64 holds becomes infinite, and is rejected."""
    numbers = [None if isinstance(cell, str) else cell for cell in cells]
    if any(cell is not None for cell in numbers):
        columns[name] = _sparse([cell if cell is None or _converts(cell) else math.inf for cell in numbers])
    if any(isinstance(cell, str) for cell in cells):
        texts[name] = [cell if isinstance(cell, str) else None for cell in cells]

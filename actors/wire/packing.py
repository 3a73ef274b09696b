"""Encodes and decodes a batch. Refuses a bad envelope; other modules check the values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgpack
import numpy as np
import numpy.typing as npt

from actors.checks import shown
from actors.plain import Json
from actors.wire.batch import MAX_CELLS, MAX_COLUMNS, MAX_ROWS, MAX_VERSIONS, Batch, Column, Floats, Payload
from actors.wire.names import RESERVED, Rule, stored_rule, text_rule

SCHEMA: Final = 2  # the newest that this build reads; it reads all before
MAX_CALL_BYTES: Final = 8 * 2**20  # one call: several times what is worth sending at once, and a bound on everybody's memory
_ARRAY_BYTES: Final = 64 * 1024  # of a payload: about where one copy costs more than an array's own few microseconds
_KEYS: Final = {
    1: frozenset({"v", "n", "versions", "which", "time", "columns", "texts"}),
    2: frozenset({"v", "n", "versions", "which", "time", "columns", "texts", "weights"}),
}


def pack(batch: Batch) -> bytes:
    """Encode a batch that `unpack` would take."""
    message: Json = {
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
        raise ValueError(f"payload must be bytes, got {type(payload).__name__}")
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
        raise ValueError(f"payload must be a msgpack map, got {type(message).__name__}")
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
    rule = stored_rule if stored else text_rule
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

"""Sealing: events become packed batches that every limit of the wire allows, each event once and in its order.

The one place that splits: columns, versions, bytes, and rows times columns. Whatever `log` has accepted fits, or is emptied so
that it is rejected alone and counted on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from actors import wire
from actors.checks import stand_in
from actors.wire import Batch, Column, Rejection, Row

PART_BYTES: Final = wire.MAX_CALL_BYTES // 2  # the aim where a batch is split; names and texts have the other half
PART_ROWS: Final = 100_000  # where columns are split: a column of a part is 800 KB at most


class Packed(NamedTuple):
    """A batch that every limit of the wire allows. `emptied` says why its only row was emptied, so that it will be rejected."""

    rows: int
    payload: bytes
    emptied: Rejection | None = None
    has_weights: bool = False
    is_stamped: bool = False  # this process has stamped the times of all its events


def packed_rows(rows: Sequence[Row]) -> list[Packed]:
    """Pack rows of one model, in their order, into as few batches as halving gives that fit the wire.

    A row that no batch can carry (a text that UTF-8 cannot encode, or a row that is too large) is emptied and packed alone: it
    keeps its number, and the detector rejects it.
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
    columns = len(batch.columns) + (batch.weights is not None)
    most = min(PART_ROWS, PART_BYTES // (8 * columns + 8), wire.MAX_CELLS // max(columns, 1))
    for start in range(0, batch.rows, most):
        part = batch if batch.rows <= most else _cut(batch, start, start + most)
        yield Packed(part.rows, wire.pack(part), has_weights=part.weights is not None)


def split_rows(rows: Sequence[Row]) -> Iterator[Batch]:
    """Make batches of rows, in their order, each with no more columns, versions and cells than the wire takes."""
    waiting = [rows] if rows else []
    while waiting:
        part = waiting.pop()
        if len(part) == 1 or _is_narrow(part):
            yield wire.batch_of_rows(part)
        else:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]


def without_weights(payload: bytes) -> bytes:
    """Return the batch as a build that does not know weights reads it."""
    return wire.pack(replace(wire.unpack(payload), weights=None))


def _is_narrow(rows: Sequence[Row]) -> bool:
    """Return whether one batch can hold the rows: an upper bound, before anything is built."""
    names: set[str] = set()
    for _, _, metrics, _ in rows:
        if not metrics.keys() <= names:
            names.update(metrics)
    columns = len(names)
    return (
        columns <= wire.MAX_COLUMNS
        and len({row[0] for row in rows}) <= wire.MAX_VERSIONS
        and len(rows) * (8 * columns + 18) <= PART_BYTES
        and len(rows) * 2 * columns <= wire.MAX_CELLS  # a name may have numbers in one row and texts in another
    )


def _packed_if_it_fits(rows: Sequence[Row]) -> Packed | None:
    if not _is_narrow(rows):
        return None
    try:
        batch = wire.batch_of_rows(rows)
        payload = wire.pack(batch)
    except (ValueError, TypeError, OverflowError):  # a row that cannot be packed: halving finds it
        return None
    if len(payload) > wire.MAX_CALL_BYTES:
        return None
    return Packed(len(rows), payload, has_weights=batch.weights is not None)


def _emptied(row: Row) -> Packed:
    version, time, metrics, n = row
    found: Rejection = {
        "index": 0,
        "field": "metrics",
        "value": len(metrics),
        "rule": f"must be at most {wire.MAX_COLUMNS} names and {wire.MAX_CALL_BYTES} bytes",
    }
    for name, value in metrics.items():
        if isinstance(value, str) and _text_problem(value) is not None:
            found = {"index": 0, "field": name, "value": ascii(value[:20]), "rule": str(_text_problem(value))}
            break
    if n is not None and not 0.0 < n <= wire.MAX_WEIGHT:
        found = {"index": 0, "field": "n", "value": stand_in(n), "rule": wire.WEIGHT_RULE}
    return Packed(1, wire.pack(wire.batch_of_rows([(version, time, {}, None)])), found)


def _text_problem(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be encodable as UTF-8"
    return None if len(value) <= wire.MAX_EXTRAS_BYTES else f"must have at most {wire.MAX_EXTRAS_BYTES} bytes"


def _cut(batch: Batch, start: int, end: int) -> Batch:
    columns = {name: _part(column, start, end) for name, column in batch.columns.items()}
    times = batch.times[start:end]
    weights = None if batch.weights is None else _part(batch.weights, start, end)
    return Batch(len(times), batch.versions, times, columns, weights=weights)


def _part(column: Column, start: int, end: int) -> Column:
    return Column(column.values[start:end], None if column.present is None else column.present[start:end])

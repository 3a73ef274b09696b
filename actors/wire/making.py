"""Makes batches: from a caller's columns of any library, and from rows with checked types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors import columns as reading
from actors.checks import shown
from actors.wire.batch import MAX_COLUMNS, MAX_ROWS, Batch, Column, Floats, Row
from actors.wire.names import check_version, metric_rule


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

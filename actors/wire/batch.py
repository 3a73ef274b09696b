"""The batch: events of one model in columns, its limits, and the rows of each version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Payload = bytes | memoryview  # a packed batch
Row = tuple[str, float, Mapping[str, Any], float | None]
MAX_ROWS: Final = 1_000_000
MAX_COLUMNS: Final = 256
MAX_VERSIONS: Final = 1000
MAX_CELLS: Final = 4 * 2**20  # rows times columns of one batch: constants pack into 8 bytes and decode into 8 bytes a row


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

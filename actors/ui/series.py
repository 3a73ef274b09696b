"""A model's metrics over time as a page draws them: a point for each batch and metric, from the log of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection
from typing_extensions import TypedDict

from actors import wire
from actors.detection import stored
from actors.detection.logged import Logged, newest_logged, newest_of_each
from actors.detection.tables import UNREADABLE

MAX_POINTS: Final = 4000
_SPARK: Final = 24


class Points(TypedDict):
    """One metric: event time (seconds), the mean of so many rows up to it, and their version, in the order of the log."""

    times: list[float]
    values: list[float]
    versions: list[str]
    rows: list[int]


class Series(TypedDict):
    """The metrics of a model by name, and how many batches they are read from."""

    metrics: dict[str, Points]
    batches: int


def read(connection: Connection, model: str, batches: int) -> Series | None:
    """Return the newest `batches` of a model's log as points; None where this part does not know the model."""
    if model not in stored.read_status(connection, model):
        return None
    rows = newest_logged(connection, model, batches)
    metrics: dict[str, Points] = {}
    # A batch is drawn as up to so many points, each the mean of neighbours: as many as the eye can tell apart.
    pieces = max(1, MAX_POINTS // max(1, len(rows)))
    for row in rows:
        with contextlib.suppress(*UNREADABLE):
            _add(metrics, row, pieces)
    return {"metrics": metrics, "batches": len(rows)}


def sparks(connection: Connection, models: Sequence[str]) -> dict[str, list[float]]:
    """Return the newest values of the first metric of each of these models, oldest first."""
    found: dict[str, list[float]] = {}
    for model, rows in newest_of_each(connection, models, _SPARK).items():
        metrics: dict[str, Points] = {}
        for row in rows:
            with contextlib.suppress(*UNREADABLE):
                _add(metrics, row, 1 if len(rows) > _SPARK // 2 else _SPARK // len(rows))
        if metrics:
            found[model] = next(iter(metrics.values()))["values"][-_SPARK:]
    return found


def _add(metrics: dict[str, Points], row: Logged, pieces: int) -> None:
    batch = wire.unpack(row.payload, stored=True)
    for version in batch.versions:
        number = batch.versions.index(version)
        chosen = wire.rows_of(batch, number, None, row.skip)
        times = batch.times if chosen is None else batch.times[chosen]
        for metric in batch.columns:
            values = wire.values_of(batch, metric, version, None, row.skip)
            if not len(values) or not len(times):
                continue
            points = metrics.setdefault(metric, {"times": [], "values": [], "versions": [], "rows": []})
            step = max(1, -(-len(values) // pieces))
            for at in range(0, len(values), step):
                mean = float(values[at : at + step].mean())
                if mean == mean and abs(mean) != float("inf"):  # noqa: PLR0124  NaN is the only value that differs from itself
                    points["times"].append(float(times[min(at + step, len(times)) - 1]))
                    points["values"].append(round(mean, 6))
                    points["versions"].append(version)
                    points["rows"].append(min(step, len(values) - at))

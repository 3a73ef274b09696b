"""The sample that a version's metrics are compared with: the one that was given, else the version's first events."""

from __future__ import annotations

from typing import Final

import numpy as np
from sqlalchemy import Connection

from actors import wire
from actors.detection import logged, tables
from actors.detection.model import Model
from actors.detection.rows import Damage, SampleRow

_KEPT: Final = 4096  # values of a sample
_FIRST_EVENTS: Final = 500  # of a version, that make its baseline where none was given
_SEARCHED: Final = 10_000  # rows of the log in which they are looked for


def take_up_pin(connection: Connection, model: Model, damaged: list[Damage]) -> None:
    """Hand a model that was read from the store the baseline that its versions are pinned to."""
    if model.monitor.pinned is not None:
        model.monitor.pin(model.monitor.pinned, baseline_of(connection, model, model.monitor.pinned, damaged))


def baseline_of(connection: Connection, model: Model, version: str, damaged: list[Damage]) -> dict[str, wire.Floats]:
    """Return a version's baseline, float64[n] by watched metric: the one it was given, else its first events in the log.

    A metric with a season by the calendar has none: a sample has no times. What cannot be read is left out, and added to
    `damaged`.
    """
    given = tables.load_samples(connection, model.name, version, damaged)
    watched = [metric for metric, watch in model.settings.watch.items() if watch.season is None]
    samples = {metric: sample for metric, sample in given.items() if metric in watched}
    wanted = [metric for metric in watched if metric not in samples]
    collected: dict[str, list[wire.Floats]] = {metric: [] for metric in wanted}
    if wanted and version in model.monitor.versions:
        for row in logged.read_log(connection, model.name, until=_SEARCHED):
            try:
                seen = wire.recheck(row.payload, row.received_at, row.skip)
            except ValueError:  # told where the log is replayed
                continue
            if version in seen.batch.versions:
                for metric, found in collected.items():
                    found.append(wire.values_of(seen.batch, metric, version, seen.ok, row.skip))
            if all(sum(map(len, found)) >= _FIRST_EVENTS for found in collected.values()):
                break
    for metric, found in collected.items():
        values = np.concatenate(found)[:_FIRST_EVENTS] if found else np.empty(0)
        if len(values):
            samples[metric] = values
    return samples


def sample_row(model: str, version: str, metric: str, values: wire.Floats) -> SampleRow:
    """Return the row that keeps a sample: its newest values."""
    kept = np.asarray(values, dtype="<f8")[-_KEPT:]
    return {"model": model, "version": version, "metric": metric, "sample": kept.tobytes()}

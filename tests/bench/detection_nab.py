"""Seasons on the Numenta Anomaly Benchmark, from a checkout of it: windows found, false alarms, NAB's own score.

The score is that of Lavin and Ahmad 2015, standard profile, without the search for a threshold that NAB grants. The first 15%
of a file are not judged, a window counts by its first alarm, and the earlier the more.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from actors.config import Season
from actors.drift import Seasonal, create, knots_of
from tests.bench.detection_families import Floats

_PROBATION, _FALSE = 0.15, 0.11
_DAY = 86_400.0
Detect = Callable[[Floats, Floats], list[int]]  # values and times to the indices of alarms


class NabRow(TypedDict):
    """One way to watch all files."""

    what: str
    found: int
    windows: int
    false_alarms: int
    score: float


class File(NamedTuple):
    """One file: values and times, and the windows as (first, last) index."""

    values: Floats
    times: Floats
    windows: list[tuple[int, int]]


def _plain(budget: float) -> Detect:
    return lambda values, _times: [alarm.index for alarm in create("default", false_alarm_every=budget).update(values)]


def _by_events(budget: float) -> Detect:
    def detect(values: Floats, times: Floats) -> list[int]:
        a_day = round(_DAY / float(np.median(np.diff(times))))
        if not 2 <= a_day <= 1024:
            return _plain(budget)(values, times)
        return [alarm.index for alarm in create("default", false_alarm_every=budget, season=a_day).update(values)]

    return detect


def _seasonal(budget: float, period_s: float) -> Detect:
    def detect(values: Floats, times: Floats) -> list[int]:
        detector = Seasonal(create("default", false_alarm_every=budget), knots=knots_of(period_s))
        return [alarm.index for alarm in detector.update(values, Season(period_s).turns(times))]

    return detect


def nab_rows(folder: Path, *, budgets: tuple[float, ...] = (1000.0, 10_000.0)) -> list[NabRow]:
    """Measure each way on the real files of a checkout of NAB."""
    files = read(folder)
    rows: list[NabRow] = []
    for budget in budgets:
        ways: dict[str, Detect] = {
            "no season": _plain(budget),
            "season of events, a day": _by_events(budget),
            "season: day": _seasonal(budget, _DAY),
            "season: week": _seasonal(budget, 7 * _DAY),
        }
        rows += [_measured(f"{what}, budget {budget:,.0f}", way, files) for what, way in ways.items()]
    return rows


def read(folder: Path) -> list[File]:
    """Return the real files; ValueError where the folder is no checkout."""
    labels = folder / "labels" / "combined_windows.json"
    if not labels.is_file():
        raise ValueError(f"nab must be a checkout of github.com/numenta/NAB, got {folder}")
    windows: dict[str, Any] = json.loads(labels.read_text(encoding="utf-8"))
    files = []
    for name, spans in sorted(windows.items()):
        if not name.startswith("real"):
            continue
        with (folder / "data" / name).open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        times = np.array([_seconds(row["timestamp"]) for row in rows])
        inside = [np.flatnonzero((times >= _seconds(a)) & (times <= _seconds(b))) for a, b in spans]
        values = np.array([float(row["value"]) for row in rows])
        files.append(File(values, times, [(int(each[0]), int(each[-1])) for each in inside if len(each)]))
    return files


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def _measured(what: str, detect: Detect, files: list[File]) -> NabRow:
    found = windows = false = 0
    raw = 0.0
    for file in files:
        start = int(min(_PROBATION * len(file.values), _PROBATION * 5000))
        alarms = [index for index in detect(file.values, file.times) if index >= start]
        judged = [window for window in file.windows if window[1] >= start]
        windows += len(judged)
        for first, last in judged:
            within = [index for index in alarms if first <= index <= last]
            found += bool(within)
            raw += _sigmoid((within[0] - last) / max(last - first, 1)) if within else -1.0
        for index in alarms:
            if not any(first <= index <= last for first, last in judged):
                false += 1
                raw += _FALSE * _after(index, judged)
    score = 100 * (raw + windows) / (windows * _sigmoid(-1.0) + windows)  # 0: no alarm at all, 100: all of them at once
    return {"what": what, "found": found, "windows": windows, "false_alarms": false, "score": score}


def _sigmoid(place: float) -> float:
    return 2.0 / (1.0 + math.exp(5.0 * place)) - 1.0


def _after(index: int, windows: list[tuple[int, int]]) -> float:
    """Return what a false alarm costs: less just after a window, -1 elsewhere."""
    before = [window for window in windows if window[1] < index]
    if not before:
        return -1.0
    first, last = before[-1]
    return max(_sigmoid((index - last) / max(last - first, 1)), -1.0)

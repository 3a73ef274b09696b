"""Seasons by the calendar: false alarms and delay on daily seasons with gaps and changing rates, against no season at all."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import numpy as np

from actors.drift import Alarm, Seasonal, create
from tests.bench.detection_families import Floats
from tests.bench.detection_runs import Measured

WAYS = ("hourly", "gaps", "rate")
_MISSED = 3000
_LONGEST = 12  # times the budget


class SeasonRow(TypedDict):
    """ARL0 at a budget, or the delay after a shift, with its standard error; `bare`: of the stream without its season."""

    way: str
    what: str
    mean: float
    error: float
    bare: NotRequired[float]
    bare_error: NotRequired[float]


def moments(rng: np.random.Generator, n: int, way: str) -> Floats:
    """Return the times of n events, in days: every hour; two fifths and whole days of that missing; 1 to 12 an hour."""
    if way == "rate":
        hours = np.arange(n)
        counts = rng.poisson(6.5 + 5.5 * np.sin(2 * np.pi * hours / 24))
        return np.sort(np.repeat(hours, counts)[:n] + rng.random(n)) / 24
    days = np.arange(3 * n) / 24
    if way == "hourly":
        return days[:n]
    there = rng.random(len(days)) < 0.6
    for start in rng.integers(0, len(days), len(days) // 700):
        there[start : start + int(rng.integers(24, 120))] = False
    return days[there][:n]


def pattern(turns: Floats, size: float) -> Floats:
    """Return a day with two waves and a step at either end of the working hours."""
    phase = turns - np.floor(turns)
    working = (phase > 0.35) & (phase < 0.7)
    return size * (np.sin(2 * np.pi * phase) + 0.5 * np.cos(4 * np.pi * phase) + 0.6 * working)


def season_rows(*, streams: int) -> list[SeasonRow]:
    """Measure all ways that events come."""
    rows: list[SeasonRow] = []
    for way in WAYS:
        for size in (1.0, 5.0):
            arl = Measured.of([_run(way, size, seed, budget=1000) for seed in range(streams)])
            what = f"ARL0 at 1,000, season of {size:g} sd"
            rows.append({"way": way, "what": what, "mean": arl.mean, "error": arl.error})
        for before in (600, 3000):
            for shift in (0.5, 1.0, 2.0):
                pairs = [_delays(way, seed, before=before, shift=shift) for seed in range(streams)]
                found, bare = (Measured.of(list(column)) for column in zip(*pairs, strict=True))
                what = f"delay for {shift:g} sd after {before} events"
                row: SeasonRow = {"way": way, "what": what, "mean": found.mean, "error": found.error}
                rows.append({**row, "bare": bare.mean, "bare_error": bare.error})
    return rows


def _run(way: str, size: float, seed: int, *, budget: int) -> int:
    rng = np.random.default_rng([1, seed])
    turns = moments(rng, _LONGEST * budget, way)
    values = pattern(turns, size) + rng.standard_normal(len(turns))
    alarms = Seasonal(create("default", false_alarm_every=budget)).update(values, turns)
    return alarms[0].index + 1 if alarms else len(turns)


def _delays(way: str, seed: int, *, before: int, shift: float) -> tuple[int, int]:
    """Return the delay with a season of 2 sd, and that of the same stream without it; streams that alarm before are redrawn."""
    attempt = 0
    while True:
        rng = np.random.default_rng([2, seed, attempt])
        turns = moments(rng, before + _MISSED, way)
        noise = rng.standard_normal(len(turns))
        noise[before:] -= shift
        seasonal = Seasonal(create("default")).update(noise + pattern(turns, 2.0), turns)
        bare = create("default").update(noise)
        if all(not alarms or alarms[0].index >= before for alarms in (seasonal, bare)):
            return _delay(seasonal, before), _delay(bare, before)
        attempt += 1


def _delay(alarms: list[Alarm], before: int) -> int:
    return alarms[0].index - before + 1 if alarms else _MISSED

"""Runs streams through detectors: time between false alarms, delay, outliers, speed. Every seed is fixed."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.bench.detection_contestants import CONTESTANTS, Contestant, Ours, Watcher
from tests.bench.detection_families import FAMILIES, Family, Floats
from tests.bench.detection_oracle import Oracle

EARLY = 2000  # events: the beginning, judged apart
MISSED = 5000  # events: no alarm by then counts as so much delay
_RUNS_LONGEST = 20  # times the nominal ARL0 that a stream without alarms is followed
_MANY = 10_000_000  # events of the long run
_OUTLIER_WITHIN = 20  # events after an outlier in which an alarm is put down to it


@dataclass(frozen=True)
class Measured:
    """A mean with its standard error over `n` streams."""

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, runs: Sequence[float]) -> "Measured":
        """Return the mean of `runs` with its standard error."""
        values = np.asarray(runs, dtype=float)
        return cls(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values))

    def __str__(self) -> str:
        digits = 0 if self.mean >= 1000 else 1 if self.mean >= 20 else 2
        return f"{self.mean:.{digits}f}±{self.error:.{digits}f}"


def default(family: Family, **options: Any) -> Callable[[], Ours]:
    """Return a maker of the default detector with the settings that a user of this family would choose."""
    return lambda: Ours("default", **family.options, **options)


def run_lengths(make: Callable[[], Watcher], family: Family, *, streams: int, limit: int, seed: int = 0) -> list[int]:
    """Return the events to the first alarm on each of `streams` stationary streams, at most `limit`."""
    runs = []
    for i in range(streams):
        stream = family.stream(np.random.default_rng([seed, i]))
        watcher = make()
        n = 0
        while n < limit:
            size = min(2048 if n == 0 else 8192, limit - n)
            at = watcher.first(stream.take(size))
            if at is not None:
                n += at + 1
                break
            n += size
        runs.append(n)
    return runs


def arl_row(family: Family, nominal: float, *, streams: int, **options: Any) -> dict[str, Any]:
    """Measure the default's ARL0 on one family, on the whole and in the first EARLY events, against its budget."""
    made = default(family, false_alarm_every=nominal, **options)
    runs = run_lengths(made, family, streams=streams, limit=int(_RUNS_LONGEST * nominal))
    arl = Measured.of(runs)
    watched = float(np.minimum(runs, EARLY).sum())
    alarms = int(np.sum(np.asarray(runs) <= EARLY))
    expected = watched / nominal
    return {
        "family": family.name,
        "nominal": nominal,
        "arl0": arl.mean,
        "error": arl.error,
        "streams": streams,
        "early_arl0": watched / alarms if alarms else None,
        "early_alarms": alarms,
        "early_expected": expected,
        "held": bool(arl.mean >= nominal - 2 * arl.error),
        "held_early": bool(alarms <= expected + 2 * np.sqrt(max(expected, 1.0))),
        "at_most_2.5": bool(arl.mean <= 2.5 * nominal + 2 * arl.error),
    }


def delays(
    make: Callable[[], Watcher], family: Family, shifts: Sequence[float], *, before: int, streams: int, seed: int = 1
) -> dict[float, list[int]]:
    """Return, per shift, the events from the change to the alarm on each stream; those that alarm before are redrawn.

    All shifts hit the same streams, and all detectors see the same ones.
    """
    found: dict[float, list[int]] = {shift: [] for shift in shifts}
    for i in range(streams):
        attempt = 0
        while True:
            stream = family.stream(np.random.default_rng([seed, i, attempt]))
            watcher = make()
            head = stream.take(before)
            if watcher.first(head) is None:
                break
            attempt += 1
        saved = watcher.saved() if isinstance(watcher, Ours) else None
        for shift in shifts:
            if saved is not None and isinstance(watcher, Ours):
                watcher.restored(saved)
            elif shift != shifts[0]:
                watcher = make()
                watcher.first(head)
            found[shift].append(_delay(watcher, copy.deepcopy(stream), family.bad * shift))
    return found


def _delay(watcher: Watcher, stream: Any, shift: float) -> int:
    n, size = 0, 16
    while n < MISSED:
        size = min(size, MISSED - n)
        at = watcher.first(stream.take(size, shift))
        if at is not None:
            return n + at + 1
        n += size
        size = min(4 * size, 1024)
    return MISSED


def oracle_delays(family: Family, shift: float, *, arl0: float, streams: int) -> Measured:
    """Measure the delay of the oracle of this family and shift."""
    oracle = Oracle(family, shift, arl0=arl0)
    return Measured.of(
        [oracle.delay(np.random.default_rng([2, i]), before=500, limit=MISSED) for i in range(max(streams, 1000))]
    )


def calibrated(contestant: Contestant, *, arl0: float, streams: int) -> float:
    """Return the parameter at which this contestant's ARL0 on Gaussian noise is `arl0`, by bisection."""
    family = FAMILIES["gaussian"]
    loose, strict = contestant.loose, contestant.strict
    for step in range(9):
        middle = float(np.sqrt(loose * strict)) if contestant.geometric else 0.5 * (loose + strict)
        some = max(20, streams // (4 if step < 5 else 1))
        runs = run_lengths(partial(contestant.make, middle), family, streams=some, limit=int(5 * arl0), seed=7)
        loose, strict = (middle, strict) if np.mean(runs) < arl0 else (loose, middle)
    return float(np.sqrt(loose * strict)) if contestant.geometric else 0.5 * (loose + strict)


def outlier_row(size: float, *, streams: int) -> dict[str, Any]:
    """Count the streams on which one outlier of `size` sd among 1,000 events makes the default alarm."""
    hits = {"with": 0, "without": 0}
    for i in range(streams):
        values = FAMILIES["gaussian"].stream(np.random.default_rng([3, i])).take(1200)
        for which in hits:
            if which == "with":
                values = values.copy()
                values[1000] = 0.9 - size * 0.03
            watcher = Ours("default")
            if watcher.first(values[:1000]) is None:
                at = watcher.first(values[1000 : 1000 + _OUTLIER_WITHIN])
                hits[which] += at is not None
    p = hits["with"] / streams
    return {
        "size_sd": size,
        "alarmed": float(p),
        "error": float(np.sqrt(p * (1 - p) / streams)),
        "alarmed_without_it": hits["without"] / streams,
        "streams": streams,
    }


def _long_run(values: Floats) -> list[dict[str, Any]]:
    """Measure the first and the last tenth of many events: neither time nor state may grow."""
    detector = Ours("default", false_alarm_every=1e9)
    tenth = len(values) // 10
    rows = []
    for k in range(10):
        start = time.process_time()
        for i in range(k * tenth, (k + 1) * tenth, 10_000):
            detector.first(values[i : i + 10_000])
        ns = (time.process_time() - start) / tenth * 1e9
        if k in {0, 9}:
            what = f"{'first' if k == 0 else 'last'} tenth of {len(values):,} events; state {len(detector.saved()):,} bytes"
            rows.append({"what": what, "must": None, "aim": None, "ns": ns, "low": ns, "high": ns})
    return rows


def speed_rows(*, events: int) -> list[dict[str, Any]]:
    """Measure ns of processor time an event, the median of five runs and their range; but for one row, without alarms."""
    values = FAMILIES["gaussian"].stream(np.random.default_rng(4)).take(5000 + events)

    def timed(make: Callable[[], Any], cuts: list[Floats], warm: Floats | None) -> dict[str, Any]:
        runs = []
        for _ in range(5):
            watcher = make()
            if warm is not None:
                watcher.first(warm)
            start = time.process_time()
            for cut in cuts:
                watcher.first(cut)
            runs.append((time.process_time() - start) / sum(map(len, cuts)) * 1e9)
        return {"ns": float(np.median(runs)), "low": min(runs), "high": max(runs)}

    def cut(start: int, n: int, size: int) -> list[Floats]:
        return [values[i : i + size] for i in range(start, start + n, size)]

    def ours() -> Ours:
        return Ours("default", false_alarm_every=1e9)

    rows = [
        {"what": "batches of 10,000", "must": 200, "aim": 100, **timed(ours, cut(5000, events, 10_000), values[:5000])},
        {"what": "batches of 256", "must": 1200, "aim": 400, **timed(ours, cut(5000, events // 2, 256), values[:5000])},
        {
            "what": "singly, after the freeze",
            "must": 5000,
            "aim": 2500,
            **timed(ours, cut(5000, events // 10, 1), values[:5000]),
        },
        {"what": "singly, before it", "must": 20_000, "aim": 5000, **timed(ours, cut(0, 3200, 1), None)},
        {
            "what": "batches of 5,000 at a budget of 10,000, all false alarms and the learning after them included",
            "must": None,
            "aim": None,
            **timed(lambda: Ours("default", false_alarm_every=1e4), cut(0, events, 5000), None),
        },
    ]
    rows += _long_run(np.concatenate([values] * (_MANY // len(values) + 1))[:_MANY])
    strict = {"river ADWIN": 1e-9, "river Page-Hinkley": 1e9, "FOCuS": 1e9}
    for name, parameter in strict.items():
        contestant = CONTESTANTS[name]
        if contestant.present:
            some = cut(5000, events // 4, 10_000)
            fed = timed(partial(contestant.make, parameter), some, None)
            rows.append({"what": name, "must": None, "aim": None, **fed})
    return rows

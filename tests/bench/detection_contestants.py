"""The detectors that are compared: ours, the reference, river's, focus-cpt's; as given, and calibrated.

Where a contestant's rule depends on the units (river's ADWIN and Page-Hinkley) or needs the deviation (FOCuS), it is
told the true ones, which no user could: the comparison errs in its favour.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from actors.drift import create
from tests.bench.detection_families import Floats


class Watcher(Protocol):
    """A fresh detector on one stream."""

    def first(self, values: Floats) -> int | None:
        """Take the next values; return the index of the first alarm among them, after which it is not fed any more."""


class Ours:
    """A detector of `actors.drift`."""

    def __init__(self, name: str, **options: Any) -> None:
        self._detector = create(name, **options)

    def first(self, values: Floats) -> int | None:
        """See Watcher."""
        alarms = self._detector.update(values)
        return alarms[0].index if alarms else None

    def saved(self) -> bytes:
        """Return the state, so that one warm-up serves many continuations."""
        return self._detector.state()

    def restored(self, state: bytes) -> None:
        """Go back to that state."""
        self._detector.restore(state)


class River:
    """A detector of river on the plain values; `scaled`: on values scaled by the true mean and deviation."""

    def __init__(self, name: str, *, scaled: bool = False, **options: Any) -> None:
        self._detector = getattr(importlib.import_module("river.drift"), name)(**options)
        self._scaled = scaled

    def first(self, values: Floats) -> int | None:
        """See Watcher."""
        detector = self._detector
        if self._scaled:
            values = (values - 0.9) / 0.03
        for i, x in enumerate(values.tolist()):
            detector.update(x)
            if detector.drift_detected:
                return i
        return None


class Focus:
    """FOCuS (Romano, Eckley, Fearnhead, Rigaill 2023), two-sided, with unknown mean and the true deviation."""

    def __init__(self, *, threshold: float) -> None:
        self._run = importlib.import_module("focus_cpt").focus_offline
        self._threshold = threshold
        self._past = np.empty(0)

    def first(self, values: Floats) -> int | None:
        """See Watcher. Its compiled loop starts from the first event again: still faster than by event."""
        known = len(self._past)
        self._past = np.concatenate((self._past, (values - 0.9) / 0.03))
        found = self._run(self._past, threshold=self._threshold, type="univariate", family="gaussian")["detection_time"]
        return int(found) - 1 - known if found is not None and np.isfinite(found) else None


@dataclass(frozen=True)
class Contestant:
    """`make(parameter)` is a fresh watcher; calibration moves the parameter between `loose` (more alarms) and `strict`."""

    name: str
    make: Callable[[float], Watcher]
    given: float | None  # the parameter out of the box; None where there is none to calibrate
    loose: float = 0.0
    strict: float = 0.0
    geometric: bool = False
    needs: str | None = None  # an import without which it cannot take part

    @property
    def present(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


BUDGET = 10_000

CONTESTANTS: dict[str, Contestant] = {
    contestant.name: contestant
    for contestant in (
        Contestant("default", lambda b: Ours("default", false_alarm_every=b), BUDGET),
        Contestant("cusum", lambda b: Ours("cusum", false_alarm_every=b), BUDGET),
        Contestant("page-hinkley", lambda b: Ours("page-hinkley", false_alarm_every=b), BUDGET),
        Contestant("ewma", lambda b: Ours("ewma", false_alarm_every=b), BUDGET),
        Contestant("sliding-window", lambda z: Ours("sliding-window", z_threshold=z), 3.0, 3.0, 4.6),
        Contestant(
            "river ADWIN",
            lambda d: River("ADWIN", delta=d, scaled=True),
            0.002,
            0.9,
            0.002,
            geometric=True,
            needs="river",
        ),
        Contestant(
            "river Page-Hinkley",
            lambda t: River("PageHinkley", threshold=t, scaled=True),
            50.0,
            5.0,
            500.0,
            geometric=True,
            needs="river",
        ),
        Contestant("river KSWIN", lambda a: River("KSWIN", alpha=a, seed=1), 0.005, needs="river"),
        Contestant("FOCuS", lambda t: Focus(threshold=t), 20.0, 12.0, 26.0, needs="focus_cpt"),
    )
}

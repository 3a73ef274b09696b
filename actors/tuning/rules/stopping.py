"""Early stopping: which trials are not worth finishing, judged by what they reported so far.

A rule sees losses (smaller is better whatever the mode of the study) in the order in which reports arrived, and its verdict
is a function of that order alone: feeding it the reports that the store has kept gives the same verdicts again.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from actors.checks import shown, whole

# Steps whose means are kept at a time. A million trials that report at one step are 8 MB there.
_MAX_STEPS: Final = 256
_MAX_OPTION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a trial goes on, and what the rule saw when it decided."""

    stop: bool
    seen: str = ""


class StoppingRule(Protocol):
    """Judges each report of each trial."""

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Take a report; `loss` may be inf for a value that is no finite number."""

    def complete(self, trial: int) -> None:
        """Take note that a trial has completed."""


class NeverStop:
    """Lets every trial finish."""

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Go on."""
        return Verdict(stop=False)

    def complete(self, trial: int) -> None:
        """Nothing to note."""


class AsynchronousHalving:
    """ASHA, the stopping variant (Li et al., 2020, MLSys; as in Ray Tune).

    Rungs are at `min_steps * reduction**k`. At the first report at or beyond a rung the trial's loss is entered there, and
    the trial goes on if it is within the best 1/`reduction` of those entered so far (the first ones always are).
    """

    def __init__(self, *, min_steps: int = 1, reduction: int = 4, max_rungs: int = 20) -> None:
        self._reduction = _whole("reduction", reduction, 2)
        _whole("min_steps", min_steps, 1)
        self._rungs = [min_steps * reduction**k for k in range(_whole("max_rungs", max_rungs, 1))]
        self._entered: list[set[int]] = [set() for _ in self._rungs]  # trials
        self._ranked: list[list[float]] = [[] for _ in self._rungs]  # their losses, in order

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Judge at every rung that this step has reached for the first time."""
        for rung, entered, ranked in zip(self._rungs, self._entered, self._ranked, strict=True):
            if step < rung:
                break
            if trial in entered:
                continue
            entered.add(trial)
            bisect.insort(ranked, loss)
            cutoff = ranked[max(len(ranked) // self._reduction, 1) - 1]
            # Fewer than `reduction` values say nothing about a best quarter; a loss that is no number needs no comparison.
            if (len(ranked) >= self._reduction and loss > cutoff) or not math.isfinite(loss):
                return Verdict(
                    stop=True,
                    seen=f"rung {rung}: {loss:.6g} is beyond {cutoff:.6g}, the best 1/{self._reduction} of {len(ranked)}",
                )
        return Verdict(stop=False)

    def complete(self, trial: int) -> None:
        """Nothing to note: rungs count reports."""


class MedianStop:
    """The median rule (Golovin et al., 2017, Vizier, KDD, section 3.2.1).

    A trial stops at step s if its best loss up to s is above the median of the completed trials' mean losses up to s. It
    waits for `min_trials` completed trials and for `min_steps`.
    """

    def __init__(self, *, min_trials: int = 5, min_steps: int = 1) -> None:
        self._min_trials = _whole("min_trials", min_trials, 1)
        self._min_steps = _whole("min_steps", min_steps, 0)
        self._best: dict[int, float] = {}
        self._sums: dict[int, _Sums] = {}
        self._completed: dict[int, None] = {}
        # By step, the completed trials' means up to it, in order: kept from question to question, since a report must not
        # cost a walk through all trials.
        self._means: dict[int, list[float]] = {}

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Judge against the completed trials."""
        best = self._best[trial] = min(self._best.get(trial, math.inf), loss)
        if not math.isfinite(loss):
            return Verdict(stop=True, seen=f"step {step}: the value is no finite number")
        self._sums.setdefault(trial, _Sums()).add(step, loss)
        if trial in self._completed:
            self._means.clear()  # no trial reports after its end; what the store has kept may say otherwise
        if step < self._min_steps:
            return Verdict(stop=False)
        means = self._means_until(step)
        if len(means) < self._min_trials:
            return Verdict(stop=False)
        middle = len(means) // 2  # of a list in order
        median = means[middle] if len(means) % 2 else (means[middle - 1] + means[middle]) / 2
        if best > median:
            return Verdict(
                stop=True,
                seen=f"step {step}: best {best:.6g} is above {median:.6g}, the median of {len(means)} completed trials",
            )
        return Verdict(stop=False)

    def complete(self, trial: int) -> None:
        """Count the trial among the completed."""
        if trial in self._completed or trial not in self._sums:
            return
        self._completed[trial] = None
        for step, means in self._means.items():
            mean = self._sums[trial].mean_until(step)
            if mean is not None:
                bisect.insort(means, mean)

    def _means_until(self, step: int) -> list[float]:
        if step not in self._means:
            if len(self._means) >= _MAX_STEPS:
                self._means.clear()
            found = (self._sums[trial].mean_until(step) for trial in self._completed)
            self._means[step] = sorted(mean for mean in found if mean is not None)
        return self._means[step]


class _Sums:
    """The finite losses of one trial, summed up to each of its steps."""

    __slots__ = ("_steps", "_sums")

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._sums: list[float] = []

    def add(self, step: int, loss: float) -> None:
        """Add a loss; steps mostly come in order."""
        place = bisect.bisect_right(self._steps, step)
        self._steps.insert(place, step)
        self._sums.insert(place, self._sums[place - 1] if place else 0.0)
        for later in range(place, len(self._sums)):
            self._sums[later] += loss

    def mean_until(self, step: int) -> float | None:
        """Return the mean of the losses at steps up to `step`; None where there is none."""
        count = bisect.bisect_right(self._steps, step)
        return self._sums[count - 1] / count if count else None


_RULES: Mapping[str, type[AsynchronousHalving | MedianStop]] = {"asha": AsynchronousHalving, "median": MedianStop}


def create(early_stopping: str | Mapping[str, Any] | None) -> StoppingRule:
    """Make the rule `early_stopping`: None, `asha`, `median`, or `{"name": ..., **options}`; ValueError otherwise."""
    if early_stopping is None:
        return NeverStop()
    options = dict(early_stopping) if isinstance(early_stopping, Mapping) else {"name": early_stopping}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in _RULES:
        raise ValueError(f"early_stopping must be one of {', '.join(_RULES)}, got {shown(name)}")
    try:
        return _RULES[name](**options)
    except TypeError as error:
        raise ValueError(f"early_stopping {name!r}: {error}") from None


def _whole(field: str, value: object, least: int) -> int:
    return whole(f"early_stopping: {field}", value, least, _MAX_OPTION)

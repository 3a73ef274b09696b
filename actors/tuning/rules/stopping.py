"""Early stopping: which trials are not worth finishing, judged by what they reported so far.

A rule sees losses (smaller is better whatever the mode of the study) in the order in which reports arrived, and its verdict
is a function of that order alone: feeding it the reports that the store has kept gives the same verdicts again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


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

    def report(self, trial: int, step: int, loss: float) -> Verdict:  # noqa: ARG002
        """Go on."""
        return Verdict(stop=False)

    def complete(self, trial: int) -> None:
        """Nothing to note."""


class AsynchronousHalving:
    """ASHA, the stopping variant (Li et al., 2020, MLSys; as in Ray Tune).

    Rungs stand at `min_steps * reduction**k`. At the first report at or beyond a rung the trial's loss is entered there, and
    the trial goes on if it is within the best 1/`reduction` of those entered so far (the first ones always are).
    """

    def __init__(self, *, min_steps: int = 1, reduction: int = 4, max_rungs: int = 20) -> None:
        self._reduction = _whole("reduction", reduction, 2)
        _whole("min_steps", min_steps, 1)
        self._rungs = [min_steps * reduction**k for k in range(_whole("max_rungs", max_rungs, 1))]
        self._entered: list[dict[int, float]] = [{} for _ in self._rungs]

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Judge at every rung that this step has reached for the first time."""
        for rung, entered in zip(self._rungs, self._entered, strict=True):
            if step < rung:
                break
            if trial in entered:
                continue
            entered[trial] = loss
            ranked = sorted(entered.values())
            cutoff = ranked[max(len(ranked) // self._reduction, 1) - 1]
            # Fewer than `reduction` values say nothing about a best quarter; a loss that is no number needs no comparison.
            if (len(ranked) >= self._reduction and loss > cutoff) or not math.isfinite(loss):
                return Verdict(stop=True, seen=f"rung {rung}: {loss:.6g} is beyond {cutoff:.6g}, the best "
                                               f"1/{self._reduction} of {len(ranked)}")  # fmt: skip
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
        self._reports: dict[int, list[tuple[int, float]]] = {}
        self._completed: set[int] = set()

    def report(self, trial: int, step: int, loss: float) -> Verdict:
        """Judge against the completed trials."""
        own = self._reports.setdefault(trial, [])
        own.append((step, loss))
        if not math.isfinite(loss):
            return Verdict(stop=True, seen=f"step {step}: the value is no finite number")
        if step < self._min_steps:
            return Verdict(stop=False)
        means = [mean for other in self._completed if (mean := self._mean_until(other, step)) is not None]
        if len(means) < self._min_trials:
            return Verdict(stop=False)
        best, median = min(value for _, value in own), statistics.median(means)
        if best > median:
            return Verdict(stop=True, seen=f"step {step}: best {best:.6g} is above {median:.6g}, the median of {len(means)} "
                                           "completed trials")  # fmt: skip
        return Verdict(stop=False)

    def complete(self, trial: int) -> None:
        """Count the trial among the completed."""
        self._completed.add(trial)

    def _mean_until(self, trial: int, step: int) -> float | None:
        values = [value for at, value in self._reports.get(trial, ()) if at <= step and math.isfinite(value)]
        return statistics.fmean(values) if values else None


_RULES: Mapping[str, type[AsynchronousHalving | MedianStop]] = {"asha": AsynchronousHalving, "median": MedianStop}


def create(early_stopping: str | Mapping[str, Any] | None) -> StoppingRule:
    """Make the rule `early_stopping`: None, `asha`, `median`, or `{"name": ..., **options}`; ValueError otherwise."""
    if early_stopping is None:
        return NeverStop()
    options = dict(early_stopping) if isinstance(early_stopping, Mapping) else {"name": early_stopping}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in _RULES:
        raise ValueError(f"early_stopping must be one of {', '.join(_RULES)}, got {name!r}")
    try:
        return _RULES[name](**options)
    except TypeError as error:
        raise ValueError(f"early_stopping {name!r}: {error}") from None


def _whole(field: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"early_stopping: {field} must be a whole number of at least {least}, got {value!r}")
    return value

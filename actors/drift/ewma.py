"""EWMA chart: an exponentially weighted mean against its own standard error."""

import math
from functools import lru_cache

import numpy as np

from actors.drift.interface import Direction, check_direction, check_number
from actors.drift.standardised import StandardisedChart

_CELLS = 61  # of the Markov chain: enough for a limit within 0.01


@lru_cache(maxsize=256)
def ewma_threshold(arl0: float, weight: float, *, two_sided: bool) -> float:
    """Return the limit of |E| in standard errors for Gaussian noise, by a Markov chain (Lucas and Saccucci 1990).

    One side alone is taken to alarm half as often as both, which is exact but for paths that cross both.

    >>> round(ewma_threshold(500, 0.1, two_sided=True), 1)  # Lucas and Saccucci: 2.814
    2.8
    """
    wanted = arl0 if two_sided else 0.5 * arl0
    low, high = 0.5, 8.0
    for _ in range(18):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _run_length(middle, weight) < wanted else (low, middle)
    return 0.5 * (low + high)


def _run_length(limit: float, weight: float) -> float:
    """Return the ARL0 of a two-sided EWMA of Gaussian noise: E in cells between the limits, absorbed outside."""
    edge = limit * math.sqrt(weight / (2.0 - weight))
    width = 2.0 * edge / _CELLS
    centres = -edge + width * (np.arange(_CELLS) + 0.5)
    borders = np.concatenate((centres - 0.5 * width, [edge]))
    z = (borders[np.newaxis, :] - (1.0 - weight) * centres[:, np.newaxis]) / weight
    below = 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))
    stay = np.diff(below, axis=1)
    runs = np.linalg.solve(np.eye(_CELLS) - stay, np.ones(_CELLS))
    return float(runs[_CELLS // 2])


class Ewma(StandardisedChart):
    """Alarm when the weighted mean E = E + weight (z - E) is too many standard errors from zero.

    Roberts 1959; limits as in Lucas and Saccucci 1990, with the exact standard error from the first event on. The
    budget sets the limit by their Markov chain: it holds on independent Gaussian noise only. The change is estimated
    where E last crossed zero.

    >>> [alarm.index for alarm in Ewma().update([0.0, 1.0] * 50 + [2.0] * 20)]
    [103]
    """

    name = "ewma"

    def __init__(
        self, *, false_alarm_every: float = 10_000, direction: Direction = "both", weight: float = 0.1, warmup: int = 50
    ) -> None:
        check_direction(direction)
        budget = check_number("false_alarm_every", false_alarm_every, low=10, high=1e15)
        self._weight = check_number("weight", weight, low=0.01, high=1)
        threshold = ewma_threshold(budget, self._weight, two_sided=direction == "both")
        super().__init__(direction=direction, warmup=warmup, threshold=threshold, learned_under={"weight": self._weight})

    def _clear(self) -> None:
        self._value = 0.0
        self._left = 1.0  # weight that the start still has
        self._run = 0  # events since the value last crossed zero, and the sum of their raw values
        self._run_sum = 0.0

    def _step(self, z: float, x: float) -> tuple[float, int, float] | None:
        before = self._value
        self._value += self._weight * (z - before)
        self._left *= 1.0 - self._weight
        if (self._value < 0) != (before < 0):
            self._run, self._run_sum = 0, 0.0
        self._run += 1
        self._run_sum += x
        signed = self._signed()
        if abs(signed) < self._threshold or (self._direction != "both" and (signed < 0) != (self._direction == "down")):
            return None
        return signed, self._run, self._run_sum / self._run

    def _signed(self) -> float:
        variance = self._weight / (2.0 - self._weight) * (1.0 - self._left * self._left)
        return self._value / math.sqrt(variance) if variance > 0 else 0.0

    def _level(self) -> float:
        return abs(self._signed())

    def _own_state(self) -> list[float]:
        return [self._value, self._left, float(self._run), self._run_sum]

    def _own_restore(self, saved: list[float]) -> None:
        self._value, self._left, run, self._run_sum = saved
        self._run = int(run)

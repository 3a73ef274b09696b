"""Sums of a stream's values and of their squares, the same however the stream is cut, at any size of the values."""

import math

import numpy as np

from actors.drift.interface import Floats
from actors.drift.moments import unit_of

_SQUARES_WITHIN = 1e-140, 1e140  # sizes of a level whose squares a float64 can hold
_FURTHEST = 1e145  # in the unit of the level: deviations beyond it count as it, so that the sum of their squares stays finite


class LevelSums:
    """The sums behind a stream's mean and standard deviation, without the values themselves.

    Sums are about the first value, so that a high level costs no digits, and one addition follows the other, so that
    the cut of the batches cannot matter. Of a level whose squares a float64 cannot hold, squares are added up in a unit
    of its size, a power of two.

    >>> sums = LevelSums()
    >>> sums.begin(1e200)
    >>> sums.add(np.array([1e200, 3e200, 2e200]))
    >>> mean, sd = sums.without(np.array([2e200]), n=3)
    >>> sums.mean(3), mean, round(sd / 1e200, 6)
    (2e+200, 2e+200, 1.0)
    """

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, origin: float) -> None:
        """Forget everything; `origin` is the value that sums are about."""
        self.origin = origin
        self.total = self.squares = 0.0
        extreme = origin != 0.0 and not _SQUARES_WITHIN[0] < abs(origin) < _SQUARES_WITHIN[1]
        self._unit = unit_of(origin) if extreme else 1.0
        self._furthest = _FURTHEST / self._unit

    def add(self, part: Floats) -> None:
        """Take the next values."""
        self.total, self.squares = self._after(part)

    def add_one(self, value: float) -> None:
        """Do what `add` does for one value, in plain floats."""
        deviation = value - self.origin
        self.total += deviation
        deviation = min(max(deviation, -self._furthest), self._furthest) * self._unit
        self.squares += deviation * deviation

    def _after(self, part: Floats) -> tuple[float, float]:
        deviation = part - self.origin
        line = np.concatenate(([self.total], deviation))
        deviation = self._in_unit(deviation)
        squares = np.concatenate(([self.squares], deviation * deviation))
        return float(np.add.accumulate(line)[-1]), float(np.add.accumulate(squares)[-1])

    def after(self, part: Floats) -> "LevelSums":
        """Return the sums with more values, which are not taken."""
        later = LevelSums()
        later.origin, later._unit, later._furthest = self.origin, self._unit, self._furthest
        later.total, later.squares = self._after(part)
        return later

    def mean(self, n: int) -> float:
        """Return the mean of the `n` values."""
        return self.origin + self.total / n

    def without(self, window: Floats, *, n: int) -> tuple[float, float]:
        """Return mean and standard deviation (ddof = 0) of the `n` values less those of `window`."""
        deviation = window - self.origin
        left = n - len(window)
        mean = (self.total - float(deviation.sum())) / left
        deviation = self._in_unit(deviation)
        centre = min(max(mean, -self._furthest), self._furthest) * self._unit
        variance = (self.squares - float((deviation * deviation).sum())) / left - centre * centre
        return self.origin + mean, math.sqrt(max(variance, 0.0)) / self._unit

    def _in_unit(self, deviation: Floats) -> Floats:
        return np.clip(deviation, -self._furthest, self._furthest) * self._unit

    def as_list(self) -> list[float]:
        """Return the numbers that `restore` needs."""
        return [self.origin, self.total, self.squares]

    def restore(self, saved: list[float]) -> None:
        """Continue exactly where `as_list` was taken."""
        origin, total, squares = saved
        self.begin(origin)
        self.total, self.squares = total, squares

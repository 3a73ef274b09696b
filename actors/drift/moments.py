"""Mean and standard deviation of a stream, one value after the other, at any size a float64 can have."""

import math
from dataclasses import dataclass
from typing import Final, Self

_EXPONENT_MAX: Final = 1000  # of a unit, so that its products with small numbers stay finite too

ROUNDING = 1e-9  # of a level: differences below it are taken for rounding


def unit_of(size: float) -> float:
    """Return the power of two that brings values of this size to about 1; the largest there is for 0.

    >>> 0.5 <= 1e-300 * unit_of(1e-300) < 1.0
    True
    """
    return math.ldexp(1.0, min(-math.frexp(size)[1], _EXPONENT_MAX) if size else _EXPONENT_MAX)


@dataclass(slots=True)
class Moments:
    """The count, the mean, and the root of the sum of squared deviations from it (Welford 1962).

    Welford adds up squares, which overflow beyond 1e154 and vanish below 1e-154; their root does neither.

    >>> moments = Moments()
    >>> for x in (1e300, 3e300, 2e300):
    ...     moments.add(x)
    >>> moments.mean, moments.sd
    (2e+300, 1e+300)
    """

    n: int = 0
    mean: float = 0.0
    root: float = 0.0

    def add(self, x: float) -> None:
        """Take the next value."""
        self.n += 1
        step = x - self.mean
        self.mean += step / self.n
        self.root = math.hypot(self.root, math.sqrt(abs(step)) * math.sqrt(abs(x - self.mean)))

    @property
    def sd(self) -> float:
        """Return the standard deviation of the values (ddof = 1); 0 for fewer than two."""
        return self.root / math.sqrt(self.n - 1) if self.n > 1 else 0.0

    def as_list(self) -> list[float]:
        """Return the numbers that `restored` needs."""
        return [self.n, self.mean, self.root]

    @classmethod
    def restored(cls, saved: list[float]) -> Self:
        """Return the moments that `as_list` described."""
        n, mean, root = saved
        return cls(int(n), mean, root)

    @classmethod
    def of_squares(cls, n: int, mean: float, squares: float) -> Self:
        """Return the moments of a state that an earlier build saved: it kept the sum of squares."""
        return cls(int(n), mean, math.sqrt(max(squares, 0.0)))

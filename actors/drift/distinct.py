"""The distinct values of a sample, as numpy's `unique` gives them, which imports `numpy.ma`: 1.3 MB of every process."""

import numpy as np
import numpy.typing as npt

from actors.drift.interface import Floats


def distinct(sample: Floats) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the values that occur in `sample: float64[n]`, ascending, and how often each does.

    >>> distinct(np.array([2.0, 1.0, 2.0]))
    (array([1., 2.]), array([1, 2]))
    """
    ordered = np.sort(sample)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))  # a difference could overflow
    return ordered[starts], np.diff(starts, append=len(ordered))

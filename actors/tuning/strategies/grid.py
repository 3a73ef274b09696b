"""Grid search: every combination once, the last parameter changing fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from actors.checks import whole
from actors.replies import Json
from actors.tuning.strategies.interface import ExhaustedError, PastTrial
from actors.tuning.strategies.space import Choices, IntRange, Parameter, parse

_MAX_POINTS: Final = 10_000  # of one parameter
_MAX_VALUES: Final = 200_000  # of all parameters together: the grid keeps its axes in memory


class GridTuner:
    """Goes through the grid in order; `size` is its number of points.

    A range of floats has `points` values from bound to bound (by the logarithm with "log"), whole numbers as many or all of
    them where there are fewer, choices all of them.
    """

    def __init__(self, space: object, *, seed: int | None = None, points: int = 5) -> None:
        """Search `space`; `seed` is there for the interface alone, a grid draws nothing."""
        points = whole("points", points, 2, _MAX_POINTS)
        self.seed = seed
        self.space = parse(space)
        if points * len(self.space.parameters) > _MAX_VALUES:
            raise ValueError(
                f"points must be at most {_MAX_VALUES // len(self.space.parameters)} for each of "
                f"{len(self.space.parameters)} parameters, got {points}"
            )
        self._axes = [_axis(parameter, points) for parameter in self.space.parameters]
        self.size = math.prod(len(axis) for axis in self._axes)
        self._next = 0

    def next_params(self) -> Json:
        """Return the next point; ExhaustedError after the last."""
        if self._next >= self.size:
            raise ExhaustedError(f"the grid has {self.size} points, and all have been used")
        rest, params = self._next, {}
        for parameter, axis in zip(reversed(self.space.parameters), reversed(self._axes), strict=True):
            rest, place = divmod(rest, len(axis))
            params[parameter.name] = axis[place]
        self._next += 1
        return {parameter.name: params[parameter.name] for parameter in self.space.parameters}

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Go on after the trials that were handed out."""
        self._next = len(past)


def _axis(parameter: Parameter, points: int) -> Sequence[Any]:
    if isinstance(parameter, Choices):
        return parameter.choices
    if isinstance(parameter, IntRange) and parameter.high - parameter.low < points:
        return range(parameter.low, parameter.high + 1)
    values = [parameter.at(place / (points - 1)) for place in range(points)]
    return list(dict.fromkeys(values))  # whole numbers on a log axis may coincide

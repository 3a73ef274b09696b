"""A metric over time in a bounded number of points, whatever the length of its log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from actors.wire import Bools, Floats

_MOST: Final = 400  # bins of one version; a page is less than 1,000 pixels wide
_FIRST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """The values of one stretch of time: the middle of the stretch, their mean, and the least and the greatest."""

    at: float
    mean: float
    low: float
    high: float


@dataclass(slots=True)
class _Bin:
    weight: float = 0.0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, other: _Bin) -> None:
        self.weight += other.weight
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass(slots=True)
class Series:
    """The values of one metric of one version; the stretches grow where there would be too many of them.

    >>> series = Series()
    >>> series.take(np.array([0.0, 0.4, 9.0]), np.array([1.0, 3.0, 5.0]))
    >>> [(point.mean, point.low, point.high) for point in series.points()]
    [(2.0, 1.0, 3.0), (5.0, 5.0, 5.0)]
    """

    width_s: float = _FIRST_S
    events: int = 0
    first_at: float = float("inf")
    last_at: float = float("-inf")
    _bins: dict[int, _Bin] = field(default_factory=dict)

    def take(self, times: Floats, values: Floats, weights: Floats | None = None) -> None:
        """Add events; `weights` are the predictions behind each."""
        fine = np.isfinite(values) & np.isfinite(times)
        times, values = times[fine], values[fine]
        if not times.size:
            return
        counts = np.ones_like(values) if weights is None else np.where(np.isfinite(weights[fine]), weights[fine], 1.0)
        self.events += int(times.size)
        self.first_at, self.last_at = min(self.first_at, float(times.min())), max(self.last_at, float(times.max()))
        while (self.last_at - self.first_at) / self.width_s > _MOST:
            self._widen()
        index = np.floor(times / self.width_s).astype(np.int64)
        for each in np.unique(index).tolist():
            mine = index == each
            held = _Bin(
                float(counts[mine].sum()),
                float((counts[mine] * values[mine]).sum()),
                float(values[mine].min()),
                float(values[mine].max()),
            )
            self._bins.setdefault(each, _Bin()).add(held)

    def points(self) -> list[Point]:
        """Return the points, in the order of time."""
        return [
            Point((index + 0.5) * self.width_s, held.total / held.weight, held.low, held.high)
            for index, held in sorted(self._bins.items())
            if held.weight > 0
        ]

    def _widen(self) -> None:
        self.width_s *= 2.0
        old, self._bins = self._bins, {}
        for index, held in old.items():
            self._bins.setdefault(index // 2, _Bin()).add(held)


def chosen(times: Floats, ok: Bools | None, since_s: float) -> Bools:
    """Return which events of a batch count: accepted ones that are late enough."""
    late_enough: Bools = times >= since_s
    return late_enough if ok is None else late_enough & ok


def bounds(series: Iterable[Series]) -> tuple[float, float] | None:
    """Return the first and the last moment of several series; None where they hold nothing."""
    held = [each for each in series if each.events]
    return (min(each.first_at for each in held), max(each.last_at for each in held)) if held else None

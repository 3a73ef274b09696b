"""Turns the values of a metric into scores that look standard normal and independent, whatever the metric is.

Rank scores make one threshold good for any distribution (Conover, Tercero-Gomez, Cordero-Franco 2017, "The
sequential normal scores transformation"); AR(1) prewhitening makes it good for streams whose neighbours are alike.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from actors.drift.interface import Floats
from actors.drift.normal import normal_quantiles

UNIT = 65536.0  # scores are whole multiples of 1 / UNIT, so that float64 sums of them are exact in any order
_KNOTS = 257
_TAIL_KNOTS = 32  # order statistics kept one by one at either end, where alarms are made
_BLOCK = 50  # events: a slow wander or a step in the sample moves few block means, so it hardly inflates phi or scale
_PHI_MAX = 0.98
_SCALE_MIN = 0.5  # of a nearly constant stream; without it a rare event would count as a huge one


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """A monotone map to normal scores, then e_t = (y_t - phi y_{t-1}) / scale, bounded by `cap`.

    Between knots it is linear, outside of them too, at the slope of the outer tenth of the sample.
    """

    x: Floats  # knots, strictly increasing
    y: Floats  # their scores
    below: float  # slope left of x[0]
    above: float  # slope right of x[-1]
    phi: float
    scale: float
    cap: float
    slope: Floats  # between knots, 0 in front and at the end

    @classmethod
    def fit(cls, sample: Floats, *, cap: float, caution: float) -> Self:
        """Learn from `sample: float64[n]`, n >= 2, in the order of the stream.

        `caution` standard errors are added to phi: a phi that is too small makes false alarms, one that is too
        large only costs a little delay.
        """
        n = len(sample)
        values, counts = np.unique(sample, return_counts=True)
        # p = mid-rank / (n + 1): the chance that a new value falls below, which the in-sample (r - 1/2) / n is not.
        rank = np.cumsum(counts) - 0.5 * counts + 0.5
        keep = _knot_positions(len(values))
        x = values[keep]
        y = normal_quantiles(rank[keep] / (n + 1))
        tail = _outer_slopes(x, y)
        scores = cls._build(x, y, tail=tail, cap=cap).raw_scores(sample)
        # Scores of the sample itself vary less than those of new values, by a known factor.
        grid = normal_quantiles(np.arange(1, n + 1) / (n + 1))
        shrinkage = float(np.mean(grid * grid))
        phi, residual_sd = _autoregression(scores, caution)
        scale = max(residual_sd / math.sqrt(shrinkage), _SCALE_MIN)
        return cls._build(x, y, tail=tail, cap=cap, phi=phi, scale=scale)

    @classmethod
    def _build(
        cls, x: Floats, y: Floats, *, tail: tuple[float, float], cap: float, phi: float = 0.0, scale: float = 1.0
    ) -> Self:
        slope = np.concatenate(([0.0], np.diff(y) / np.diff(x), [0.0]))
        return cls(x=x, y=y, below=tail[0], above=tail[1], phi=phi, scale=scale, cap=cap, slope=slope)

    def raw_scores(self, values: Floats) -> Floats:
        """Return the normal scores of `values: float64[n]`, bounded, not yet prewhitened."""
        i = np.searchsorted(self.x, values, side="right")
        left = np.maximum(i - 1, 0)
        scores = self.y[left] + self.slope[i] * (values - self.x[left])
        low, high = self.x[0], self.x[-1]
        if values.min() < low:
            scores = np.where(values < low, self.y[0] + self.below * (values - low), scores)
        if values.max() > high:
            scores = np.where(values > high, self.y[-1] + self.above * (values - high), scores)
        return np.clip(scores, -self.cap, self.cap)

    def whitened(self, scores: Floats, previous: float) -> Floats:
        """Return the prewhitened scores times UNIT, whole numbers; `previous` is the raw score of the event before."""
        lagged = np.empty_like(scores)
        lagged[0] = previous
        lagged[1:] = scores[:-1]
        return np.rint(np.clip((scores - self.phi * lagged) / self.scale, -self.cap, self.cap) * UNIT)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers from which `from_dict` makes the same map, exactly."""
        return {
            "x": self.x.tobytes(),
            "y": self.y.tobytes(),
            "tail": [self.below, self.above],
            "ar": [self.phi, self.scale],
            "cap": self.cap,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        """Return the map that `as_dict` described."""
        x = np.frombuffer(saved["x"], dtype=np.float64).copy()
        y = np.frombuffer(saved["y"], dtype=np.float64).copy()
        phi, scale = saved["ar"]
        return cls._build(x, y, tail=tuple(saved["tail"]), cap=saved["cap"], phi=phi, scale=scale)


def _knot_positions(n: int) -> np.typing.NDArray[np.intp]:
    if n <= _KNOTS:
        return np.arange(n)
    middle = np.linspace(_TAIL_KNOTS, n - 1 - _TAIL_KNOTS, _KNOTS - 2 * _TAIL_KNOTS).round().astype(np.intp)
    return np.concatenate((np.arange(_TAIL_KNOTS), middle, np.arange(n - _TAIL_KNOTS, n)))


def _outer_slopes(x: Floats, y: Floats) -> tuple[float, float]:
    if len(x) < 2:
        return 0.0, 0.0
    # Not the last gap but the outer tenth: two close extremes must not make a wall.
    low = max(1, int(np.searchsorted(y, -1.28)))
    high = min(len(x) - 2, int(np.searchsorted(y, 1.28)))
    return float((y[low] - y[0]) / (x[low] - x[0])), float((y[-1] - y[high]) / (x[-1] - x[high]))


def _autoregression(scores: Floats, caution: float) -> tuple[float, float]:
    """Return phi and the standard deviation of y_t - phi y_{t-1}, both from deviations within blocks."""
    n = len(scores)
    block = min(_BLOCK, n)
    used = n - n % block
    rows = scores[n - used :].reshape(-1, block)
    centred = rows - rows.mean(axis=1, keepdims=True)
    variance = float(np.sum(centred * centred))
    if variance <= 1e-12 * n:
        return 0.0, 0.0
    raw = float(np.sum(centred[:, 1:] * centred[:, :-1])) / variance * block / (block - 1)
    # Demeaned blocks pull the estimate down by (1 + 3 phi) / block (Marriott and Pope 1954).
    phi = (raw + 1.0 / block) / (1.0 - 3.0 / block)
    phi = min(max(phi + caution * math.sqrt(max(1.0 - phi * phi, 0.0) / used), 0.0), _PHI_MAX)
    residual = rows[:, 1:] - phi * rows[:, :-1]
    residual = residual - residual.mean(axis=1, keepdims=True)
    degrees = residual.shape[0] * (residual.shape[1] - 1)
    return phi, float(np.sqrt(np.sum(residual * residual) / degrees))

"""Turns the values of a metric into scores that look standard normal and independent, whatever the metric is.

Rank scores make one threshold good for any distribution (Conover, Tercero-Gomez, Cordero-Franco 2017, "The
sequential normal scores transformation"); autoregressive prewhitening makes it good for streams whose neighbours are
alike; where values are tied, the scores' own distribution is handed on instead of the normal one.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from operator import mul
from typing import Self

import numpy as np
import numpy.typing as npt

from actors.drift.distinct import distinct
from actors.drift.interface import LARGEST, Floats
from actors.drift.moments import unit_of
from actors.drift.normal import normal_quantiles
from actors.plain import Saved

UNIT = 65536.0  # scores are whole multiples of 1 / UNIT, so that float64 sums of them are exact in any order
ORDER_MAX = 8  # events before that prewhitening may look at
_KNOTS = 257
_TAIL_KNOTS = 32  # order statistics kept one by one at either end, where alarms are made
_TIED = 0.01  # chance that two values are equal, from which on scores are not taken for normal
_ATOMS_PER_SD = 32.0  # how finely the distribution of tied scores is kept
_BLOCK = 100  # events: a slow wander or a step in the sample moves few block means, so it hardly inflates phi
_EVENTS_PER_ORDER = 12  # of the sample, for each coefficient
_SURE = 3.0  # standard errors from zero at which autocorrelation gets the whole of the caution
_WARY_UNTIL = 800.0  # events; from then on too few data seldom make a false alarm, and caution costs delay
_UNSURE, _UNSURE_UNTIL = 4.0, 100.0  # weight of autocorrelation that no coefficient accounts for, and events until it fades
_SUM_MAX = 0.97  # of the coefficients: no stream is taken for a random walk
_EVIDENCE = 4.0  # of AIC, or a hundredth of the events where that is less
_SCALE_MIN = 1e-6
_TO_WHOLE = (
    1.5 * 2.0**52
)  # a float64 of this size has no fraction: adding it rounds as numpy's rint does, in half of round's time
_SORTED_FROM = 1024  # values looked up at once
_UNSEEN = 2.5  # score of a value that was never seen among about 100
_SIZES = 1e-100, 1e100  # of samples whose differences a float64 can be divided by; others are learned in a unit of their size
_CELL = 4.0  # times the rounding: values of one cell mean the same; the cells must leave room between their flat parts
_GAP_MIN = 1e-200  # in that unit: nearer knots are a step, since no float64 is as steep as the line between them
_WALL_OF_ZERO = 1e100  # slope for a stream that was always 0: any other value is maximally surprising


@dataclass(frozen=True)
class ScoreMap:
    """A monotone map to normal scores y, then e_t = (y_t - sum_k phi_k y_{t-k}) / scale, bounded by `cap`.

    Between knots it is linear, outside of them too, at the slope of the outer tenth of the sample. Values that differ from
    one another by rounding only have one score: the map is flat around them.
    """

    x: Floats  # knots, strictly increasing
    y: Floats  # their scores
    tail: tuple[float, float]  # slopes left of x[0] and right of x[-1]
    phi: tuple[float, ...]  # coefficients of the last events, newest first; at most ORDER_MAX
    scale: float
    cap: float
    atoms: Floats | None  # with ties: float64[2, k], scores and their probabilities; else the scores are normal
    slope: Floats  # between knots, 0 in front and at the end
    unit: float = 1.0  # what values are multiplied by before they are looked up, a power of two

    @classmethod
    def fit(cls, sample: Floats, *, cap: float, caution: float, rounding: float = 0.0) -> tuple[Self, Floats]:
        """Learn from `sample: float64[n]`, n >= 2, in the order of the stream; return the raw scores of the sample too.

        `caution` standard errors are added to the autocorrelation: one that is too small makes false alarms, one that
        is too large only costs a little delay. Differences of at most `rounding` mean nothing.
        """
        n = len(sample)
        size = max(float(np.abs(sample).max()), rounding)
        unit = 1.0 if _SIZES[0] < size < _SIZES[1] else unit_of(size)
        rounding *= unit
        values, counts = distinct(sample * unit)
        width = 0.0
        if _is_tied_by_rounding(values, counts, rounding):
            values, counts = _rounded(values, counts, rounding)
            width = rounding
        # p = mid-rank / (n + 1): the chance that a new value falls below, which the in-sample (r - 1/2) / n is not.
        rank = np.cumsum(counts) - 0.5 * counts + 0.5
        keep = _knot_positions(len(values))
        x = values[keep]
        untied, shrinkage = _scores_without_ties(n)
        y = untied if len(values) == n else normal_quantiles(rank[keep] / (n + 1))
        tail = _outer_slopes(x, y, rounding)
        if width and 2 * len(x) <= _KNOTS:  # more of them lie so far apart that rounding is nothing to them
            x, y = np.stack((x - width, x + width), axis=1).ravel(), np.repeat(y, 2)
        build = partial(cls._build, x, y, tail=tail, cap=cap, unit=unit)
        scores = build().raw_scores(sample)
        phi, residual_sd, margin = _autoregression(scores, caution)
        if _is_tied(counts):
            own = build(phi=phi).whitened(scores)
            return build(phi=phi, atoms=_atoms(own * (margin / shrinkage))), scores
        return build(phi=phi, scale=max(residual_sd * margin / shrinkage, _SCALE_MIN)), scores

    @classmethod
    def _build(
        cls,
        x: Floats,
        y: Floats,
        *,
        tail: tuple[float, float],
        cap: float,
        phi: tuple[float, ...] = (),
        scale: float = 1.0,
        atoms: Floats | None = None,
        unit: float = 1.0,
    ) -> Self:
        slope = np.concatenate(([0.0], np.diff(y) / np.maximum(np.diff(x), _GAP_MIN), [0.0]))
        return cls(x=x, y=y, tail=tail, phi=phi, scale=scale, cap=cap, atoms=atoms, slope=slope, unit=unit)

    @cached_property
    def _table(self) -> tuple[list[float], list[float], list[float]]:
        """x, y and slope again, for single values; batches never need it."""
        return self.x.tolist(), self.y.tolist(), self.slope.tolist()

    @cached_property
    def _reach(self) -> tuple[float, float]:
        """How far from the outer knots scores come to the cap: whatever lies further counts as this, so no slope overflows."""
        below, above = ((2.0 * self.cap + _UNSEEN) / slope if slope > 0.0 else LARGEST for slope in self.tail)
        return below, above

    @cached_property
    def _largest(self) -> float:
        """The largest value that can be multiplied by the unit."""
        return LARGEST / max(self.unit, 1.0)

    def raw_scores(self, values: Floats) -> Floats:
        """Return the normal scores of `values: float64[n]`, bounded, not yet prewhitened."""
        if self.unit != 1.0:
            values = np.clip(values, -self._largest, self._largest) * self.unit
        i = _places(self.x, values)
        left = np.maximum(i - 1, 0)
        scores = self.y[left] + self.slope[i] * (values - self.x[left])
        low, high = self.x[0], self.x[-1]
        below, above = self.tail
        if values.min() < low:
            scores = np.where(values < low, self.y[0] + below * np.clip(values - low, -self._reach[0], 0.0), scores)
        if values.max() > high:
            scores = np.where(values > high, self.y[-1] + above * np.clip(values - high, 0.0, self._reach[1]), scores)
        return np.clip(scores, -self.cap, self.cap)

    def whitened(self, scores: Floats, past: Floats | None = None) -> Floats:
        """Return the prewhitened scores times UNIT, whole numbers.

        `past: float64[ORDER_MAX]` are the raw scores of the events before, newest last; without it they were average.
        """
        if self.phi:
            line = np.concatenate((np.zeros(ORDER_MAX) if past is None else past, scores))
            last = len(line)
            scores = scores.copy()
            for k, phi in enumerate(self.phi, start=1):
                scores -= phi * line[ORDER_MAX - k : last - k]
        return np.rint(np.clip(scores / self.scale, -self.cap, self.cap) * UNIT)

    def raw_score(self, value: float) -> float:
        """Do what `raw_scores` does for one value, operation by operation, in plain floats."""
        if self.unit != 1.0:
            value = min(max(value, -self._largest), self._largest) * self.unit
        x, y, slope = self._table
        i = bisect_right(x, value)
        left = i - 1 if i else 0
        if i == 0:
            score = y[0] + self.tail[0] * (value - x[0])
        elif value > x[-1]:
            score = y[-1] + self.tail[1] * (value - x[-1])
        else:
            score = y[left] + slope[i] * (value - x[left])
        cap = self.cap
        return cap if score > cap else -cap if score < -cap else score  # noqa: FURB136  # min and max cost half of this method

    def whitened_score(self, score: float, past: list[float]) -> float:
        """Do what `whitened` does for one raw score; `past` are those of the events before, newest last."""
        for k, phi in enumerate(self.phi, start=1):
            score -= phi * past[-k]
        score /= self.scale
        cap = self.cap
        score = UNIT * (cap if score > cap else -cap if score < -cap else score)  # noqa: FURB136  # as above
        return score + _TO_WHOLE - _TO_WHOLE

    @property
    def lag_one(self) -> float:
        """Return the sum of the coefficients: an AR(1) with it has the same long-run variance."""
        return float(sum(self.phi))

    def as_dict(self) -> Saved:
        """Return the numbers from which `from_dict` makes the same map, exactly."""
        return {
            "x": self.x.tobytes(),
            "y": self.y.tobytes(),
            "tail": list(self.tail),
            "phi": list(self.phi),
            "scale": self.scale,
            "cap": self.cap,
            "atoms": None if self.atoms is None else self.atoms.tobytes(),
            "unit": self.unit,
        }

    @classmethod
    def from_dict(cls, saved: Saved) -> Self:
        """Return the map that `as_dict` described."""
        below, above = saved["tail"]
        return cls._build(
            np.frombuffer(saved["x"], dtype=np.float64),
            np.frombuffer(saved["y"], dtype=np.float64),
            tail=(below, above),
            cap=saved["cap"],
            phi=tuple(saved["phi"]),
            scale=saved["scale"],
            atoms=None if saved["atoms"] is None else np.frombuffer(saved["atoms"], dtype=np.float64).reshape(2, -1),
            unit=float(saved.get("unit", 1.0)),  # an earlier build had none
        )


@lru_cache(maxsize=32)  # a detector asks for the same few n after every alarm
def _scores_without_ties(n: int) -> tuple[Floats, float]:
    """Return the scores of the knots of n different values; and how much less than new ones the scores of a sample vary."""
    scores = normal_quantiles(np.arange(1, n + 1) / (n + 1))
    at_knots = scores[_knot_positions(n)]
    at_knots.flags.writeable = False
    return at_knots, math.sqrt(float(np.mean(scores * scores)))


def _places(x: Floats, values: Floats) -> np.typing.NDArray[np.intp]:
    """Return `np.searchsorted(x, values, side="right")`.

    Many values: sort them instead, which vector units do, and look the few knots up among them; a third of the time.
    """
    if len(values) < _SORTED_FROM:
        return np.searchsorted(x, values, side="right")
    order = np.argsort(values)
    before = np.searchsorted(values[order], x)
    places = np.empty(len(values), dtype=np.intp)
    places[order] = np.repeat(np.arange(len(x) + 1), np.diff(before, prepend=0, append=len(values)))
    return places


def _knot_positions(n: int) -> np.typing.NDArray[np.intp]:
    if n <= _KNOTS:
        return np.arange(n)
    middle = np.linspace(_TAIL_KNOTS, n - 1 - _TAIL_KNOTS, _KNOTS - 2 * _TAIL_KNOTS).round().astype(np.intp)
    return np.concatenate((np.arange(_TAIL_KNOTS), middle, np.arange(n - _TAIL_KNOTS, n)))


def _is_tied(counts: npt.NDArray[np.intp]) -> bool:
    """Return whether two values of a sample are equal so often that its scores are not normal."""
    n = int(counts.sum())
    return float(np.sum(counts * (counts - 1.0))) > _TIED * n * (n - 1.0)


def _is_tied_by_rounding(values: Floats, counts: npt.NDArray[np.intp], rounding: float) -> bool:
    """Return whether different values mean the same so often; a few near ones in a continuous sample are no ties."""
    if rounding <= _GAP_MIN:
        return False
    if len(values) == 1:
        return True
    return float(np.diff(values).min()) <= _CELL * rounding and _is_tied(_rounded(values, counts, rounding)[1])


def _rounded(values: Floats, counts: npt.NDArray[np.intp], rounding: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the cells that the values lie in, one of them around the median, and how many values are in each."""
    middle = float(values[np.searchsorted(np.cumsum(counts), 0.5 * counts.sum())])
    cells = np.rint((values - middle) / (_CELL * rounding))
    first = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
    return middle + cells[first] * (_CELL * rounding), np.add.reduceat(counts, first)


def _outer_slopes(x: Floats, y: Floats, rounding: float) -> tuple[float, float]:
    if len(x) < 2:  # a constant stream: anything else is as surprising as can be, but for rounding
        wall = _UNSEEN / rounding if rounding else _WALL_OF_ZERO
        return wall, wall
    # Not the last gap but the outer tenth: two close extremes must not make a wall.
    low = max(1, int(np.searchsorted(y, -1.28)))
    high = min(len(x) - 2, int(np.searchsorted(y, 1.28)))
    left, right = max(float(x[low] - x[0]), _GAP_MIN), max(float(x[-1] - x[high]), _GAP_MIN)
    return float(y[low] - y[0]) / left, float(y[-1] - y[high]) / right


def _atoms(whitened: Floats) -> Floats:
    """Return the distribution of tied scores, float64[2, k], with one more event of either sign than was seen.

    Without it the first deviation from a constant would be infinitely surprising.
    """
    n = len(whitened)
    grid = np.round(whitened / UNIT * _ATOMS_PER_SD)
    values, counts = distinct(grid)
    values = np.concatenate((values / _ATOMS_PER_SD, [-_UNSEEN, _UNSEEN]))
    weights = np.concatenate((counts.astype(np.float64), [0.5, 0.5])) / (n + 1)
    return np.stack((values - float(np.sum(values * weights)), weights))


def _autoregression(scores: Floats, caution: float) -> tuple[tuple[float, ...], float, float]:
    """Return the coefficients of the last events, the deviation of what they leave unexplained, and a margin, a factor, for it.

    Yule-Walker from deviations within blocks, the order chosen by AIC (Akaike 1974).
    """
    n = len(scores)
    block = min(_BLOCK, n)
    used = n - n % block
    rows = scores[n - used :].reshape(-1, block)
    raw = _covariances(rows)
    if raw[0] <= 1e-12:
        return (), 0.0, 1.0
    # Demeaning a block removes the variance of its mean, which depends on the answer: three rounds settle it.
    missing = raw[0] / (block - 1.0)
    phi: tuple[float, ...] = ()
    for _ in range(3):
        covariance = [c + missing for c in raw]
        phi, noise = _levinson(covariance[: max(1, n // _EVENTS_PER_ORDER) + 1], used)
        if not phi:
            break
        missing = min(noise / max(1.0 - sum(phi), 1.0 - _SUM_MAX) ** 2 / block, 0.5 * raw[0])
    if _spread_of_sums(raw, block) <= 1.0:
        # Neighbours make up for each other, as in a pattern that repeats itself. That is foreseen by coefficients of any
        # sum, also of one near 1, under which a lasting shift would look like more of the pattern.
        worst = max(_spread_of_sums(raw[:k], block) for k in range(1, len(raw) + 1))
        return (), math.sqrt(raw[0] * block / (block - 1.0)), math.sqrt(worst)
    left, length = raw, block
    if phi:
        total = sum(phi)
        caution *= min(1.0, _WARY_UNTIL / used)
        error = math.sqrt(max(1.0 - total * total, 0.0) / used)
        wary = min(max(total + caution * min(error, max(total, 0.0) / _SURE), 0.0), _SUM_MAX)
        phi = (phi[0] + wary - total, *phi[1:])
        residual = rows[:, len(phi) :].copy()
        for k, coefficient in enumerate(phi, start=1):
            residual -= coefficient * rows[:, len(phi) - k : block - k]
        left, length = _covariances(residual), residual.shape[1]
        if left[0] <= 1e-12:
            return phi, 0.0, 1.0
    # The first fits see only the strongest autocorrelation; what else makes neighbours add up counts as noise.
    unseen = max(_spread_of_sums(left, length) - 1.0, 0.0) * _UNSURE * min(1.0, _UNSURE_UNTIL / used) ** 2
    return phi, math.sqrt(left[0] * length / (length - 1.0)), math.sqrt(1.0 + unseen)


def _covariances(rows: Floats) -> list[float]:
    """Return the autocovariances within the `rows: float64[blocks, events]`, at lags 0 to ORDER_MAX."""
    count, block = rows.shape
    # Blocks end to end with zeros between them: a shifted product of the whole line is the sum over all blocks.
    line = np.zeros((count, block + ORDER_MAX))
    np.subtract(rows, rows.mean(axis=1, keepdims=True), out=line[:, :block])
    line = line.ravel()
    return [float(line[k:] @ line[: len(line) - k]) / (count * (block - k)) for k in range(ORDER_MAX + 1)]


def _spread_of_sums(covariance: list[float], block: int) -> float:
    """Return the variance of a sum of so many neighbours within a block, in that of as many independent events."""
    m = len(covariance)
    variance = covariance[0] + 2.0 * sum((m - k) / m * covariance[k] for k in range(1, m))
    return variance / covariance[0] / (1.0 - m / block)


def _levinson(covariance: list[float], n: int) -> tuple[tuple[float, ...], float]:
    """Return the coefficients and noise variance of the order with the least AIC (Levinson 1946, Durbin 1960).

    Order 0 unless the best other order beats it by _EVIDENCE: a spurious coefficient costs delay on every stream.
    """
    phi: list[float] = []
    noise = covariance[0]
    nothing = n * math.log(noise) - min(_EVIDENCE, n / 100.0)
    best: tuple[float, tuple[float, ...], float] = (nothing, (), noise)
    for k in range(1, len(covariance)):
        partial = (covariance[k] - sum(map(mul, phi, covariance[k - 1 : 0 : -1]))) / noise
        partial = min(max(partial, -_SUM_MAX), _SUM_MAX)
        phi = [p - partial * q for p, q in zip(phi, reversed(phi), strict=True)] + [partial]
        noise *= 1.0 - partial * partial
        score = n * math.log(noise) + 2.0 * k
        if score < best[0]:
            best = (score, tuple(phi), noise)
    return best[1], best[2]

"""Finds the window of recent scores, of any length, whose mean is too far from the mean of all scores.

The statistic for the last L of n scores is T = |D - L * mean| / sqrt(L (1 - L/n)), D their sum and mean that of all
n: the generalised likelihood ratio of a step L events ago, levels unknown (Hawkins, Qiu, Kang 2003), window-limited
(Lai 1995). Looking at all lengths at every event would cost microseconds, so CUSUMs look first: a CUSUM with pull k
is the largest D - kL over every L, hence bounds them all. Events it cannot clear, about one in a hundred, are
scanned in full, and only the full scan decides.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.drift.interface import Direction, Floats
from actors.drift.score_map import UNIT

LONGEST = 4096  # events: the longest window; it finds a shift of 0.1 sd
SHARE = 0.8  # a window covers at most this part of all events, the rest being the baseline

# Every length up to 12, then eight to the octave: a step between two lengths loses less than 0.1% of the statistic.
LENGTHS: npt.NDArray[np.int64] = np.array(
    sorted({*range(1, 13), *(round(12 * 2.0 ** (step / 8)) for step in range(1, 68)), LONGEST}), dtype=np.int64
)
_LENGTH = LENGTHS.astype(np.float64)
_SQRT_LENGTH = np.sqrt(_LENGTH)

# One CUSUM either way serves the lengths of one band.
_BAND_EDGES = np.array([6, 30, 120, 500, 1500])
_BAND = np.searchsorted(_BAND_EDGES, LENGTHS, side="right")
_BANDS = len(_BAND_EDGES) + 1
# Long windows change little from event to event: each band is looked at once in so many events, which costs at most
# a twentieth of the window in delay.
_STRIDE = 2 ** np.floor(np.log2(np.maximum(np.concatenate(([1], _BAND_EDGES)) / 20.0, 1.0))).astype(np.int64)
_STRIDES = _STRIDE.tolist()
_BAND_NUMBERS = range(_BANDS)
_NEVER = 1e300  # what no CUSUM reaches; an infinity could not be interpolated
_STRETCH = 1.125  # factor of n for which one bound of the screen serves
_STRIDE_OF_LENGTH = _STRIDE[_BAND]
_FIRST_OF_BAND = np.searchsorted(_BAND, np.arange(_BANDS))
_LAST_OF_BAND = np.searchsorted(_BAND, np.arange(_BANDS), side="right") - 1
_MIDDLE_OF_BAND = np.searchsorted(LENGTHS, np.sqrt(_LENGTH[_FIRST_OF_BAND] * _LENGTH[_LAST_OF_BAND]))
# By how much more improbable a sum of tied scores must be than one of normal scores: their distribution is learned too,
# and large deviations are exact but for a factor. Found by simulation on binomial streams.
_TIED_SURPLUS = 0.25
_SCREENED_AT_ONCE = 2048  # events; 2,048 x 6 sums are not yet so large that malloc gets new pages for them every time
_SCANNED_AT_ONCE = 128  # events; 128 x 80 sums stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Excess:
    """The windows of one event that are over the limit: `length`, `statistic`, `threshold`, worst first."""

    row: int  # of the event within the scores fed
    lengths: list[int]
    statistics: list[float]
    thresholds: list[float]
    up: list[bool]


class WindowScan:
    """Sums of scores, and the lengths over which they are too large. Scores are whole multiples of 1 / UNIT.

    `heights: float64[len(LENGTHS)]` are the limits of T when n is large; with few events they are higher by the factor
    1 + early / n + unshown / n^2, since the scores and their mean are then not known well.
    """

    def __init__(self, heights: Floats, *, direction: Direction, unshown: float = 0.0) -> None:
        self._heights = heights
        self._unshown = unshown
        self._direction = direction
        self._sums = np.zeros(512)  # sums up to each of the last events; [end] is the newest, the first ones a past
        self._rates = (0.5 * heights**2 + _TIED_SURPLUS) / _LENGTH  # of a mean that alarms: how improbable it is, per event
        self._normal_edge = UNIT * heights * _SQRT_LENGTH
        self.clear()

    def _set_distribution(self, atoms: Floats | None) -> None:
        """Take the scores for standard normal (None), or for these: `atoms: float64[2, k]`, values and probabilities.

        A sum of L is then over the limit when it is as improbable, to large-deviation accuracy (Cramer 1938), as one
        of L normal scores at `heights`.
        """
        if atoms is None:
            self._edge_up = self._edge_down = self._normal_edge
        else:
            # However rare a value was, a single one is no alarm: scores stay below the height of a window of one event.
            least = UNIT * self._heights[0]
            self._edge_up = np.maximum(UNIT * _LENGTH * _rare_mean(atoms, self._rates), least)
            self._edge_down = np.maximum(UNIT * _LENGTH * _rare_mean(atoms * [[-1.0], [1.0]], self._rates), least)

    def clear(self) -> None:
        """Forget all scores."""
        self._set_distribution(None)
        self._pull_up = self._pull_down = [UNIT] * _BANDS
        self._early = 0.0
        self.n = 0
        self.total = 0.0  # sum of all scores, exact
        self._sums[0] = 0.0
        self._end = 0
        self._lowest = [0.0] * _BANDS  # of sum - pull * n: what the upward CUSUM is measured from
        self._highest = [0.0] * _BANDS
        self._trusted_to = -1.0  # the bounds of the screen hold up to this n ...
        self._mean_low = self._mean_high = 0.0  # ... while the mean stays in here
        self._one_to = -1.0  # the same of those for single scores
        self._one_low = self._one_high = 0.0

    def restart(self, scores: Floats, *, n: int, total: float, atoms: Floats | None, early: float) -> None:
        """Continue after `n` events with the sum `total`, the last of which had these `scores: float64[<= n]`."""
        self.clear()
        self._set_distribution(atoms)
        self._early = early
        self._pull_up = self._pull_down = _pull(self._edge_up, n)
        if atoms is not None:
            self._pull_down = _pull(self._edge_down, n)
        self.n, self.total = n, total
        scores = scores[-LONGEST:]
        m = len(scores)
        self._reserve(m)
        self._sums[0] = total - float(scores.sum())
        np.add.accumulate(np.concatenate((self._sums[:1], scores)), out=self._sums[: m + 1])
        self._end = m
        sums = self._sums[: m + 1]
        at = np.arange(n - m, n + 1, dtype=np.float64)
        for b in range(_BANDS):
            self._lowest[b] = float((sums - self._pull_up[b] * at).min())
            self._highest[b] = float((sums + self._pull_down[b] * at).max())

    def feed(self, scores: Floats) -> Iterator[Excess]:
        """Take `scores: float64[m]`, m >= 1, and yield the events with a window over the limit, in order.

        Exhaust it, or `clear` and start anew.
        """
        m = len(scores)
        self._reserve(m)
        first = self._end + 1
        sums = self._sums[first : first + m]
        np.add.accumulate(np.concatenate((self._sums[self._end : first], scores)), out=self._sums[first - 1 : first + m])
        n = np.arange(self.n + 1, self.n + m + 1, dtype=np.float64)
        mean = sums / n
        self._make_bounds(float(n[0]), float(n[-1]), float(mean.min()), float(mean.max()))
        for some in range(0, m, _SCREENED_AT_ONCE):
            part = slice(some, some + _SCREENED_AT_ONCE)
            suspects = some + self._suspects(sums[part], n[part], mean[part])
            for start in range(0, len(suspects), _SCANNED_AT_ONCE):
                yield from self._scan(first, suspects[start : start + _SCANNED_AT_ONCE], n)
        self.total = float(sums[-1])
        self.n += m
        self._end += m

    def feed_one(self, score: float) -> Iterator[Excess] | tuple[()]:
        """Do what `feed` does for one score, in plain floats: numpy's fixed costs would be ten times the work."""
        if self._end + 1 >= len(self._sums):
            self._reserve(1)
        self._end += 1
        self.n = n = self.n + 1
        self.total = total = self.total + score
        self._sums[self._end] = total
        mean = total / n
        if n > self._one_to or not self._one_low <= mean <= self._one_high:
            self._bounds_of_one(n, mean)
        suspect = False
        lowest, highest = self._lowest, self._highest
        for b, pull_up, pull_down, low, high, up, down in zip(
            _BAND_NUMBERS, self._pull_up, self._pull_down, lowest, highest, self._up, self._down, strict=True
        ):
            level = total - pull_up * n
            if level < low:
                low = lowest[b] = level  # noqa: PLW2901  the CUSUM is at its lowest here
            if level - low >= up and n % _STRIDES[b] == 0:
                suspect = True
            level = total + pull_down * n
            if level > high:
                high = highest[b] = level  # noqa: PLW2901  as above: at its highest
            if high - level >= down and n % _STRIDES[b] == 0:
                suspect = True
        return self._scan(self._end, np.zeros(1, dtype=np.intp), np.array([float(n)])) if suspect else ()

    def _bounds_of_one(self, n: int, mean: float) -> None:
        slack = 0.5 * UNIT / math.sqrt(n)
        self._one_low, self._one_high, self._one_to = mean - slack, mean + slack, _STRETCH * n
        between = np.array([float(n)]), np.array([self._one_to]), self._one_low, self._one_high
        self._up = self._down = [_NEVER] * _BANDS
        if self._direction != "down":
            self._up = np.minimum(*self._up_between(*between))[:, 0].tolist()
        if self._direction != "up":
            self._down = np.minimum(*self._down_between(*between))[:, 0].tolist()

    def worst(self) -> tuple[float, float]:
        """Return the statistic and threshold of the length that is closest to its limit now."""
        if self.n * SHARE < 1:
            return 0.0, float(self._heights[0])
        size, limit, factor, _ = self._sizes(np.array([self._end]), np.array([float(max(self.n, 1))]), every=True)
        j = int(np.argmax(size[0] / limit[0]))
        threshold = float(self._heights[j] * factor[0])
        return float(size[0, j] / limit[0, j]) * threshold, threshold

    # --- the screen -------------------------------------------------------------------------------------------

    def _suspects(self, sums: Floats, n: Floats, mean: Floats) -> npt.NDArray[np.intp]:
        """Return the events, as indices, that no CUSUM can clear; all bands at once, float64[bands, m]."""
        over = np.zeros((_BANDS, len(n)), dtype=bool)
        line = np.empty((_BANDS, len(n) + 1))
        if self._direction != "down":
            line[:, 0] = self._lowest
            np.subtract(sums, np.multiply.outer(self._pull_up, n), out=line[:, 1:])
            low = np.minimum.accumulate(line, axis=1)
            np.greater_equal(line[:, 1:] - low[:, 1:], self._limits(self._bounds_up, n, mean), out=over)
            self._lowest = low[:, -1].tolist()
        if self._direction != "up":
            line[:, 0] = self._highest
            np.add(sums, np.multiply.outer(self._pull_down, n), out=line[:, 1:])
            high = np.maximum.accumulate(line, axis=1)
            over |= high[:, 1:] - line[:, 1:] >= self._limits(self._bounds_down, n, mean)
            self._highest = high[:, -1].tolist()
        found = over[0]  # the band that is looked at every time
        for stride, band in zip(_STRIDES[1:], over[1:], strict=True):
            start = -int(n[0]) % stride
            found[start::stride] |= band[start::stride]
        return np.flatnonzero(found)

    def _make_bounds(self, n0: float, n1: float, mean_low: float, mean_high: float) -> None:
        """Make the bounds for n in [n0, n1] and such means, unless those at hand hold there.

        They are made for stretches of n and for two means that lie somewhat further apart.
        """
        if n1 <= self._trusted_to and self._mean_low <= mean_low and mean_high <= self._mean_high:
            return
        slack = 0.5 * UNIT / math.sqrt(n0)
        self._mean_low, self._mean_high = mean_low - slack, mean_high + slack
        count = 1 + int(math.log(n1 / n0) / math.log(_STRETCH))
        edges = n0 * _STRETCH ** np.arange(count + 1, dtype=np.float64)
        self._trusted_to, self._stretches = float(edges[-1]), edges[1:-1]
        between = edges[:-1], edges[1:], self._mean_low, self._mean_high
        if self._direction != "down":
            self._bounds_up = self._up_between(*between)
        if self._direction != "up":
            self._bounds_down = self._down_between(*between)

    def _limits(self, bounds: tuple[Floats, Floats], n: Floats, mean: Floats) -> Floats:
        """Return what the CUSUMs of one way must reach before any length can be over: float64[bands, m or 1]."""
        at_low, at_high = bounds
        if len(self._stretches) == 0:
            return np.minimum(at_low, at_high)
        # A bound is the least of several lines in the mean, hence concave, hence nowhere below its chord.
        share = (mean - self._mean_low) / (self._mean_high - self._mean_low)
        ends = np.searchsorted(n, self._stretches, side="right")
        times = np.diff([0, *ends.tolist(), len(n)])
        limits: Floats = np.repeat(at_high - at_low, times, axis=1)
        limits *= share
        limits += np.repeat(at_low, times, axis=1)
        return limits

    def _up_between(self, n0: Floats, n1: Floats, low: float, high: float) -> tuple[Floats, Floats]:
        """Return the upward limits for n in [n0, n1], `float64[k]` each, at the means `low` and `high`: float64[bands, k]."""
        edge, pull = self._edge_up * self._factor(n0, n1) - 1.0, np.take(self._pull_up, _BAND)
        return _least_of_bands(edge - (pull - low) * _LENGTH), _least_of_bands(edge - (pull - high) * _LENGTH)

    def _down_between(self, n0: Floats, n1: Floats, low: float, high: float) -> tuple[Floats, Floats]:
        """Return the same downward."""
        edge, pull = self._edge_down * self._factor(n0, n1) - 1.0, np.take(self._pull_down, _BAND)
        return _least_of_bands(edge - (pull + low) * _LENGTH), _least_of_bands(edge - (pull + high) * _LENGTH)

    def _factor(self, n0: Floats, n1: Floats) -> Floats:
        """Return the least that a length's edge is multiplied by for n in [n0, n1]: float64[k, lengths], inf for no limit.

        Bounds take one off the edges for the rounding here; the sums themselves are exact.
        """
        n0, n1 = n0[:, np.newaxis], n1[:, np.newaxis]
        factor: Floats = np.sqrt(np.maximum(1.0 - _LENGTH / n0, 1.0 - SHARE)) * self._early_factor(n1)
        factor[SHARE * n1 < _LENGTH] = np.inf
        return factor

    def _early_factor(self, n: Floats) -> Floats:
        return 1.0 + (self._early + self._unshown / n) / n

    # --- the decision -----------------------------------------------------------------------------------------

    def _sizes(self, ends: npt.NDArray[np.intp], n: Floats, *, every: bool = False) -> tuple[Floats, Floats, Floats, Floats]:
        """Return |D - L mean|, its limit: float64[events, lengths], the early factor: float64[events], D - L mean.

        A window that is not due at an event has no limit there, unless `every` is set.
        """
        usable = int(np.searchsorted(_LENGTH, SHARE * n[-1], side="right"))
        length = _LENGTH[:usable]
        total = self._sums[ends][:, np.newaxis]
        before = self._sums[np.maximum(ends[:, np.newaxis] - LENGTHS[:usable], 0)]
        n = n[:, np.newaxis]
        excess = total - before - length * (total / n)
        share = length / n
        factor = self._early_factor(n)
        edge = self._edge_up[:usable]
        if self._edge_down is not self._edge_up:
            edge = np.where(excess > 0, edge, self._edge_down[:usable])
        limit = edge * np.sqrt(np.maximum(1.0 - share, 0.0)) * factor
        limit[share > SHARE] = np.inf
        if not every:
            whole = n.astype(np.int64)
            limit[(whole & -whole) < _STRIDE_OF_LENGTH[:usable]] = np.inf  # strides are powers of two
        size = {"both": np.abs, "up": np.positive, "down": np.negative}[self._direction](excess)
        return size, limit, factor[:, 0], excess

    def _scan(self, first: int, rows: npt.NDArray[np.intp], n: Floats) -> Iterator[Excess]:
        size, limit, factor, excess = self._sizes(first + rows, n[rows])
        over = size >= limit
        for i in np.flatnonzero(over.any(axis=1)):
            lengths = np.flatnonzero(over[i])
            ratio = size[i, lengths] / limit[i, lengths]
            order = np.argsort(-ratio, kind="stable")
            lengths, ratio = lengths[order], ratio[order]
            thresholds = self._heights[lengths] * factor[i]
            yield Excess(
                row=int(rows[i]),
                lengths=LENGTHS[lengths].tolist(),
                statistics=(ratio * thresholds).tolist(),
                thresholds=thresholds.tolist(),
                up=(excess[i, lengths] > 0).tolist(),
            )

    def _reserve(self, more: int) -> None:
        """Reserve space for `more` sums behind the newest, keeping the last LONGEST."""
        if self._end + 1 + more <= len(self._sums):
            return
        keep = min(self._end, LONGEST)
        size = len(self._sums)
        while size < 2 * keep + 1 + more and size < keep + 1 + more + LONGEST:
            size *= 2
        sums = np.zeros(size)
        sums[: keep + 1] = self._sums[self._end - keep : self._end + 1]
        self._sums, self._end = sums, keep


def _least_of_bands(limits: Floats) -> Floats:
    """Return the least limit of each band: float64[bands, k] of float64[k, lengths]."""
    least: Floats = np.minimum(np.minimum.reduceat(limits, _FIRST_OF_BAND, axis=1).T, _NEVER)
    return least


def _pull(edge: Floats, n: int) -> list[float]:
    """Return per band the pull at which a CUSUM's bound is tightest for its middle length: half of the mean that alarms."""
    mean = edge * np.sqrt(np.maximum(1.0 - _LENGTH / (1.4 * n), 1.0 - SHARE)) / _LENGTH
    middle = mean[_MIDDLE_OF_BAND]
    middle = np.where(np.isfinite(middle), middle, mean[_LAST_OF_BAND])  # of ties so rare that no shorter window alarms
    pull: list[float] = np.where(np.isfinite(middle), np.round(0.5 * middle), UNIT).tolist()
    return pull


_TILTS = np.geomspace(0.003, 60.0, 160)


def _rare_mean(atoms: Floats, rate: Floats) -> Floats:
    """Return the means x with I(x) = rate, I the large-deviation rate of the distribution; inf where none is so rare.

    I(x) = sup_t (t x - K(t)), K the logarithm of the moment generating function: x = K'(t) at I = t K'(t) - K(t).
    """
    value, weight = atoms
    highest = float(value.max())
    tilted = np.exp(np.multiply.outer(_TILTS, value - highest))
    mass = tilted @ weight
    mean = tilted @ (weight * value) / mass
    known = np.maximum.accumulate(_TILTS * (mean - highest) - np.log(mass))
    means: Floats = np.interp(rate, known, mean, right=np.inf)
    return means

"""Seasons by the calendar: learns the usual pattern of a metric over the day or week, and subtracts it.

A season by event number breaks as soon as an event is missing or the rate changes; this one goes by time. The pattern
is a periodic line through knots, fitted by penalised least squares (P-splines: Eilers, Marx 1996) to the deviations
from each period's own mean, so that neither a change of level nor a trend between periods becomes part of it.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from actors.drift.interface import (
    Alarm,
    DriftStrategy,
    Floats,
    Progress,
    as_values,
    check_count,
    check_number,
    pack_state,
    unpack_state,
)
from actors.plain import Saved

PERIODS: dict[str, float] = {"day": 86_400.0, "week": 7 * 86_400.0}  # in seconds
_KNOTS_DAY, _KNOTS_WEEK = 24, 56  # an hour apart, three hours apart
_LEARNED_FROM = 3.0  # periods before the pattern is used
_LEARNED_UNTIL = 48.0  # periods after which it stays as it is; learned anew whenever twice as many are known
_SMOOTH = 1.0  # weight of the squared second differences between knots, in events
_NAME = "seasonal"

Index = npt.NDArray[np.intp]


def knots_of(period_s: float) -> int:
    """Return how many knots a season of this period, in seconds, is drawn with.

    >>> knots_of(PERIODS["day"]), knots_of(PERIODS["week"])
    (24, 56)
    """
    check_number("period_s", period_s, above=0.0)
    return _KNOTS_DAY if period_s <= 2 * PERIODS["day"] else _KNOTS_WEEK


class SeasonProfile:
    """The pattern of a metric over one period, learned from values that come with their time.

    Times are `turns: float64[n]`: (seconds since the epoch + offset of the time zone) / period. Their fraction is the
    phase. They need not be in order; gaps and changing rates do no harm.
    """

    def __init__(self, knots: int = _KNOTS_DAY) -> None:
        self._knots = check_count("knots", knots, low=4, high=96)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        k = self._knots
        # Sums of the weights that values give to the knots on their left and right: of both squares and the product, and
        # of either times the value. Apart, since one after the other they do not depend on the cut of the calls.
        self._pairs = np.zeros((3, k))
        self._products = np.zeros((2, k))
        self._turn_knots = np.zeros((2, k))  # of the turn that is being added up
        self._turn, self._turn_n, self._turn_sum = 0, 0.0, 0.0
        self._means = np.zeros((k, k))  # the correction of the normal equations for the means of earlier periods
        self._mean_products = np.zeros(k)
        self._line = np.zeros(k + 1)

    def learn(self, turns: Floats, values: Floats) -> None:
        """Take values into the sums; `fit` makes a pattern of them. One after the other: the cut of calls cannot matter."""
        whole = np.floor(turns)
        # A late value counts as one of the turn that goes on: it is compared with that turn's mean.
        whole = np.maximum.accumulate(np.maximum(whole, self._turn if self._turn_n else -math.inf))
        left, right, share = self._between(turns)
        starts = np.flatnonzero(np.diff(whole, prepend=self._turn if self._turn_n else whole[0]))
        for part in np.split(np.arange(len(values)), starts):
            if len(part) == 0:
                continue
            if self._turn_n and whole[part[0]] != self._turn:
                self._close()
            self._turn = int(whole[part[0]])
            self._add(left[part], right[part], share[part], values[part])

    def _between(self, turns: Floats) -> tuple[Index, Index, Floats]:
        """Return the knots on either side of each moment, and how far it is on its way to the right one."""
        place = (turns - np.floor(turns)) * self._knots
        left = np.minimum(place.astype(np.intp), self._knots - 1)
        return left, (left + 1) % self._knots, place - left

    def _add(self, left: Index, right: Index, share: Floats, values: Floats) -> None:
        near, far = 1.0 - share, share
        for sums, weight in zip(self._pairs, (near * near, far * far, near * far), strict=True):
            np.add.at(sums, left, weight)
        for side, (knot, weight) in enumerate(((left, near), (right, far))):
            np.add.at(self._products[side], knot, weight * values)
            np.add.at(self._turn_knots[side], knot, weight)
        self._turn_n += len(values)
        self._turn_sum = float(np.add.accumulate(np.concatenate(([self._turn_sum], values)))[-1])

    def _of_turn(self) -> tuple[Floats, Floats]:
        """Return the correction of the normal equations for the mean of the unfinished period."""
        knots = self._turn_knots.sum(axis=0)
        n = max(self._turn_n, 1.0)
        return np.outer(knots, knots) / n, knots * (self._turn_sum / n)

    def _close(self) -> None:
        means, products = self._of_turn()
        self._means += means
        self._mean_products += products
        self._turn_n, self._turn_sum = 0.0, 0.0
        self._turn_knots[:] = 0.0

    def fit(self) -> None:
        """Make the pattern of all values so far; its mean over the period is 0."""
        k = self._knots
        here = np.arange(k)
        right = (here + 1) % k
        means, mean_products = self._of_turn()
        system = -self._means - means
        near, far, between = self._pairs
        system[here, here] += near
        system[right, right] += far
        system[here, right] += between
        system[right, here] += between
        bend = np.roll(np.eye(k), 1, axis=1) - 2.0 * np.eye(k) + np.roll(np.eye(k), -1, axis=1)
        # The level is free in the sums and in the penalty: the last term sets it, and the mean is subtracted below.
        system += _SMOOTH * bend.T @ bend + 1.0 / k
        pattern = np.linalg.solve(system, self._products.sum(axis=0) - self._mean_products - mean_products)
        pattern -= pattern.mean()
        self._line = np.append(pattern, pattern[0])

    def at(self, turns: Floats) -> Floats:
        """Return the pattern at these moments; 0 before the first `fit`."""
        place = (turns - np.floor(turns)) * self._knots
        return np.interp(place, np.arange(self._knots + 1), self._line)

    def as_dict(self) -> Saved:
        """Return the numbers that `restore` needs."""
        return {
            "sums": [self._pairs.tobytes(), self._products.tobytes(), self._turn_knots.tobytes()],
            "means": [self._means[np.triu_indices(self._knots)].tobytes(), self._mean_products.tobytes()],
            "turn": [self._turn, self._turn_n, self._turn_sum],
            "line": self._line.tobytes(),
        }

    def restore(self, saved: Saved) -> None:
        """Continue exactly where `as_dict` was taken."""
        upper = np.triu_indices(self._knots)
        sums = (self._pairs, self._products, self._turn_knots)
        for into, content in zip(sums, saved["sums"], strict=True):
            into[:] = np.frombuffer(content).reshape(into.shape)
        self._means[upper] = np.frombuffer(saved["means"][0])
        self._means.T[upper] = self._means[upper]
        self._mean_products = np.frombuffer(saved["means"][1]).copy()
        self._turn, self._turn_n, self._turn_sum = saved["turn"]
        self._line = np.frombuffer(saved["line"]).copy()


class Seasonal:
    """Any detector, watching what is left of a metric without its season.

    What changes faster than a knot is long (an hour of a day, three of a week) is no part of the pattern and stays in.
    It is learned from the first three periods that have events, before which there is no alarm, and anew when 6, 12, 24
    and 48 are known. An alarm does not unlearn it. Levels in alarms are those of the metric without the season, whose
    mean over a period is 0.

    >>> from actors.drift import create
    >>> detector = Seasonal(create("default"), knots=24)
    >>> hours = np.arange(24 * 30.0)
    >>> usual = np.sin(2 * np.pi * hours / 24) + 0.1 * np.random.default_rng(0).standard_normal(len(hours))
    >>> detector.update(usual - 0.5 * (hours > 600), hours / 24)[0].index
    602
    """

    def __init__(self, detector: DriftStrategy, *, knots: int = _KNOTS_DAY, season: str = "") -> None:
        """Take the season from `detector`'s metric; a state is restored only under the same `knots` and `season`, a name."""
        self._detector = detector
        self._profile = SeasonProfile(knots)
        self.name = detector.name
        self._learned_under = {"knots": knots, "detector": detector.name, "season": season}
        self._clear()

    def _clear(self) -> None:
        self._profile.clear()
        self._first: float | None = None  # turn of the first event
        # Periods after the first event's in which there were events: one lone event, long before the others, tells nothing.
        self._periods, self._latest = 0, 0.0
        self._next_fit = _LEARNED_FROM  # periods
        self._seen = 0  # events before the pattern was used

    def reset(self) -> None:
        """Forget everything, the season too."""
        self._clear()
        self._detector.reset()

    def reset_level(self) -> None:
        """Let the detector learn the level afresh; the season stays."""
        self._detector.reset()

    def without_season(self, values: npt.ArrayLike, turns: npt.ArrayLike) -> Floats:
        """Return what is left of `values: float64[n]` without the season as it is known now."""
        array, moments = as_values(values), self._checked(values, turns)
        return array if self._learning else array - self._profile.at(moments)

    def update(self, values: npt.ArrayLike, turns: npt.ArrayLike) -> list[Alarm]:
        """Take `values, turns: float64[n]`, oldest first (see SeasonProfile); return the alarms among the values."""
        array, moments = as_values(values), self._checked(values, turns)
        alarms: list[Alarm] = []
        if self._first is None:
            self._first = float(moments[0])
        periods = self._counted(moments - self._first)
        at = 0
        while at < len(array):
            if self._next_fit <= _LEARNED_UNTIL and periods[at] >= self._next_fit:
                self._profile.fit()
                while self._next_fit <= periods[at]:
                    self._next_fit *= 2.0
            end = len(array)
            if self._next_fit <= _LEARNED_UNTIL:
                due = np.flatnonzero(periods[at:] >= self._next_fit)
                end = at + int(due[0]) if len(due) else end
                self._profile.learn(moments[at:end], array[at:end])
            if self._learning:
                self._seen += end - at
            else:
                found = self._detector.update(array[at:end] - self._profile.at(moments[at:end]))
                alarms += [dataclasses.replace(alarm, index=at + alarm.index) for alarm in found]
            at = end
        return alarms

    def _counted(self, moments: Floats) -> Floats:
        """Return how many periods with events there had been at each of these moments after the first event."""
        latest = np.maximum.accumulate(np.maximum(np.floor(moments), self._latest))
        counted = self._periods + np.cumsum(np.diff(latest, prepend=self._latest) > 0)
        self._periods, self._latest = int(counted[-1]), float(latest[-1])
        return counted.astype(np.float64)

    @property
    def _learning(self) -> bool:
        return self._next_fit == _LEARNED_FROM

    @staticmethod
    def _checked(values: npt.ArrayLike, turns: npt.ArrayLike) -> Floats:
        try:
            moments = as_values(turns)
        except ValueError as error:
            raise ValueError(str(error).replace("values", "turns", 1)) from None
        if moments.shape != np.shape(values):
            raise ValueError(f"turns must be as many as the values ({np.shape(values)}), got {moments.shape}")
        return moments

    def progress(self) -> Progress:
        """Return how far the detector has got; while the season is learned, it is learning too."""
        progress = self._detector.progress()
        if self._learning:
            progress = {**progress, "state": "learning", "seen": self._seen}
        return progress

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack: the detector's own state and at most 16 KB more."""
        body = {
            "profile": self._profile.as_dict(),
            "first": self._first,
            "periods": [self._periods, self._latest],
            "next_fit": self._next_fit,
            "seen": self._seen,
            "inner": self._detector.state(),
        }
        return pack_state(_NAME, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(_NAME, self._learned_under, state)
        self._detector.restore(body["inner"])
        self._profile.restore(body["profile"])
        self._periods, self._latest = body["periods"]
        self._first, self._next_fit, self._seen = body["first"], body["next_fit"], body["seen"]

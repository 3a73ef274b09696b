"""Decides whether a stream has come back to the level it had before an alarm."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from actors.drift.interface import Alarm, as_values
from actors.plain import Saved

# The average that decides has a standard error of a quarter of the half shift, so that a stream that stays at the
# drifted level is called recovered about once in 30,000 averages, and one that is back is recognised soon.
_ERRORS_TO_THE_MIDDLE = 4.0
_FEWEST = 20  # events: even a huge shift is not over after a few good ones
_MOST = 2000  # events: a shift so small that more would be needed is decided by as many
_CURSE = 2.0  # standard errors by which an alarm's own window may exaggerate the shift
_NEAR = 0.5  # sd: however large the shift was, back means back, not just half of the way


def events_needed(*, shift: float, sd: float, phi: float = 0.0) -> int:
    """Return how many events to average before recovery from `shift` can be told, given the noise.

    `shift` and `sd` are in the metric's units, `phi` is the lag-one autocorrelation, in [0, 1), which multiplies the
    variance of a mean by (1 + phi) / (1 - phi).
    """
    if not abs(shift) > 0 or not sd > 0:
        return _FEWEST
    ratio = _ERRORS_TO_THE_MIDDLE * sd / (0.5 * abs(shift))
    wanted = ratio * ratio * (1.0 + phi) / (1.0 - phi)
    return int(min(max(math.ceil(wanted), _FEWEST), _MOST))


@dataclass(slots=True)
class RecoveryWatch:
    """Watches the events after an alarm until their level is that of the old baseline again.

    The level is an exponentially weighted mean (Roberts 1959) that starts at the drifted level and has the standard
    error of a plain mean of `events` events. Recovered means: at least `events` events seen, and the mean within
    `margin` of the baseline's, on either side: a stream that overshoots to a third level has not recovered. It is
    plain data: `as_dict` and `from_dict` round-trip exactly.
    """

    baseline_mean: float
    margin: float  # how near the mean must come to the baseline's, in the metric's units
    events: int
    level: float
    seen: int = 0
    centre: float | None = None  # of an alarm of the spread: the distances from here are watched, not the values

    @classmethod
    def after(cls, alarm: Alarm) -> Self:
        """Return a watch for the episode that this alarm opened."""
        phi = alarm.extra.get("phi", 0.0)
        phi = min(max(phi, 0.0), 0.98) if isinstance(phi, float) else 0.0
        before, after, centre, sd = alarm.baseline_mean, alarm.window_mean, None, alarm.baseline_sd
        if alarm.extra.get("what") == "spread":
            before, after = float(alarm.extra["baseline_spread"]), float(alarm.extra["window_spread"])
            centre = float(alarm.extra["centre"])
            sd = 0.75 * before  # of a distance, relative to its mean: exact for Gaussian noise
        # The window was chosen because it looked bad: its shift less two standard errors is more like the truth.
        certain = max(1.0 - _CURSE / alarm.statistic, 0.3) if alarm.statistic > 0 else 0.3
        margin = 0.5 * certain * abs(after - before)
        if sd > 0.0:
            margin = min(margin, _NEAR * sd)
        events = events_needed(shift=2.0 * margin, sd=sd, phi=phi)
        return cls(before, margin, events, after, centre=centre)

    def update(self, values: npt.ArrayLike) -> bool:
        """Take the metric's next `values: float64[n]`, oldest first; return whether it has recovered at the last."""
        array = as_values(values)
        # lambda / (2 - lambda) = 1 / events: the variance of the weighted mean is that of a mean of `events` events.
        weight = 2.0 / (self.events + 1.0)
        level = self.level
        recent = array[-20 * self.events :]  # what lies further back weighs less than 1e-16
        if self.centre is not None:
            recent = np.abs(recent - self.centre)
        for value in recent.tolist():
            level += weight * (value - level)
        self.level = level
        self.seen += len(array)
        return self.recovered

    @property
    def recovered(self) -> bool:
        """Whether the level was back at the baseline when the last event came."""
        return self.seen >= self.events and abs(self.level - self.baseline_mean) < self.margin

    def as_dict(self) -> Saved:
        """Return the fields as plain values."""
        return {
            "baseline_mean": self.baseline_mean,
            "margin": self.margin,
            "events": self.events,
            "level": self.level,
            "seen": self.seen,
            "centre": self.centre,
        }

    @classmethod
    def from_dict(cls, saved: Saved) -> Self:
        """Return the watch that `as_dict` described."""
        return cls(**saved)

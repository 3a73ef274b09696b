"""The default detector: normal scores, prewhitened, under a generalised likelihood ratio on many time scales.

Sources: Conover, Tercero-Gomez, Cordero-Franco 2017 (sequential normal scores); Hawkins, Qiu, Kang 2003 (the
change-point model: nothing about the level is known beforehand); Lai 1995 (window-limited GLR). Ours: the threshold
falls with the window's length, so that every octave of lengths has its share of the false alarms, and the scores are
prewhitened. How it compares: docs/detection.md.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.drift.interface import (
    RECENT,
    Alarm,
    Direction,
    Floats,
    Progress,
    State,
    as_values,
    check_count,
    check_direction,
    check_number,
    pack_state,
    unpack_state,
)
from actors.drift.score_map import ScoreMap
from actors.drift.window_scan import LENGTHS, LONGEST, Excess, WindowScan

FREEZE = 3200  # events after which the scores are learned no more: from here on an event costs the same for ever
_REFIT_FACTOR = 2  # scores are learned anew whenever this many times as many events are known
_KEEP = LONGEST + 1  # values: those of the longest window and the one before it, which prewhitening needs

# The threshold, calibrated by `python -m drivers.bench_detection --section calibrate`.
_PENALTY = 1.8  # of ln L on the squared threshold
_FLOOR = 2.5
_EARLY = 8.0
_CAUTION = 1.0
_CAP_BELOW = 0.9  # one event's score stays this far under the threshold of a single event


def _squared_height(false_alarm_every: float) -> float:
    """Return the squared threshold of a window of one event; linear in the logarithm of the budget."""
    return -1.45 + 2.763 * math.log(false_alarm_every)


class NormalScoresGLR:
    """Alarm when the mean of the last L events, for any L up to 4,096, is too far from the mean of all events.

    On average at most one false alarm in `false_alarm_every` events, for any distribution and for autocorrelated
    streams too. `warmup` events are learned from before an alarm is possible. With `min_effect` a change of the mean
    by less than that, in the metric's units, is no alarm however sure it is. State "warning": the stream would have
    alarmed under a budget of `warning` times `false_alarm_every`.
    """

    name = "default"

    def __init__(
        self,
        *,
        false_alarm_every: float = 10_000,
        direction: Direction = "both",
        warmup: int = 50,
        min_effect: float = 0.0,
        warning: float = 0.1,
    ) -> None:
        self._direction = check_direction(direction)
        budget = check_number("false_alarm_every", false_alarm_every, low=100, high=1e9)
        self._warmup = check_count("warmup", warmup, low=20, high=FREEZE)
        self._min_effect = check_number("min_effect", min_effect, low=0)
        warning = check_number("warning", warning, above=0, high=1)
        # Watching one side only halves the false alarms, so its threshold is that of half the budget.
        per_side = 1.0 if self._direction == "both" else 0.5
        height = _squared_height(per_side * budget)
        self._cap = math.sqrt(height) - _CAP_BELOW
        heights = np.sqrt(np.maximum(height - _PENALTY * np.log(LENGTHS), _FLOOR**2))
        self._warning_share = math.sqrt(max(_squared_height(per_side * budget * warning), 1.0) / height)
        self._scan = WindowScan(heights, early=_EARLY, direction=self._direction)
        self._learned_under: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._seen = 0
        self._forget()

    def _forget(self) -> None:
        self._n = 0  # events learned from and watched, a given baseline included
        self._map: ScoreMap | None = None
        self._next_fit = self._warmup
        self._values = np.zeros(512)  # the last of them, up to [end - 1]
        self._end = 0
        self._last_score = 0.0
        # Sums are about the first value, so that a high level costs no digits.
        self._origin = 0.0
        self._sum = 0.0
        self._sum_squares = 0.0
        self._scan.clear()

    # --- the stream -------------------------------------------------------------------------------------------

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        array = as_values(values)
        alarms: list[Alarm] = []
        at = 0
        while at < len(array):
            part = array[at : at + self._stretch()]
            alarm = self._watch(part, at) if self._map is not None else None
            if alarm is not None:
                alarms.append(alarm)
                at = alarm.index + 1
                self.reset()
                continue
            if self._map is None:
                self._remember(part)
            at += len(part)
            self._seen += len(part)
            if self._n == self._next_fit:
                self._fit()
        return alarms

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and learn from this sample (`float64[n]`) instead of from the first events."""
        array = as_values(values)
        self.reset()
        self._remember(array)
        if self._n >= self._warmup:
            self._fit(array)

    def _stretch(self) -> int:
        """Return how many events can be taken in one go: up to the next fit, and not so many that n changes much."""
        if self._map is None:
            return self._next_fit - self._n
        some = min(max(64, self._n // 4), LONGEST)
        return min(some, self._next_fit - self._n) if self._next_fit > self._n else some

    def _watch(self, part: Floats, offset: int) -> Alarm | None:
        learned = self._map
        if learned is None:
            return None
        self._keep(part)
        scores = learned.raw_scores(part)
        whitened = learned.whitened(scores, self._last_score)
        self._last_score = float(scores[-1])
        for excess in self._scan.feed(whitened):
            alarm = self._judge(excess, part, offset)
            if alarm is not None:
                return alarm
        self._add_up(part)
        return None

    def _judge(self, excess: Excess, part: Floats, offset: int) -> Alarm | None:
        """Return the alarm of the worst window of an event of `part` that is also large enough in raw units."""
        known = excess.row + 1
        end = self._end - len(part) + known
        n = self._n + known
        total, squares = self._sums_with(part[:known])
        for length, statistic, threshold, up in zip(
            excess.lengths, excess.statistics, excess.thresholds, excess.up, strict=True
        ):
            window = self._values[end - length : end] - self._origin
            inside = float(window.sum())
            baseline_n = n - length
            mean = (total - inside) / baseline_n
            effect = inside / length - mean
            if abs(effect) < self._min_effect:
                continue
            variance = (squares - float((window * window).sum())) / baseline_n - mean * mean
            learned = self._map
            return Alarm(
                index=offset + excess.row,
                detector=self.name,
                statistic=statistic,
                threshold=threshold,
                direction="up" if up else "down",
                baseline_n=baseline_n,
                baseline_mean=self._origin + mean,
                baseline_sd=math.sqrt(max(variance, 0.0)),
                window_n=length,
                window_mean=self._origin + inside / length,
                estimated_start=length,
                extra={"phi": learned.phi if learned else 0.0, "z": statistic if up else -statistic},
            )
        return None

    def _remember(self, part: Floats) -> None:
        self._keep(part)
        self._add_up(part)

    def _keep(self, part: Floats) -> None:
        m = len(part)
        if self._n == 0:
            self._origin = float(part[0])
        if self._end + m > len(self._values):
            keep = min(self._end, _KEEP)
            size = len(self._values)
            while size < keep + m + min(keep, _KEEP):
                size *= 2
            values = np.zeros(size)
            values[:keep] = self._values[self._end - keep : self._end]
            self._values, self._end = values, keep
        self._values[self._end : self._end + m] = part
        self._end += m

    def _add_up(self, part: Floats) -> None:
        self._sum, self._sum_squares = self._sums_with(part)
        self._n += len(part)

    def _sums_with(self, part: Floats) -> tuple[float, float]:
        """Return the sums after `part`: one addition after the other, so that the cut of the batches cannot matter."""
        deviation = part - self._origin
        line = np.concatenate(([self._sum], deviation))
        squares = np.concatenate(([self._sum_squares], deviation * deviation))
        return float(np.add.accumulate(line)[-1]), float(np.add.accumulate(squares)[-1])

    def _fit(self, sample: Floats | None = None) -> None:
        """Learn the scores from everything known so far, and look at the past through them."""
        if sample is None:
            sample = self._values[self._end - self._n : self._end]
        self._map = ScoreMap.fit(sample, cap=self._cap, caution=_CAUTION)
        self._next_fit = min(FREEZE, self._n * _REFIT_FACTOR) if self._n < FREEZE else 0
        scores = self._map.raw_scores(sample)
        whitened = self._map.whitened(scores, 0.0)
        self._last_score = float(scores[-1])
        self._scan.restart(whitened, n=self._n, total=float(whitened.sum()))

    # --- for others -------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Say how far the detector has got and how close to an alarm it is."""
        statistic, threshold = self._scan.worst() if self._map is not None else (0.0, math.inf)
        watching: State = "warning" if statistic >= self._warning_share * threshold else "stable"
        recent = self._values[max(0, self._end - min(self._n, RECENT)) : self._end]
        return {
            "state": watching if self._map is not None else "learning",
            "baseline": self._origin + self._sum / self._n if self._n else None,
            "recent": float(recent.mean()) if self._n else None,
            "seen": self._seen,
            "warmup": self._warmup,
            "n_baseline": self._n,
            "statistic": statistic,
            "threshold": threshold,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; at most 40 KB."""
        body = {
            "n": self._n,
            "seen": self._seen,
            "next_fit": self._next_fit,
            "values": self._values[max(0, self._end - min(self._n, _KEEP)) : self._end].tobytes(),
            "sums": [self._origin, self._sum, self._sum_squares],
            "map": self._map.as_dict() if self._map else None,
            "total": self._scan.total,
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; ValueError when another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self._forget()
        values = np.frombuffer(body["values"], dtype=np.float64)
        self._values = np.zeros(max(512, 2 * len(values)))
        self._values[: len(values)] = values
        self._end = len(values)
        self._n, self._seen, self._next_fit = int(body["n"]), int(body["seen"]), int(body["next_fit"])
        self._origin, self._sum, self._sum_squares = body["sums"]
        if body["map"] is not None:
            self._map = ScoreMap.from_dict(body["map"])
            scores = self._map.raw_scores(values)
            self._last_score = float(scores[-1])
            whitened = self._map.whitened(scores, 0.0)
            if self._n > len(values):
                whitened = whitened[1:]  # the first one's predecessor is gone; it lies beyond the longest window
            self._scan.restart(whitened, n=self._n, total=float(body["total"]))

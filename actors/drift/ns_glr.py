"""The default detector: normal scores, prewhitened, under a generalised likelihood ratio on many time scales.

Sources: Conover, Tercero-Gomez, Cordero-Franco 2017 (sequential normal scores); Hawkins, Qiu, Kang 2003 (the
change-point model: nothing about the level is known beforehand); Lai 1995 (window-limited GLR). Ours: the threshold
falls with the window's length, so that every octave of lengths has its share of the false alarms; the scores are
prewhitened; tied scores are judged by their own distribution. How it compares: docs/explanation/detection.md.
"""

import math
from collections.abc import Iterator
from functools import partial

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
    check_flag,
    check_number,
    pack_state,
    unpack_state,
)
from actors.drift.level_sums import LevelSums
from actors.drift.moments import ROUNDING
from actors.drift.score_map import ORDER_MAX, ScoreMap
from actors.drift.window_scan import LENGTHS, LONGEST, Excess, WindowScan
from actors.plain import Saved

FREEZE = 3200  # events after which the scores are learned no more: from here on an event costs the same for ever
_REFIT_FACTOR = 2  # until then they are learned anew whenever so many times as many events are known
_KEEP = LONGEST + ORDER_MAX  # values: those of the longest window, and the ones before it that prewhitening needs
_SEASON_MAX = 1024  # events: four seasons, the fewest to learn from, must fit into the values kept
_SEASONS_LEARNED = 4

# Found by simulation; `python -m tests.bench.detection --section arl` shows what they give.
_HEIGHT_AT_1, _HEIGHT_SLOPE = -1.9, 2.7  # squared threshold: intercept, and slope in ln(false_alarm_every)
# Windows twice as long are half as many, so their threshold can be lower at the same rate of false alarms: by this
# much of ln L in the square. 0 would be a plain GLR, which finds 0.25 sd in twice the time; 2 treats all lengths
# alike; a little less serves shifts of 0.5 to 2 sd best.
_PENALTY = 1.6
_HEIGHT_MIN = 2.5  # however small the budget: below it the approximations behind the scores end
# With few events neither scores nor mean nor autocorrelation are known well; n (1 - s) / (1 + s) independent events are
# what n autocorrelated ones are worth, s the sum of the coefficients, both for the mean and for s itself.
_EARLY = 6.0
# In the first hundred or two events autocorrelation may not show, and then it is missed as often under a large budget as
# under a small one: no height makes such alarms as rare as a large budget asks. So beyond 10,000 the early events are
# worth less still, by a term that falls with the square of their number and is nothing from 500 on.
_UNSHOWN, _UNSHOWN_FROM, _UNSHOWN_MAX = 3600.0, 10_000.0, 9000.0
# Standard errors added to the autocorrelation: one that is learned too small makes false alarms, one too large costs
# delay, most where the budget is small. The more events a false alarm may cost, the more caution it is worth.
_CAUTION_MAX, _CAUTION_SLOPE, _CAUTION_FROM = 2.5, 0.75, 300.0
_CAP_BELOW = 1.2  # a single score stays this far under the threshold: a lone outlier cannot alarm, nor nearly


def _height(false_alarm_every: float) -> float:
    """Return the squared threshold of a window of one event."""
    return _HEIGHT_AT_1 + _HEIGHT_SLOPE * math.log(false_alarm_every)


def _caution(false_alarm_every: float) -> float:
    """Return how many standard errors are added to the autocorrelation under this budget."""
    return min(max(_CAUTION_SLOPE * math.log(false_alarm_every / _CAUTION_FROM), 0.0), _CAUTION_MAX)


def _unshown(false_alarm_every: float) -> float:
    """Return what, over the square of the events known, the thresholds are raised by under this budget."""
    return min(max(_UNSHOWN * math.log(false_alarm_every / _UNSHOWN_FROM), 0.0), _UNSHOWN_MAX)


class _Channel:
    """One statistic of the values (their level, or their distance from the centre) under a scan of its own."""

    def __init__(self, height: float, *, budget: float, direction: Direction, fold: bool) -> None:
        self._caution = _caution(budget)
        self._cap = math.sqrt(height) - _CAP_BELOW
        self._fold = fold
        self._heights = np.sqrt(np.maximum(height - _PENALTY * np.log(LENGTHS), _HEIGHT_MIN**2))
        self.scan = WindowScan(self._heights, direction=direction, unshown=_unshown(budget))
        self.clear()

    def clear(self) -> None:
        self.map: ScoreMap | None = None
        self.centre = 0.0
        self._past = [0.0] * ORDER_MAX  # raw scores of the last events, newest last
        self.scan.clear()

    def folded(self, values: Floats) -> Floats:
        return np.abs(values - self.centre) if self._fold else values

    def fit(self, sample: Floats, *, inflation: float) -> None:
        """Learn from the whole sample, `float64[n]`; new values vary `inflation` times as much as those of it."""
        level = float(np.median(sample))
        if self._fold:
            self.centre = level
        sample = self.folded(sample)
        learn = partial(ScoreMap.fit, cap=self._cap, caution=self._caution, rounding=ROUNDING * abs(level))
        if inflation == 1.0:
            learned, scores = learn(sample)
        else:
            middle = float(sample.mean())
            learned, _ = learn(middle + inflation * (sample - middle))
            scores = learned.raw_scores(sample)
        whitened = self._use(learned, scores)
        self._restart(learned, whitened, n=len(sample), total=float(whitened.sum()))

    def _use(self, learned: ScoreMap, scores: Floats) -> Floats:
        """Take the map, and the raw scores by it of the last events; return the prewhitened ones."""
        self.map = learned
        self._past = [*self._past, *scores[-ORDER_MAX:].tolist()][-ORDER_MAX:]
        return learned.whitened(scores)

    def _restart(self, learned: ScoreMap, whitened: Floats, *, n: int, total: float) -> None:
        early = _EARLY * (1.0 + learned.lag_one) / (1.0 - learned.lag_one)
        self.scan.restart(whitened, n=n, total=total, atoms=learned.atoms, early=early)

    def feed(self, values: Floats) -> Iterator[Excess]:
        learned = self.map
        if learned is None:
            return iter(())
        scores = learned.raw_scores(self.folded(values))
        whitened = learned.whitened(scores, np.array(self._past))
        self._past = [*self._past, *scores[-ORDER_MAX:].tolist()][-ORDER_MAX:]
        return self.scan.feed(whitened)

    def feed_one(self, value: float) -> Iterator[Excess] | tuple[()]:
        learned = self.map
        if learned is None:
            return ()
        score = learned.raw_score(abs(value - self.centre) if self._fold else value)
        whitened = learned.whitened_score(score, self._past)
        past = self._past
        del past[0]
        past.append(score)
        return self.scan.feed_one(whitened)

    def state(self) -> Saved | None:
        if self.map is None:
            return None
        return {"map": self.map.as_dict(), "centre": self.centre, "total": self.scan.total}

    def restore(self, saved: Saved | None, values: Floats, n: int) -> None:
        """Continue after `n` events, the last of which were `values: float64[<= _KEEP]`."""
        self.clear()
        if saved is None:
            return
        self.centre = float(saved["centre"])
        learned = ScoreMap.from_dict(saved["map"])
        whitened = self._use(learned, learned.raw_scores(self.folded(values)))
        whitened = whitened[max(0, len(values) - LONGEST) :]  # of these all predecessors are known
        self._restart(learned, whitened, n=n, total=float(saved["total"]))


class NormalScoresGLR:
    """Alarm when the mean of the last L events, for any L up to 4,096, is too far from the mean of all events.

    On average at most one false alarm in `false_alarm_every` events, for any distribution and for autocorrelated
    streams too.

    Options: `warmup` events are learned from before an alarm is possible. With `min_effect` a change of the mean that
    is not surely more than that, in the metric's units, is no alarm. `season`: period in events of a pattern
    that is learned and subtracted (0: none); the warm-up then lasts at least four periods. For a season by the time of
    the events, with gaps, see `Seasonal`. `spread=True` also watches
    how far the values lie from their median, both channels sharing the budget. State "warning": the stream would
    have alarmed under a budget of `warning` times `false_alarm_every`.

    >>> rng = np.random.default_rng(0)
    >>> accuracy = np.concatenate((rng.normal(0.9, 0.02, 300), rng.normal(0.86, 0.02, 50)))
    >>> for alarm in NormalScoresGLR(direction="down").update(accuracy):
    ...     print(alarm.index, alarm.estimated_start, round(alarm.baseline_mean, 2), round(alarm.window_mean, 2))
    307 7 0.9 0.85
    """

    name = "default"

    def __init__(
        self,
        *,
        false_alarm_every: float = 10_000,
        direction: Direction = "both",
        warmup: int = 50,
        min_effect: float = 0.0,
        season: int = 0,
        spread: bool = False,
        warning: float = 0.1,
    ) -> None:
        check_direction(direction)
        budget = check_number("false_alarm_every", false_alarm_every, low=100, high=1e15)
        warmup = check_count("warmup", warmup, low=20, high=FREEZE)
        self._min_effect = check_number("min_effect", min_effect, low=0)
        self._season = check_count("season", season, low=0, high=_SEASON_MAX)
        if self._season == 1:
            raise ValueError("season must be 0 (none) or at least 2 events, got 1")
        check_flag("spread", spread)
        warning = check_number("warning", warning, above=0, high=1)
        self._warmup = max(warmup, _SEASONS_LEARNED * self._season)
        self._freeze = max(FREEZE, self._warmup)
        # Watching one side only halves the false alarms, so its threshold is that of half the budget. The spread
        # can change either way whatever is watched of the level.
        share = budget * (2.0 if spread else 1.0)
        height = _height(share if direction == "both" else 0.5 * share)
        self._channels = [_Channel(height, budget=budget, direction=direction, fold=False)]
        if spread:
            self._channels.append(_Channel(_height(share), budget=budget, direction="both", fold=True))
        self._warning_share = math.sqrt(max(height + _HEIGHT_SLOPE * math.log(warning), 1.0) / height)
        self._learned_under: Saved = {"season": self._season, "spread": spread}
        self._sums = LevelSums()
        self._values = np.zeros(256)  # the last events, up to [end - 1]
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._n = 0  # events known, those of a given baseline included
        self._seen = 0  # without those
        self._next_fit = self._warmup
        self._end = 0
        self._sums.begin(0.0)
        self._profile = np.zeros(max(self._season, 1))  # the season's deviation from the mean, by phase
        for channel in self._channels:
            channel.clear()

    @property
    def _learning(self) -> bool:
        return self._channels[0].map is None

    # --- the stream -------------------------------------------------------------------------------------------

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        array = as_values(values)
        if len(array) == 1:
            alarm = self._take_one(float(array[0]))
            return [alarm] if alarm is not None else []
        alarms: list[Alarm] = []
        at = 0
        while at < len(array):
            part = array[at : at + self._stretch()]
            alarm = self._take(part, at)
            if alarm is not None:
                alarms.append(alarm)
                at = alarm.index + 1
                self.reset()
            else:
                at += len(part)
        return alarms

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and learn from this sample (`float64[n]`) instead of from the first events.

        One shorter than the warm-up only shortens it. Its order should be that of the stream if neighbours are alike.
        """
        array = as_values(values)
        self.reset()
        self._keep(array)
        self._add_up(array)
        self._seen = 0
        if self._n >= self._warmup:
            self._fit(array)

    def _stretch(self) -> int:
        """Return how many events can be taken in one go: up to the next fit, and not so many that n more than doubles.

        The screen is the coarser the more n changes, but a go has its fixed cost, and false alarms make many short lives.
        """
        if self._next_fit > self._n:
            return self._next_fit - self._n
        return min(self._n, LONGEST)

    def _take(self, part: Floats, offset: int) -> Alarm | None:
        self._keep(part)
        if not self._learning:
            residuals = part - self._profile_of(self._n, len(part)) if self._season else part
            # Channels do not see each other's alarms; the earliest one counts, and then all start anew.
            alarms = [self._first(channel, channel.feed(residuals), part, offset) for channel in self._channels]
            found = [alarm for alarm in alarms if alarm is not None]
            if found:
                return min(found, key=lambda alarm: alarm.index)
        self._add_up(part)
        if self._n == self._next_fit:
            self._fit(self._values[self._end - self._n : self._end])
        return None

    def _take_one(self, value: float) -> Alarm | None:
        """Do what `_take` does for one event, in plain floats where it can: numpy's fixed costs are ten times more."""
        if self._learning or self._n + 1 == self._next_fit or self._end == len(self._values):
            alarm = self._take(np.array([value]), 0)
            if alarm is not None:
                self.reset()
            return alarm
        self._values[self._end] = value
        self._end += 1
        residual = value - float(self._profile[self._n % self._season]) if self._season else value
        for channel in self._channels:
            for excess in channel.feed_one(residual):
                alarm = self._judge(channel, excess, np.array([value]), 0)
                if alarm is not None:
                    self.reset()
                    return alarm
        self._sums.add_one(value)
        self._n += 1
        self._seen += 1
        return None

    def _first(self, channel: _Channel, excesses: Iterator[Excess], part: Floats, offset: int) -> Alarm | None:
        for excess in excesses:
            alarm = self._judge(channel, excess, part, offset)
            if alarm is not None:
                return alarm
        return None

    def _judge(self, channel: _Channel, excess: Excess, part: Floats, offset: int) -> Alarm | None:
        """Return the alarm of the worst window of an event of `part` that is also large enough in raw units."""
        known = excess.row + 1
        end = self._end - len(part) + known
        n = self._n + known
        sums = self._sums.after(part[:known])
        for length, statistic, threshold, up in zip(
            excess.lengths, excess.statistics, excess.thresholds, excess.up, strict=True
        ):
            raw = self._values[end - length : end]
            mean, sd = sums.without(raw, n=n)
            window_mean = sums.origin + float((raw - sums.origin).mean())
            extra: dict[str, float | str] = {"what": "level", "z": statistic if up else -statistic}
            effect = window_mean - mean
            if channel is not self._channels[0]:
                distance = channel.folded(raw - self._profile_of(n - length, length))
                before = channel.folded(self._values[max(end - n, 0) : end - length])
                effect = float(distance.mean() - before.mean())
                extra |= {"what": "spread", "centre": channel.centre}
                extra |= {"baseline_spread": float(before.mean()), "window_spread": float(distance.mean())}
            # The test of "at most min_effect" instead of "none": what exceeds it must be as sure as any change.
            if statistic * (abs(effect) - self._min_effect) < threshold * abs(effect):
                continue
            if channel.map is not None:
                extra["phi"] = channel.map.lag_one
            return Alarm(
                index=offset + excess.row,
                detector=self.name,
                statistic=statistic,
                threshold=threshold,
                direction="up" if up else "down",
                baseline_n=n - length,
                baseline_mean=mean,
                baseline_sd=sd,
                window_n=length,
                window_mean=window_mean,
                estimated_start=length,
                extra=extra,
            )
        return None

    # --- memory -----------------------------------------------------------------------------------------------

    def _keep(self, part: Floats) -> None:
        m = len(part)
        if self._n == 0:
            self._sums.begin(float(part[0]))
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
        self._sums.add(part)
        self._n += len(part)
        self._seen += len(part)

    def _profile_of(self, n: int, m: int) -> Floats:
        """Return the season's part of `m` events of which the first is number `n`, counted from 0."""
        phases: Floats = self._profile[np.arange(n, n + m) % len(self._profile)]
        return phases

    def _fit(self, sample: Floats) -> None:
        """Learn the scores from all that is known, and look at the past through them."""
        inflation = 1.0
        if self._season:
            phase = np.arange(self._n - len(sample), self._n) % self._season
            seasons = len(sample) / self._season
            self._profile = np.bincount(phase, weights=sample - self._sums.origin) / np.bincount(phase)
            self._profile -= self._profile.mean()
            # A phase's own mean is nearer to its values than to those to come.
            inflation = math.sqrt((seasons + 1.0) / (seasons - 1.0))
            sample = sample - self._profile[phase]
        for channel in self._channels:
            channel.fit(sample, inflation=inflation)
        self._next_fit = min(self._freeze, self._n * _REFIT_FACTOR) if self._n < self._freeze else 0

    # --- for others -------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Return how far the detector has got and how close to an alarm it is."""
        statistic, threshold = max((channel.scan.worst() for channel in self._channels), key=lambda st: st[0] / st[1])
        watching: State = "warning" if statistic >= self._warning_share * threshold else "stable"
        recent = self._values[self._end - min(self._n, RECENT) : self._end]
        return {
            "state": "learning" if self._learning else watching,
            "baseline": self._sums.mean(self._n) if self._n else None,
            "recent": float(recent.mean()) if self._n else None,
            "seen": self._seen,
            "warmup": self._warmup,
            "n_baseline": self._n,
            "statistic": statistic,
            "threshold": threshold,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; at most 40 KB, 80 KB with season and spread."""
        body = {
            "n": self._n,
            "seen": self._seen,
            "next_fit": self._next_fit,
            "values": self._values[self._end - min(self._n, _KEEP, self._end) : self._end].tobytes(),
            "sums": self._sums.as_list(),
            "profile": self._profile.tobytes() if self._season else b"",
            "channels": [channel.state() for channel in self._channels],
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self.reset()
        values = np.frombuffer(body["values"], dtype=np.float64)
        if len(values):
            self._keep(values)
        self._n, self._seen, self._next_fit = int(body["n"]), int(body["seen"]), int(body["next_fit"])
        self._sums.restore(body["sums"])
        if self._season:
            self._profile = np.frombuffer(body["profile"], dtype=np.float64)
        residuals = values - self._profile_of(self._n - len(values), len(values)) if self._season else values
        for channel, saved in zip(self._channels, body["channels"], strict=True):
            channel.restore(saved, residuals, self._n)

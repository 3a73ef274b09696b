"""What one model's metrics look like: its versions, and a detector for each version and watched metric.

Pure: batches in, alarms out, and everything it knows can be written down and read back. A new version starts a fresh baseline,
unless one is pinned; stragglers of an old version feed that version only, and a version that comes back goes on where it was.
Events are taken in the order in which they arrived; one that is older than its version's newest is counted as late.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict, cast

import numpy as np

from actors import drift
from actors.config import Duration, ModelSettings, Season, WatchSettings
from actors.drift import Alarm, DriftStrategy, Seasonal, knots_of
from actors.drift.unusable import Unusable
from actors.replies import MetricProgress
from actors.wire import Batch, Bools, Floats, Indices, rows_of

MAX_VERSIONS: Final = 64  # of one model, kept with their detectors; the one that was silent longest goes first
_USUAL_BUDGET: Final = 10_000.0  # events, for a budget in time while no rate is known
# A dozen events tell a rate well enough, long before a detector has warmed up; each doubling of their number corrects it.
_RATE_EVENTS: Final = 12
# Of a duration. Below 300 events a detector spends its budget while it learns: thirty days of daily values are no budget.
_LEAST_BUDGET, _MOST_BUDGET = 300.0, 1e9


@dataclass(frozen=True, slots=True)
class Feed:
    """What one metric of one version saw in a batch: `values: float64[n]` and `times: float64[n]` in order, and the alarms."""

    version: str
    metric: str
    values: Floats
    times: Floats
    alarms: list[Alarm]


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch as its model sees it: new versions, and the feeds of its watched metrics."""

    new_versions: list[str]
    feeds: list[Feed]
    dropped_versions: list[str]
    errors: list[tuple[str, str, str]] = field(default_factory=list)  # version, metric, why its detector cannot take it


class MetricMemory(TypedDict):
    """A metric's detector, by the name under which its state is stored, and how far it had got."""

    kind: str
    progress: MetricProgress


class VersionMemory(TypedDict):
    """The record of one version, besides the states of its detectors."""

    events: int
    late: int
    first_time: float
    last_time: float
    order: int
    metrics: dict[str, MetricMemory]
    state: str


class MonitorMemory(TypedDict):
    """What `Monitor.memory` returns: plain values, as the store takes them."""

    versions: dict[str, VersionMemory]
    order: int
    pinned: str | None
    budget: float


@dataclass(slots=True)
class _Stream:
    """One metric's detector; with a calendar season, behind the filter that removes the season."""

    detector: DriftStrategy | Seasonal
    kind: str
    dirty: bool = False

    def update(self, values: Floats, times: Floats, season: Season | None) -> tuple[Floats, list[Alarm]]:
        """Return the values that the detector has judged, and the alarms among them."""
        if season is None or not isinstance(self.detector, Seasonal):
            return values, cast("DriftStrategy", self.detector).update(values)
        turns = season.turns(times)
        alarms = self.detector.update(values, turns)
        return self.detector.without_season(values, turns), alarms

    def learn_afresh(self, sample: Floats | None) -> None:
        """Learn the level from a sample, or from what comes; a season that was learned stays."""
        if isinstance(self.detector, Seasonal):
            self.detector.reset_level()
        elif sample is not None:
            self.detector.baseline(sample)
        else:
            self.detector.reset()
        self.dirty = True


@dataclass(slots=True)
class _Version:
    events: int
    late: int
    first_time: float
    last_time: float
    order: int  # of its last event among all versions' last events
    streams: dict[str, _Stream]
    # Detectors whose saved state has not been needed since the start; most versions never come back.
    asleep: dict[str, tuple[str, bytes]]
    seen: dict[str, MetricMemory]  # progress of each metric, as it was written down last


class Monitor:
    """The detectors of one model. Nothing is shared between two of these."""

    def __init__(self, settings: ModelSettings, memory: MonitorMemory | None = None) -> None:
        """Start afresh, or from what `memory` gave; the detectors' states follow by `wake`."""
        self._settings = settings
        self._versions: dict[str, _Version] = {}
        self._order = 0
        self.pinned: str | None = settings.pinned_version
        self._samples: dict[str, Floats] = {}
        self._errors: list[tuple[str, str, str]] = []
        # Events between false alarms, by which the detectors were made; from a duration it follows the observed rate.
        asked = settings.false_alarm_every
        self._budget = _USUAL_BUDGET if isinstance(asked, Duration) else float(asked)
        if memory is not None:
            for name, held in memory["versions"].items():
                self._versions[name] = _Version(
                    held["events"], held["late"], held["first_time"], held["last_time"], held["order"], {}, {}, held["metrics"]
                )
            self._order = memory["order"]
            if isinstance(asked, Duration):
                self._budget = memory["budget"]
            self.pinned = memory.get("pinned") or settings.pinned_version

    # --- memory

    def memory(self) -> MonitorMemory:
        """Return the counts and the progress as plain values; the detectors' states are read by `dirty_states`."""
        versions: dict[str, VersionMemory] = {}
        for name, held in self._versions.items():
            for metric, stream in held.streams.items():
                held.seen[metric] = {"kind": stream.kind, "progress": cast("MetricProgress", dict(stream.detector.progress()))}
            versions[name] = {
                "events": held.events,
                "late": held.late,
                "first_time": held.first_time,
                "last_time": held.last_time,
                "order": held.order,
                "metrics": held.seen,
                "state": self._state(held),
            }
        return {"versions": versions, "order": self._order, "pinned": self.pinned, "budget": self._budget}

    def wake(self, version: str, metric: str, kind: str, state: bytes) -> None:
        """Take back a detector's saved state; one of another kind or of other options is left, and the metric starts afresh."""
        held = self._versions.get(version)
        if held is not None and metric in self._settings.watch:
            held.asleep[metric] = (kind, state)

    def dirty_states(self) -> list[tuple[str, str, str, bytes]]:
        """Return (version, metric, kind, state) of every detector that has changed since it was written down last."""
        return [
            (name, metric, stream.kind, stream.detector.state())
            for name, held in self._versions.items()
            for metric, stream in held.streams.items()
            if stream.dirty
        ]

    def written(self) -> None:
        """Learn that the dirty states are in the store."""
        for held in self._versions.values():
            for stream in held.streams.values():
                stream.dirty = False

    # --- events

    def take(self, batch: Batch, ok: Bools | None, skip: int, *, counted: bool = False, keep: Collection[str] = ()) -> Taken:
        """Take the rows of a batch from `skip` on that are `ok` (None: all).

        `counted`: the batch is in `memory` already and only the detectors have not seen it yet. `keep` names versions that
        must not be dropped, whatever their number.
        """
        new_versions: list[str] = []
        feeds: list[Feed] = []
        for number, name in enumerate(batch.versions):
            rows = rows_of(batch, number, ok, skip)
            if rows is not None and not isinstance(rows, slice) and not len(rows):
                continue
            times = batch.times if rows is None else batch.times[rows]
            held = self._versions.get(name)
            if held is None:
                held = self._versions[name] = _Version(0, 0, 0.0, 0.0, 0, {}, {}, {})
            if held.events == 0 and not counted:
                held.first_time = held.last_time = float(times[0])
                new_versions.append(name)
            if not counted:
                self._count(held, times)
            for metric in self._settings.watch:
                feed = self._feed((name, metric), held, batch, rows, times)
                if feed is not None:
                    feeds.append(feed)
        errors, self._errors = self._errors, []
        return Taken(new_versions, feeds, self._drop_oldest({*keep, *batch.versions}), errors)

    def _count(self, held: _Version, times: Floats) -> None:
        latest = np.maximum.accumulate(times)
        late = (
            int((times < latest).sum())
            if latest[0] >= held.last_time
            else int((times < np.maximum(latest, held.last_time)).sum())
        )
        held.events += len(times)
        held.late += late
        held.last_time = max(held.last_time, float(latest[-1]))
        self._order += 1
        held.order = self._order

    def _feed(
        self, key: tuple[str, str], held: _Version, batch: Batch, rows: Indices | slice | None, times: Floats
    ) -> Feed | None:
        version, metric = key
        column = batch.columns.get(metric)
        if column is None:
            return None
        values = column.values if rows is None else column.values[rows]
        if column.present is not None:
            there = column.present if rows is None else column.present[rows]
            if not there.any():
                return None
            if not there.all():
                values, times = values[there], times[there]
        stream = held.streams.get(metric) or self._stream(held, metric)
        stream.dirty = True
        try:
            values, alarms = stream.update(values, times, self._settings.watch[metric].season)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a detector's failure is its metric's alone: the event counts
            reason = f"{type(error).__name__}: {error}"
            stream.detector, stream.kind = Unusable(stream.kind, reason), _unusable(stream.kind)
            self._errors.append((version, metric, reason))
            alarms = []
        return Feed(version, metric, values, times, alarms)

    # --- detectors

    def _stream(self, held: _Version, metric: str) -> _Stream:
        watch = self._settings.watch[metric]
        stream = _Stream(self._made(watch), watch.detector)
        asleep = held.asleep.pop(metric, None)
        if asleep is not None and asleep[0] == _unusable(watch.detector):
            stream = _Stream(Unusable(watch.detector, ""), asleep[0])
        if asleep is not None and asleep[0] == stream.kind:
            try:
                stream.detector.restore(asleep[1])
            except ValueError:  # its options have changed: what it learned means something else now
                asleep = None
        elif metric in self._samples:
            stream.learn_afresh(self._samples[metric])
        held.streams[metric] = stream
        return stream

    def _made(self, watch: WatchSettings) -> DriftStrategy | Seasonal:
        budget = drift.share_budget(self._budget, len(self._settings.watch))
        made = drift.create(watch.detector, **{"false_alarm_every": budget, "direction": watch.direction, **watch.options})
        if watch.season is None:
            return made
        return Seasonal(made, knots=knots_of(watch.season.period_s), season=str(watch.season))

    def follow_rate(self) -> bool:
        """Turn a budget that was given as a duration into events by the observed rate; return whether that changed anything.

        Rounded up to a power of two times the least budget, so that the stated time holds and a rate that wavers does not
        move the thresholds all the time; what the detectors have learned stays.
        """
        asked = self._settings.false_alarm_every
        events = sum(held.events for held in self._versions.values())
        if not isinstance(asked, Duration) or events < _RATE_EVENTS:
            return False
        seen = [held for held in self._versions.values() if held.events]
        span_s = max(held.last_time for held in seen) - min(held.first_time for held in seen)
        if not span_s > 0:
            return False
        steps = math.ceil(math.log2(max(events / span_s * asked.seconds / _LEAST_BUDGET, 1.0)))
        wanted = min(_LEAST_BUDGET * 2.0**steps, _MOST_BUDGET)
        if wanted <= self._budget <= 2.0 * wanted:
            return False
        self._budget = wanted
        for held in self._versions.values():
            for metric, stream in held.streams.items():
                if isinstance(stream.detector, Unusable):
                    continue
                made = self._made(self._settings.watch[metric])
                with contextlib.suppress(ValueError):  # one that learned under its budget goes on with the old
                    made.restore(stream.detector.state())
                    stream.detector, stream.dirty = made, True
        return True

    def reset(self, version: str, metric: str) -> None:
        """Let a metric learn its level afresh: from the pinned baseline where there is one, else from what comes."""
        held = self._versions.get(version)
        if held is None or metric not in self._settings.watch:
            return
        stream = held.streams.get(metric) or self._stream(held, metric)
        stream.learn_afresh(self._samples.get(metric))

    def learned_drift(self, version: str, metric: str, baseline_mean: float, margin: float, since_alarm: int) -> bool:
        """Return whether a detector that began afresh at its alarm has learned another level than the baseline of before.

        One that returned to the baseline by itself, and one whose window slides on through alarms, is best left alone: a
        drift that came while it learned again would be missed.
        """
        held = self._versions.get(version)
        stream = None if held is None else held.streams.get(metric)
        if stream is None:
            return False
        progress = stream.detector.progress()
        began_afresh = progress["seen"] <= since_alarm
        learned = progress["baseline"]
        return began_afresh and learned is not None and abs(learned - baseline_mean) >= 0.5 * margin

    def give_baseline(self, version: str, values: Mapping[str, Floats]) -> list[str]:
        """Let the watched metrics of a version learn from `values` (float64[n] by metric); return those that are watched."""
        watched = [metric for metric in values if metric in self._settings.watch]
        if seasonal := [metric for metric in watched if self._settings.watch[metric].season is not None]:
            raise ValueError(f"values must be of metrics without a season, got {', '.join(seasonal)}: they have no times")
        held = self._versions.get(version)
        if held is None:
            held = _Version(0, 0, 0.0, 0.0, self._order, {}, {}, {})
        made = {metric: self._stream(held, metric) for metric in watched if metric not in held.streams}
        for metric in watched:
            stream = made.get(metric) or held.streams[metric]
            stream.learn_afresh(values[metric])
        self._versions[version] = held
        return watched

    def pin(self, version: str | None, samples: Mapping[str, Floats]) -> None:
        """Compare every version from now on with these samples (by metric) instead of with its own first events.

        A metric with a season by the calendar goes on learning: a sample has no times.
        """
        self.pinned = version
        watch = self._settings.watch
        self._samples = {m: sample for m, sample in samples.items() if m in watch and watch[m].season is None}

    @property
    def versions(self) -> Iterable[str]:
        """The versions that this monitor knows, oldest first."""
        return self._versions.keys()

    def since(self) -> list[tuple[str, float]]:
        """Return the versions that have logged and the time of their first event, those whose events came last at the end."""
        seen = sorted(self._versions.items(), key=lambda item: item[1].order)
        return [(name, held.first_time) for name, held in seen if held.events]

    @property
    def watched(self) -> bool:
        """Whether any metric that was logged is watched."""
        return any(held.streams or held.seen or held.asleep for held in self._versions.values())

    @property
    def newest_time(self) -> float:
        """The greatest event time of all versions, in seconds since the epoch; 0 before there is any."""
        return max((held.last_time for held in self._versions.values()), default=0.0)

    @property
    def newest(self) -> str | None:
        """The version whose events came last."""
        return max(self._versions, key=lambda name: self._versions[name].order, default=None)

    @property
    def state(self) -> str:
        """The state of the version whose events came last; learning before there is any."""
        newest = self.newest
        return "learning" if newest is None else self._state(self._versions[newest])

    def _state(self, held: _Version) -> str:
        states = {seen["progress"]["state"] for seen in held.seen.values()}
        return next((state for state in ("warning", "learning", "stable", "error") if state in states), "unwatched")

    def _drop_oldest(self, in_use: set[str]) -> list[str]:
        """Drop the versions that were silent longest, none that is in use or pinned; return their names."""
        idle = [name for name in self._versions if name not in in_use and name != self.pinned]
        idle.sort(key=lambda name: self._versions[name].order)
        dropped = idle[: max(len(self._versions) - MAX_VERSIONS, 0)]
        for name in dropped:
            del self._versions[name]
        return dropped


def _unusable(detector: str) -> str:
    """Return the kind of state that replaces this detector's."""
    return f"unusable:{detector}"

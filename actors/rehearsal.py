"""What would have happened: one model's events through one configuration, on their own time, touching nothing that runs.

The detectors, the episodes, the retrain rule with its promises and the gates are those of the live system; only the clock is
the events'. Nobody can know the effect of such a retrain: the events stay as they were logged. An order counts as carried
out `takes_s` after it was given, and later events count as the new normal, unless a new version came first, as it did
in the history. Where the models share limits (`orders`), they are rehearsed together in the order of their events' times, each
with the same `Timetable`: an order waits there as it would in the dispatcher's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypedDict

import numpy as np

from actors.clock import event_instant
from actors.config import ModelSettings
from actors.detection.rules.decisions import Ask, Effect, Ordered, Rearm, Retrained
from actors.detection.rules.episodes import EpisodeBook
from actors.detection.rules.judging import Judged
from actors.detection.rules.monitor import Monitor
from actors.detection.rules.promises import Promise
from actors.detection.rules.record import asks_at, observed_drift
from actors.detection.rules.retrain import Outcome as Decided
from actors.detection.rules.retrain import Pays, RetrainWatch
from actors.detection.rules.versions import Decision
from actors.plain import Json
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.gate import AlreadyActive, Cooldown, CoolingDown, Dispatch, DryRun, admit
from actors.retraining.rules.queue import Waiting
from actors.retraining.rules.timetable import Timetable
from actors.wire import Batch, Bools, Column, Floats, Indices

_AGE: Final = "the age of its version"
# A decision is made at the end of such a piece; live, at the end of a batch.
PIECE_ROWS: Final = 20


@dataclass(slots=True)
class Seen:
    """One episode: `alarm` are the numbers of what opened it, `cause` alarm or shortfall; times are those of the events.

    `delay_events` is how many events the alarm came after the estimated change. `ordered_at` is None where it never got an
    order, and `skips` are the reasons why it had to wait.
    """

    id: str
    version: str
    metric: str
    opened_at: float
    alarm: Json
    delay_events: int
    drift: float | None
    cause: str = "alarm"
    ordered_at: float | None = None
    started_at: float | None = None  # later than `ordered_at` where it waited in the queue; None: it has not left it
    skips: list[str] = field(default_factory=list)
    closed_at: float | None = None
    closed_by: str | None = None
    alarms: list[Json] = field(default_factory=list)


class Summary(TypedDict):
    """The figures of an outcome that are compared; medians over its episodes, None where there is none."""

    events: int
    alarms: int
    episodes: int
    retrains: int
    of_age: int
    never_started: int
    errors_lost: float | None
    paid: int
    skipped: int
    median_delay_events: float | None
    median_wait_s: float | None
    median_queue_s: float | None
    first_alarm_at: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one configuration made of the events of one model."""

    model: str
    events: int
    first_at: float | None
    last_at: float | None
    versions: list[str]
    episodes: list[Seen]
    aged: list[float] = field(default_factory=list)  # when orders were given because of the version's age
    errors_lost: float | None = None  # beyond the promises, over all versions; None without a promise or n
    verdicts: list[str] = field(default_factory=list)  # paid, did not pay
    missing: list[str] = field(default_factory=list)  # what kept the rule from working, at the end

    def summary(self) -> Summary:
        """Return the figures that are compared: counts, and medians over the episodes (None where there is none)."""
        orders = [each for each in self.episodes if each.ordered_at is not None]
        waits = [each.ordered_at - each.opened_at for each in orders if each.ordered_at is not None]
        started = [each for each in orders if each.started_at is not None]
        return {
            "events": self.events,
            "alarms": sum(len(each.alarms) for each in self.episodes),
            "episodes": len(self.episodes),
            "retrains": len(started) + len(self.aged),
            "of_age": len(self.aged),
            "never_started": len(orders) - len(started),
            "errors_lost": self.errors_lost,
            "paid": sum(each == "paid" for each in self.verdicts),
            "skipped": sum(len(each.skips) for each in self.episodes),
            "median_delay_events": _median(each.delay_events for each in self.episodes),
            "median_wait_s": _median(waits),
            "median_queue_s": _median((each.started_at or 0.0) - (each.ordered_at or 0.0) for each in started),
            "first_alarm_at": self.episodes[0].opened_at if self.episodes else None,
        }


class Rehearsal:
    """One model under one configuration. Events are taken in the order in which they are given."""

    def __init__(
        self,
        model: str,
        settings: ModelSettings,
        *,
        takes_s: float = 0.0,
        baselines: Mapping[str, Mapping[str, Floats]] | None = None,
        queue: Timetable | None = None,
    ) -> None:
        """`queue` is shared by the models that share limits; None: there are none.

        `baselines`: samples that were given to versions (float64[n] by version and metric), learned from when these come.
        """
        if not takes_s >= 0:
            raise ValueError(f"takes_s must be >= 0, got {takes_s}")
        self._model = model
        self._settings = settings
        self._takes_s = takes_s
        self._queue = queue
        self._baselines = dict(baselines or {})
        self._monitor = Monitor(settings)
        self._book = EpisodeBook("what-if", model)
        self._retrain = RetrainWatch(settings)
        self._lost_before = 0.0  # until the rule began again last
        self._lost: float | None = None  # since then
        self._verdicts: list[str] = []
        self._aged: list[float] = []
        self._deployed_at: float | None = None  # the live version, or its last order because of its age
        self._seen: dict[str, Seen] = {}
        self._cooldown: Cooldown | None = None
        self._running: tuple[str, float] | None = None  # the episode whose order is being carried out, and until when
        self._events = 0
        self._first_at: float | None = None
        self._now = event_instant(0.0)

    def take(self, batch: Batch, ok: Bools | None = None, skip: int = 0) -> None:
        """Take the rows of a batch from `skip` on that are `ok` (None: all)."""
        # A window of n predictions covers hours, and an age ends between two of them: each is decided separately.
        alone = batch.weights is not None or self._settings.retrain.max_age_s is not None
        for piece in pieces(batch, ok, skip, 1 if alone else PIECE_ROWS):
            self._take(piece)

    def promise(self, promise: Promise) -> None:
        """Take a promise where it stands among the batches."""
        self._retrain.promise(promise)

    def outcome(self) -> Outcome:
        """Return what came of it so far."""
        lost = None if self._lost is None else self._lost_before + self._lost
        return Outcome(
            self._model,
            self._events,
            self._first_at,
            self._now.wall_s if self._events else None,
            list(self._monitor.versions),
            list(self._seen.values()),
            list(self._aged),
            lost,
            list(self._verdicts),
            list(self._retrain.missing),
        )

    def _take(self, piece: Batch) -> None:
        for version in piece.versions:
            given = self._baselines.pop(version, None)
            if given is not None:
                self._monitor.give_baseline(version, given)
        if self._first_at is None:
            self._first_at = float(piece.times.min())
        self._events += piece.rows
        known = list(self._monitor.versions)
        taken = self._monitor.take(piece, None, 0)
        self._now = event_instant(max(self._now.wall_s, float(piece.times.max())))
        effects = self._decided(self._retrain.take(piece, None, 0), known)
        for feed in taken.feeds:
            effects += self._book.feed(feed, self._now, self._retrain.informs(feed.version))
        effects += self._finished()
        self._carry_out(effects)
        self._carry_out(self._book.tick(self._now, pays=self._retrain.pays))
        self._age()
        lost = self._retrain.shown()["lost"]
        self._lost = self._lost if lost is None else lost
        self._note()

    def _decided(self, outcomes: Iterable[Decided], known: list[str]) -> list[Effect]:
        """Take what the retrain watch has decided, as a detector does."""
        effects: list[Effect] = []
        for outcome in outcomes:
            match outcome:
                case Pays():
                    if not self._book.has_shortfall:
                        effects += self._book.shortfall(outcome.version, outcome.metric, outcome.at, outcome.numbers, self._now)
                case Judged():
                    self._verdicts.append(outcome.verdict)
                case Decision(kind="flagged" | "rejected"):
                    pass
                case Decision():
                    effects += self._book.new_version(outcome.version, known, self._now)
                    known.append(outcome.version)
                    self._overtaken()  # the retrain that runs, or this version is what came of it
                    self._deployed_at = self._now.wall_s
                    self._begin_again()
        return effects

    def _begin_again(self) -> None:
        """Count what the rule had summed up, which begins again at 0."""
        self._lost_before, self._lost = self._lost_before + (self._lost or 0.0), None if self._lost is None else 0.0

    def _gave_up(self) -> bool:
        """Return whether so many retrains in a row did not pay that the model asks no more."""
        newest = self._verdicts[-self._settings.retrain.give_up :]
        return len(newest) == self._settings.retrain.give_up and all(each == "did not pay" for each in newest)

    def _age(self) -> None:
        """Order a retrain of a version that has come of age, as the dispatcher does."""
        max_age_s, since = self._settings.retrain.max_age_s, self._deployed_at
        if max_age_s is None or since is None or self._now.wall_s < since + max_age_s or self._gave_up():
            return
        active = None if self._running is None else self._running[0]
        asked = admit(
            self._model, now=self._now, active=active, cooldown=self._cooldown, silences=(), dry_run=self._settings.dry_run
        )
        if isinstance(asked, Dispatch | DryRun):
            self._cooldown = Cooldown("age", Countdown(self._now, self._settings.cooldown_s))
            self._deployed_at = self._now.wall_s
            if isinstance(asked, Dispatch) and self._takes_s > 0:
                self._running = (_AGE, float("inf"))
            self._line_up(Waiting(f"{self._model} {_AGE}"), self._now.wall_s, self._began_of_age)

    def _began_of_age(self, at_s: float) -> None:
        self._aged.append(at_s)
        if self._running is not None and self._running[0] == _AGE:
            self._running = (_AGE, at_s + self._takes_s)

    def _line_up(self, order: Waiting, at_s: float, begin: Callable[[float], None]) -> None:
        """Start an order: now, or when the queue has a free slot."""
        if self._queue is None:
            begin(at_s)
        else:
            self._queue.ask(order, at_s=at_s, takes_s=self._takes_s, begin=begin)

    def _overtaken(self) -> None:
        """Let an order that waits expire, and forget one that is being carried out."""
        if self._queue is not None and self._running is not None:
            self._queue.drop(f"{self._model} {self._running[0]}")
        self._running = None

    def _finished(self) -> list[Effect]:
        """Mark the running order as done when its time has passed."""
        if self._running is None or self._now.wall_s < self._running[1]:
            return []
        episode, self._running = self._running[0], None
        return self._book.order(episode, {"order": episode, "state": "done", "reason": None, "new_version": None}, self._now)

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Ask(episode=episode):
                    self._ask(episode)
                case Rearm(version=version, metric=metric):
                    if self._monitor.learned_drift(version, metric, effect.baseline_mean, effect.margin, effect.since_alarm):
                        self._monitor.reset(version, metric)
                case Ordered():
                    self._decided(self._retrain.ordered(self._now.wall_s), [])
                case Retrained(version=version, order=order, new_version=new_version):
                    if self._retrain.versions.live == version:
                        self._begin_again()
                    self._retrain.retrained(version, order, effect.numbers, new_version, self._now.wall_s)
                case _:
                    pass  # the message that people get in a live system

    def _ask(self, episode: str) -> None:
        self._note()
        record = self._book.get(episode)
        seen, now = self._seen[episode], self._now if record is None else event_instant(asks_at(record))
        if self._gave_up():
            why = f"gave up: {self._settings.retrain.give_up} retrains in a row did not pay"
            seen.skips.append(why)
            reply: Json = {"decision": "skipped", "reason": why, "retry_in_s": None}
            self._carry_out(self._book.reply(episode, reply, self._now, now))
            return
        decision = admit(
            self._model,
            now=now,
            active=None if self._running is None else self._running[0],
            cooldown=self._cooldown,
            silences=(),
            dry_run=self._settings.dry_run,
        )
        match decision:
            case Dispatch() | DryRun():
                self._cooldown = Cooldown(episode, Countdown(now, self._settings.cooldown_s))
                seen.ordered_at = now.wall_s
                self._running = (episode, float("inf"))
                numbers = None if record is None else record.get("shortfall")
                worth = (None, None) if numbers is None else (numbers["lost"], numbers["price"])
                self._line_up(Waiting(f"{self._model} {episode}", *worth), now.wall_s, self._began(seen))
                reply = {"decision": "dispatched", "order": episode, "reason": ""}
            case CoolingDown(order=other, retry_in_s=retry_in_s):
                why = f"cooling down after the order of {other}"
                reply = {"decision": "skipped", "reason": why, "retry_in_s": retry_in_s}
                seen.skips.append(why)
            case AlreadyActive(order=other, retry_in_s=retry_in_s):
                why = f"the order of {other} is not finished"
                reply = {"decision": "skipped", "reason": why, "retry_in_s": retry_in_s}
                seen.skips.append(why)
            case _:
                raise AssertionError(f"no silence was given, got {decision}")
        self._carry_out(self._book.reply(episode, reply, self._now, now))
        if self._takes_s == 0.0:
            self._carry_out(self._finished())

    def _began(self, seen: Seen) -> Callable[[float], None]:
        def begin(at_s: float) -> None:
            seen.started_at = at_s
            if self._running is not None and self._running[0] == seen.id:
                self._running = (seen.id, at_s + self._takes_s)

        return begin

    def _note(self) -> None:
        """Copy what has changed on the episodes' records."""
        for record in self._book.changed():
            first = record["evidence"][0]
            seen = self._seen.get(record["id"])
            if seen is None:
                seen = self._seen[record["id"]] = Seen(
                    record["id"],
                    record["version"],
                    record["metric"],
                    record["time"],
                    dict(first),
                    int(first["estimated_start"]),
                    observed_drift(first),
                    record.get("cause", "alarm"),
                )
            seen.alarms = [{"metric": alarm["metric"], "time": alarm["time"]} for alarm in record["evidence"]]
            if record["closed_at"] is not None and seen.closed_at is None:
                seen.closed_at, seen.closed_by = record["closed_at"], record["closed_by"]
        self._book.written()


def pieces(batch: Batch, ok: Bools | None, skip: int, size: int) -> Iterator[Batch]:
    """Cut a batch into pieces of one version each, in order, without the rows that do not count."""
    which = np.zeros(batch.rows, dtype=np.uint16) if batch.which is None else batch.which
    counted = np.ones(batch.rows, dtype=bool) if ok is None else ok.copy()
    counted[:skip] = False
    index = np.flatnonzero(counted)
    if not len(index):
        return
    cuts = np.flatnonzero(np.diff(which[index])) + 1
    for run in np.split(index, cuts):
        for start in range(0, len(run), size):
            rows = run[start : start + size]
            columns = {name: _rows(column, rows) for name, column in batch.columns.items()}
            weights = None if batch.weights is None else _rows(batch.weights, rows)
            yield Batch(len(rows), [batch.versions[which[rows[0]]]], batch.times[rows], columns, weights=weights)


def _rows(column: Column, rows: Indices) -> Column:
    return Column(column.values[rows], None if column.present is None else column.present[rows])


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None

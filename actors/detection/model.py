"""One model in memory, and what is done to it: a batch that arrives, or any other change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NotRequired

from actors import config, replies, wire
from actors.clock import Instant, event_instant
from actors.detection.rows import Damage, JudgementRow, LogRow, SampleRow
from actors.detection.rules.decisions import Ask, Effect
from actors.detection.rules.episodes import EpisodeBook
from actors.detection.rules.monitor import Monitor, MonitorMemory
from actors.detection.rules.retrain import RetrainRecord, RetrainWatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingest:
    """One batch on its way into the log."""

    model: str
    producer: str | None
    sequence: int
    payload: wire.Payload
    client: dict[str, int] | None = None  # the counters that a client sent along
    rejection: replies.Rejection | None = None  # why the sender has emptied rows of this batch
    is_stamped: bool = False  # the sender's clock gave the events their times, no caller

    @property
    def key(self) -> tuple[str, str]:
        """The model and the producer, whose batches are numbered together."""
        return self.model, self.producer or ""


@dataclass(frozen=True, slots=True)
class Change:
    """Anything else that changes a model: `make` gets it and the time, and returns the reply. `model` None: no model."""

    model: str | None
    make: Callable[[Model, Instant], Any]
    sent: str | None = None  # the outbox row that this settles
    creates: bool = False  # whether the model may be new


Work = Ingest | Change


class Outgoing(NamedTuple):
    """A call of the dispatcher that the next commit puts into the outbox."""

    id: str
    method: str
    body: replies.Json


class ModelMemory(MonitorMemory):
    """The fields of a model's row besides its counts. Fields that an older build has not written are missing."""

    no_data: bool
    quarantined: int
    state: str
    ordinal: int
    flagged: NotRequired[list[str]]
    retrain: NotRequired[RetrainRecord]
    deployed: NotRequired[str | None]
    rejection: NotRequired[replies.LastRejection | None]
    bad_values: NotRequired[int]
    clock_ahead: NotRequired[replies.ClockAhead | None]


@dataclass(slots=True)
class Model:
    """One model in memory."""

    name: str
    monitor: Monitor
    book: EpisodeBook
    retrain: RetrainWatch
    settings: config.ModelSettings
    events: int = 0
    duplicates: int = 0
    rejected: int = 0
    number: int = 0  # of its last row in the log
    snapshot: int = 0  # of the last row that the stored detector states know
    last_seen: Instant | None = None
    quarantined: int = 0
    bad_values: int = 0  # of accepted events: no finite numbers, left out
    rejection: replies.LastRejection | None = None  # the last one: field, value, rule, and `at`, when it came
    clock_ahead: replies.ClockAhead | None = None  # of a sender, when it last was: seconds, and `at`
    no_data: bool = False
    warned: bool = False  # that nothing it logs is watched
    deployed: str | None = None  # the live version that the dispatcher was told of, for its age
    awake: bool = False  # its detectors are here
    on_event_time: bool = False  # `clock: event`
    # Since the last snapshot, and what the next commit has to write besides the counts.
    rows_since: int = 0
    force_snapshot: bool = False
    effects: list[Effect] = field(default_factory=list)
    rows: list[LogRow] = field(default_factory=list)  # of the log, besides batches
    outgoing: list[Outgoing] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    judgements: list[JudgementRow] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    happenings: list[replies.Happening] = field(default_factory=list)

    def pace(self, now: Instant) -> Instant:
        """Return the moment by the clock that cooldowns run on: the wall's, or that of the model's newest event."""
        return event_instant(self.monitor.newest_time) if self.on_event_time else now

    def due_in(self, now: Instant) -> float | None:
        """Return the seconds until time alone asks something of the model: a request again, a silence to be noticed.

        None: nothing does. A wait on the clock of the events ends with the next event.
        """
        waits: list[float] = []
        expected = self.settings.expect_every_s
        if expected is not None and self.last_seen is not None and self.events and not self.no_data:
            waits.append(expected - now.seconds_since(self.last_seen))
        again = self.book.due_in(self.pace(now))
        if again is not None and (again <= 0 or not self.on_event_time):
            waits.append(again)
        if self.is_undeployed:
            waits.append(0.0)
        return min(waits, default=None)

    @property
    def is_undeployed(self) -> bool:
        """Whether the dispatcher has to learn the live version, since its age counts."""
        live = self.retrain.versions.live
        return self.settings.retrain.max_age_s is not None and live is not None and live != self.deployed

    @property
    def in_use(self) -> set[str]:
        """The versions that must not be forgotten, however many there are: the live one, and those with an open episode."""
        live = self.retrain.versions.live
        return self.book.open_versions | (set() if live is None else {live})

    def state(self) -> str:
        """Return the model's state for status."""
        if self.book.open_episodes:
            return "drifting"
        if self.no_data:
            return "no_data"
        return "unwatched" if self.events and not self.monitor.watched else self.monitor.state

    def reject(self, events: int, rejection: replies.Rejection | None, now: Instant) -> None:
        """Count rejected events, and keep the last reason."""
        self.rejected += events
        if rejection is not None:
            field_, value, rule = rejection["field"], rejection["value"], rejection["rule"]
            self.rejection = {"field": field_, "value": value, "rule": rule, "at": now.wall_s}

    def ask_for(self, damage: Damage) -> None:
        """Ask again for what a row asked for that cannot be read."""
        id_ = damage.key[0]
        if damage.table == "outbox" and isinstance(id_, str):
            record = self.book.get(id_)
            if record is not None and record["request"]["state"] == "asking":
                self.effects.append(Ask(id_))
            elif id_.startswith("deployed-"):
                self.deployed = None

    # --- time

    def is_due(self, now: Instant) -> bool:
        """Whether `tick` would do anything."""
        return self._is_silent(now) or self.book.has_due(self.pace(now)) or self.is_undeployed

    def tick(self, now: Instant) -> None:
        """Do what time alone asks for: notice a silence, ask again."""
        if self._is_silent(now) and self.last_seen is not None:
            self.no_data = True
            silent_s, expected_s = now.seconds_since(self.last_seen), self.settings.expect_every_s
            self._tell_silence("no_data", "warning", now, {"silent_s": silent_s, "expected_s": expected_s})
            logger.warning("%s: no data for %.0f s, an event is expected every %.0f s", self.name, silent_s, expected_s)
        self.effects += self.book.tick(now, self.pace(now), pays=self.retrain.pays)

    def has_logged(self, now: Instant) -> None:
        """Note that events have come; it may end a silence that was noticed."""
        if self.no_data:
            self._tell_silence("recovered", "info", now, {"why": "it logs again"})
        self.last_seen, self.no_data = now, False

    def _tell_silence(self, kind: replies.HappeningKind, severity: replies.Severity, now: Instant, data: replies.Json) -> None:
        since = 0.0 if self.last_seen is None else self.last_seen.wall_s
        subject = f"no_data:{self.name}:{since!r}"
        key = subject.removeprefix("no_data:") if kind == "no_data" else subject
        told = replies.happening(kind, key, now.wall_s, severity, model=self.name, subject=subject, data=data)
        self.happenings.append(told)

    def _is_silent(self, now: Instant) -> bool:
        """Return whether nothing was logged for longer than is expected, and nobody has noticed yet."""
        expected = self.settings.expect_every_s
        if expected is None or self.last_seen is None or not self.events or self.no_data:
            return False
        return now.seconds_since(self.last_seen) > expected

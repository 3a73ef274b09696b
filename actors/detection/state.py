"""What a detector process knows of its models, and the one way to change it: a commit.

All of it runs in the process's store thread. Works that wait together are committed together, in one fenced transaction: log
rows, high-water marks, counts, snapshots, episodes, outbox. Memory runs ahead of the store only inside `commit`; where that
fails, whatever it touched is forgotten, and read again from the store at its next use. So what is in memory is always what a
successor would find.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from actors import config, failpoints, wire
from actors.clock import Instant, event_instant
from actors.config.stored import load_stored
from actors.detection import tables as detector_tables
from actors.detection.rules import episodes
from actors.detection.rules.episodes import Ask, Effect, EpisodeBook, Overtaken, Rearm, Tell
from actors.detection.rules.monitor import Monitor
from actors.detection.tables import DETECTOR, Changes
from actors.recent import Recent
from actors.storage import UNAVAILABLE, Fence, Part, StaleEpochError, Store

logger = logging.getLogger(__name__)

# A snapshot every so many batches: a restart replays at most that many, and 40 KB of state cost little beside their bytes.
SNAPSHOT_BATCHES: Final = 256
SNAPSHOT_ROWS: Final = 2_000_000
# A batch that has ended its process so often, or failed in it, is set aside: its sequence must not block the model for ever.
CRASHES: Final = 3
_RETRY_S: Final = 0.5
_PRODUCERS_IN_MEMORY: Final = 20_000  # pairs of model and producer of one process; others are read again when they come
_PRODUCER_S: Final = 30 * 86_400.0  # a producer that was silent for so long has no batch on its way any more
_SAMPLE: Final = 4096  # values of a baseline that are kept
_PIN_EVENTS: Final = 500  # first events of a version that make its baseline where none was given


@dataclass(frozen=True, slots=True)
class Ingest:
    """One batch on its way into the log."""

    model: str
    producer: str | None
    sequence: int
    payload: wire.Payload
    client: dict[str, Any] | None = None
    rejection: wire.Rejection | None = None  # why the sender has emptied rows of this batch


@dataclass(frozen=True, slots=True)
class Change:
    """Anything else that changes a model: `make` gets it and the time, and gives the reply. `model` None: no model."""

    model: str | None
    make: Callable[[Model, Instant], Any]
    sent: str | None = None  # the outbox row that this settles
    creates: bool = False  # whether the model may be new


Work = Ingest | Change


@dataclass(slots=True)
class Model:
    """One model in memory."""

    name: str
    monitor: Monitor
    book: EpisodeBook
    settings: config.ModelSettings
    events: int = 0
    duplicates: int = 0
    rejected: int = 0
    number: int = 0
    snapshot: int = 0
    last_seen: Instant | None = None
    quarantined: int = 0
    bad_values: int = 0  # of accepted events: no finite numbers, left out
    rejection: dict[str, Any] | None = None  # the last one: field, value, rule, and `at`, when it came
    no_data: bool = False
    warned: bool = False  # that nothing it logs is watched
    awake: bool = False  # its detectors are here
    rows_since: int = 0
    force_snapshot: bool = False
    effects: list[Effect] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    on_event_time: bool = False  # `clock: event`

    def pace(self, now: Instant) -> Instant:
        """Give the moment by the clock that cooldowns run on: the wall's, or that of the model's newest event."""
        return event_instant(self.monitor.newest_time) if self.on_event_time else now

    def state(self) -> str:
        """Give the model's state for status."""
        if self.book.open_episodes:
            return "drifting"
        if self.no_data:
            return "no_data"
        return "unwatched" if self.events and not self.monitor.watched else self.monitor.state


class UnavailableError(RuntimeError):
    """The store cannot be written now; nothing has changed."""


class Detection:
    """The models of one process. Not thread-safe: one thread uses it."""

    def __init__(self, store: Store, process: str, slot: int, now: Instant) -> None:
        """Raise the epoch and read what the process's predecessor has left. Raises what the store raises."""
        self._store = store
        self._process = process
        self._part: Part = store.part(DETECTOR, slot)
        self._settings = load_stored(store)
        self.fence = Fence.raise_epoch(self._part, process)
        self._models: dict[str, Model] = {}
        # By (model, producer): the high-water mark. A group's are read before it is carried out, and stay until its commit.
        self._marks: Recent[tuple[str, str], int] = Recent(_PRODUCERS_IN_MEMORY)
        # The (model, producer) whose first batch in this process's life has come through.
        self._proven: Recent[tuple[str, str], None] = Recent(_PRODUCERS_IN_MEMORY)
        # Those whose batch is on record as being tried, its sequence, and how often it had been tried before. None of them
        # may be forgotten: its batch would count as tried once more.
        self._noted: dict[tuple[str, str], tuple[int, int]] = {}
        self.outbox: dict[str, tuple[str, str, dict[str, Any]]] = {}  # id -> model, method, arguments
        # A commit that failed may have come through all the same (the connection was lost before its reply): what it put
        # into the outbox is in the store alone then, and is read from there. So are the models that it made us forget: they
        # must not wait for their next event to ask again, or to be missed.
        self._unsure = False
        self._forgotten: set[str] = set()
        with self._part.read() as connection:
            self._held(
                detector_tables.load_models(connection, process), detector_tables.load_open_episodes(connection, process), now
            )
            self.outbox = self._stored_outbox(connection)

    @property
    def epoch(self) -> int:
        """The epoch that every commit of this process must find."""
        return self.fence.epoch

    @property
    def models(self) -> Iterable[Model]:
        """The models in memory: all of this process, less those that a failed commit made it forget."""
        return self._models.values()

    def reload(self) -> None:
        """Read the settings again; every model takes them up at its next batch, its learned state kept where it still fits."""
        self._settings = load_stored(self._store)
        self._models.clear()
        with self._part.read() as connection:
            rows = detector_tables.load_models(connection, self._process)
            self._held(rows, detector_tables.load_open_episodes(connection, self._process), None)

    # --- the commit

    def commit(self, works: Sequence[Work], now: Instant) -> list[Any]:
        """Carry out the works in order and give their replies; one that is the caller's mistake gives its exception.

        Raises UnavailableError (nothing has changed) or StaleEpochError (this process must end).
        """
        try:
            return self._commit(works, now)
        except (StaleEpochError, UnavailableError):
            raise
        except UNAVAILABLE as error:
            self._forget(works)
            raise UnavailableError(_brief(error)) from error
        except Exception as error:  # noqa: BLE001  whatever a detector raises must not stop the other models
            self._forget(works)
            if len(works) == 1:
                return [self._failure(works[0], error, now)]
            # Somebody in this group breaks it: each for itself, so that the others do not suffer.
            return [reply for work in works for reply in self.commit([work], now)]

    def _commit(self, works: Sequence[Work], now: Instant) -> list[Any]:
        self._make_sure(now)
        self._wake({work.model for work in works if work.model is not None}, works, now)
        tries = self._note_attempts(works)
        if tries and len(works) > 1:  # one of them may end the process: each by itself, so that no other counts as tried
            return [reply for work in works for reply in self.commit([work], now)]
        if tries >= CRASHES:
            return [self._set_aside(works[0], "it ended its process each time", now)]
        changes = Changes.none()
        replies = [self._carry_out(work, changes, now) for work in works]
        changes.tried += {_key(work): None for work in works if isinstance(work, Ingest) and self._is_noted(work)}
        touched = [name for name in _touched(works, replies) if name in self._models]
        told = [effect for name in touched for effect in self._write_down(self._models[name], changes, now)]
        if touched or changes.sent or changes.tried:
            self._write(changes)
        for name in touched:
            model = self._models[name]
            if model.force_snapshot:
                model.monitor.written()
                model.rows_since, model.force_snapshot = 0, False
            model.book.written()
        for id_ in changes.sent:
            self.outbox.pop(id_, None)
        self.outbox.update(
            {row["id"]: (row["model"], row["method"], detector_tables.unpack(row["body"])) for row in changes.outbox}
        )
        self._came_through(changes.tried)
        for effect in told:
            _log(effect)
        self._marks.trim()
        self._proven.trim()
        return replies

    def _write(self, changes: Changes) -> None:
        failpoints.reach("detector.before_commit")
        with self.fence.write() as connection:
            detector_tables.write(connection, changes)
            failpoints.reach("detector.in_commit")
        failpoints.reach("detector.after_commit")

    def _forget(self, works: Sequence[Work]) -> None:
        self._unsure = True
        for work in works:
            if work.model is not None and self._models.pop(work.model, None) is not None:
                self._forgotten.add(work.model)
            if isinstance(work, Ingest):
                self._marks.discard(_key(work))

    def _make_sure(self, now: Instant) -> None:
        """Know again what the store holds, after a commit whose outcome was not known."""
        if not self._unsure:
            return
        with self._part.read() as connection:
            self.outbox = self._stored_outbox(connection)
            rows = detector_tables.load_some_models(connection, sorted(self._forgotten - self._models.keys()))
            self._held(rows, [r for row in rows for r in detector_tables.load_model_episodes(connection, row.model)], now)
        self._forgotten.clear()
        self._unsure = False

    def _stored_outbox(self, connection: Connection) -> dict[str, tuple[str, str, dict[str, Any]]]:
        rows = detector_tables.load_outbox(connection, self._process)
        return {row.id: (row.model, row.method, detector_tables.unpack(row.body)) for row in rows}

    def _carry_out(self, work: Work, changes: Changes, now: Instant) -> Any:
        if isinstance(work, Ingest):
            return self._ingest(work, changes, now)
        if work.sent is not None:
            changes.sent.append(work.sent)
        if work.model is None or (work.model not in self._models and not work.creates):
            return KeyError(f"model must be one that has logged something, got {work.model!r}")
        model = self._models.get(work.model) or self._new(work.model)
        try:
            return work.make(model, now)
        except (ValueError, KeyError) as error:
            return error

    # --- events

    def _ingest(self, work: Ingest, changes: Changes, now: Instant) -> Any:
        known = self._models.get(work.model)
        high = 0 if work.producer is None else self._marks[_key(work)]
        sequence = high if work.producer is None else work.sequence
        if sequence > high:
            return self._reply("gap", high, reason=f"the next sequence is {high}, got {sequence}", retry_in_s=0.0)
        try:
            batch = wire.unpack(work.payload)
        except ValueError as error:
            if known is not None:  # no model begins with a bad batch
                known.rejected += wire.declared_rows(work.payload)
                known.rejection = {"field": "payload", "value": len(work.payload), "rule": str(error)[:500], "at": now.wall_s}
            return self._reply("refused", high, reason=str(error), counted=known is not None)
        model = known or self._new(work.model)
        skip = min(high - sequence, batch.rows)
        verdict = wire.check(batch, now.wall_s, skip)
        batch = verdict.batch
        count = batch.rows - skip
        if count:
            self._count(model, batch, verdict.ok, skip, now)
            changes.log.append(
                {
                    "model": model.name,
                    "number": model.number,
                    "producer": work.producer,
                    "sequence": sequence,
                    "skip": skip,
                    "count": count,
                    "received_at": now.wall_s,
                    "payload": work.payload,
                }
            )
        model.events += count - verdict.rejected
        model.rejected += verdict.rejected
        model.duplicates += skip
        if verdict.listed:
            last = work.rejection or verdict.listed[-1]
            model.rejection = {"field": last["field"], "value": last["value"], "rule": last["rule"], "at": now.wall_s}
        if work.producer is not None:
            high = max(high, sequence + batch.rows)
            self._marks[_key(work)] = high
            client = None if work.client is None else detector_tables.pack(work.client)
            changes.producers.append(
                {"model": model.name, "producer": work.producer, "high_water": high, "seen_at": now.wall_s, "client": client}
            )
        model.bad_values += verdict.bad_values
        more = {} if verdict.bad_value is None else {"bad_values": verdict.bad_values, "bad_value": verdict.bad_value}
        return self._reply("accepted", high, count - verdict.rejected, skip, verdict.listed, **more)

    def _count(self, model: Model, batch: wire.Batch, ok: wire.Bools | None, skip: int, now: Instant) -> None:
        before = list(model.monitor.versions)
        taken = model.monitor.take(batch, ok, skip, keep=model.book.open_versions)
        model.number += 1
        model.rows_since += batch.rows
        model.last_seen, model.no_data = now, False
        for version in taken.new_versions:
            model.effects += model.book.new_version(version, before, now)
            before.append(version)
        for feed in taken.feeds:
            model.effects += model.book.feed(feed, now)
        model.dropped += taken.dropped_versions
        # Each time the number of events has doubled is often enough to follow a rate.
        if (model.events + batch.rows).bit_length() != model.events.bit_length() and model.monitor.follow_rate():
            model.force_snapshot = True
        if model.on_event_time:  # days may pass between two ticks of the wall's clock
            model.effects += model.book.tick(now, model.pace(now))

    def _reply(
        self,
        status: str,
        high_water: int,
        accepted: int = 0,
        duplicates: int = 0,
        rejected: list[wire.Rejection] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        return {
            "status": status,
            "accepted": accepted,
            "duplicates": duplicates,
            "rejected": rejected or [],
            "high_water": high_water,
            "epoch": self.epoch,
            **more,
        }

    def _write_down(self, model: Model, changes: Changes, now: Instant) -> list[Tell]:
        """Stage everything of a model that a successor must find."""
        told = self._write_effects(model, changes, now)
        due = SNAPSHOT_BATCHES + zlib.crc32(model.name.encode()) % 64  # not all models of a process at once
        if model.number - model.snapshot >= due or model.rows_since >= SNAPSHOT_ROWS:
            model.force_snapshot = True
        if model.force_snapshot:
            model.snapshot = model.number
            changes.states += [
                {"model": model.name, "version": version, "metric": metric, "kind": kind, "state": state}
                for version, metric, kind, state in model.monitor.dirty_states()
            ]
        changes.samples += model.samples
        changes.dropped_versions += [(model.name, version) for version in model.dropped]
        model.samples, model.dropped = [], []
        changes.episodes += [_episode_row(record) for record in model.book.changed()]
        changes.models.append(
            {
                "model": model.name,
                "process": self._process,
                "events": model.events,
                "duplicates": model.duplicates,
                "rejected": model.rejected,
                "number": model.number,
                "snapshot": model.snapshot,
                "last_at": now.wall_s if model.last_seen is None else model.last_seen.wall_s,
                "memory": detector_tables.pack(self._memory(model)),
            }
        )
        self._warn_unwatched(model)
        return told

    def _write_effects(self, model: Model, changes: Changes, now: Instant) -> list[Tell]:
        told: list[Tell] = []
        for effect in model.effects:
            match effect:
                case Ask(episode=episode):
                    record = model.book.get(episode)
                    if record is not None:
                        changes.outbox.append(self._outgoing(episode, model.name, "request", _request(record, model), now))
                case Overtaken(version=version, over=over):
                    body = {"model": model.name, "version": version, "over": list(over)}
                    digest = hashlib.sha256(f"{len(model.name)}:{model.name}{version}".encode()).hexdigest()[:32]
                    changes.outbox.append(self._outgoing(f"overtaken-{digest}", model.name, "overtaken", body, now))
                case Rearm(version=version, metric=metric):
                    if model.monitor.learned_drift(version, metric, effect.baseline_mean, effect.margin, effect.since_alarm):
                        model.monitor.reset(version, metric)
                        model.force_snapshot = True
                case Tell():
                    told.append(effect)
        model.effects.clear()
        return told

    def _memory(self, model: Model) -> dict[str, Any]:
        memory = model.monitor.memory()
        for version, held in memory["versions"].items():
            drifting = model.book.drifting(version)
            if model.book.open_of(version) is not None:
                held["state"] = "drifting"
            for metric in drifting.keys() & held["metrics"].keys():
                # What the detector learns now is the drifted level; the episode keeps the old one.
                held["metrics"][metric]["progress"].update(state="drifting", baseline=drifting[metric])
        flags = {
            "no_data": model.no_data,
            "quarantined": model.quarantined,
            "flagged": model.book.flagged,
            "rejection": model.rejection,
            "bad_values": model.bad_values,
        }
        return {**memory, **flags, "state": model.state(), "ordinal": model.book.ordinal}

    def _warn_unwatched(self, model: Model) -> None:
        if model.events and not model.warned and not model.monitor.watched:
            model.warned = True
            logger.warning(
                "%s logs nothing that is watched (%s): it shows as unwatched",
                model.name,
                ", ".join(model.settings.watch) or "none",
            )

    def _outgoing(self, id_: str, model: str, method: str, body: dict[str, Any], now: Instant) -> dict[str, Any]:
        return {
            "id": id_,
            "model": model,
            "process": self._process,
            "method": method,
            "body": detector_tables.pack(body),
            "created_at": now.wall_s,
        }

    # --- batches that end their process

    def _note_attempts(self, works: Sequence[Work]) -> int:
        """Put batches of producers not heard before in this process on record; give how often one of them had been tried.

        A batch that comes before its turn is not tried, and must not take the place of the one that is. Of several works
        none is put on record where one had been tried: they are not tried together.
        """
        fresh: dict[tuple[str, str], int] = {}
        for work in works:
            if isinstance(work, Ingest) and work.producer is not None and work.sequence <= self._marks[_key(work)]:
                fresh.setdefault(_key(work), work.sequence)
        fresh = {key: sequence for key, sequence in fresh.items() if key not in self._proven and key not in self._noted}
        if fresh and len(works) > 1:
            with self._part.read() as connection:
                tries = max(detector_tables.load_attempts(connection, fresh).values())
            if tries:
                return tries
        if fresh:
            self._note(fresh)
            failpoints.reach("detector.after_attempt")
        return max((self._noted[_key(w)][1] for w in works if isinstance(w, Ingest) and self._is_noted(w)), default=0)

    def _note(self, batches: Mapping[tuple[str, str], int]) -> None:
        """Put one more try of each batch, by its sequence, on record."""
        with self.fence.write() as connection:
            before = detector_tables.load_attempts(connection, batches)
            detector_tables.write_attempts(connection, {key: (sequence, before[key] + 1) for key, sequence in batches.items()})
        self._noted.update({key: (sequence, before[key]) for key, sequence in batches.items()})

    def _is_noted(self, work: Ingest) -> bool:
        noted = self._noted.get(_key(work))
        return noted is not None and noted[0] == work.sequence

    def _came_through(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._noted.pop(key, None)
            self._proven[key] = None

    def _failure(self, work: Work, error: Exception, now: Instant) -> Any:
        if not isinstance(work, Ingest):
            logger.error("a change of %s failed", work.model, exc_info=error)
            return RuntimeError(f"{type(error).__name__}: {error}")
        reason = f"{type(error).__name__}: {error}"
        if work.producer is None:
            logger.error("a batch of %s failed", work.model, exc_info=error)
            return self._reply("unavailable", 0, reason=reason, retry_in_s=_RETRY_S)
        key = _key(work)
        if not self._is_noted(work):  # a later batch of a producer that was heard before
            self._note({key: work.sequence})
        tries = self._noted[key][1] + 1
        logger.error("a batch of %s failed, attempt %d", work.model, tries, exc_info=error)
        if tries >= CRASHES:
            return self._set_aside(work, reason, now)
        # Its next try is put on record like the first: the store counts, so no number of failing producers is too many.
        del self._noted[key]
        self._proven.discard(key)
        return self._reply("unavailable", 0, reason=reason, retry_in_s=_RETRY_S)

    def _set_aside(self, work: Work, reason: str, now: Instant) -> Any:
        """Quarantine a batch: its rows are rejected, its sequence is consumed, its bytes are kept for a person."""
        if not isinstance(work, Ingest) or work.producer is None:
            return RuntimeError(reason)
        self._wake({work.model}, [work], now)
        model = self._models.get(work.model) or self._new(work.model)
        high = self._marks[_key(work)]
        if work.sequence > high:
            return self._reply("gap", high, reason=f"the next sequence is {high}, got {work.sequence}", retry_in_s=0.0)
        rows = wire.unpack(work.payload).rows
        skip = min(high - work.sequence, rows)
        high = max(high, work.sequence + rows)
        changes = Changes.none()
        changes.quarantine.append(
            {
                "model": model.name,
                "producer": work.producer,
                "sequence": work.sequence,
                "count": rows - skip,
                "received_at": now.wall_s,
                "reason": reason[:500],
                "payload": work.payload,
            }
        )
        changes.producers.append(
            {"model": model.name, "producer": work.producer, "high_water": high, "seen_at": now.wall_s, "client": None}
        )
        changes.tried.append((model.name, work.producer))
        self._marks[_key(work)] = high
        model.quarantined += 1
        model.rejected += rows - skip
        self._write_down(model, changes, now)
        self._write(changes)
        self._came_through(changes.tried)
        logger.error("a batch of %s (%s, sequence %d) was set aside: %s", model.name, work.producer, work.sequence, reason)
        rule = f"was set aside after {CRASHES} failures: {reason}"
        rejected: list[wire.Rejection] = [{"index": skip, "field": "batch", "value": rows - skip, "rule": rule[:500]}]
        return self._reply("accepted", high, 0, skip, rejected)

    # --- reading

    def _held(self, rows: Iterable[Any], records: Iterable[dict[str, Any]], now: Instant | None) -> None:
        """Make models of their rows, their detectors still asleep."""
        by_model: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_model.setdefault(record["model"], []).append(record)
        for row in rows:
            memory = detector_tables.unpack(row.memory)
            settings = self._settings.for_model(row.model)
            book = EpisodeBook(self._store.store_id, row.model, memory["ordinal"], by_model.get(row.model, ()))
            # The boot clock's reading of then is not known; the wall's is.
            seen = Instant(row.last_at, 0.0, "") if now is None or row.last_at <= now.wall_s else now
            self._models[row.model] = Model(
                row.model,
                Monitor(settings, memory),
                book,
                settings,
                row.events,
                row.duplicates,
                row.rejected,
                row.number,
                row.snapshot,
                last_seen=seen,
                quarantined=memory["quarantined"],
                rejection=memory.get("rejection"),
                bad_values=memory.get("bad_values", 0),
                no_data=memory["no_data"],
                on_event_time=self._settings.clock == "event",
            )

    def _new(self, name: str) -> Model:
        settings = self._settings.for_model(name)
        book = EpisodeBook(self._store.store_id, name)
        model = Model(name, Monitor(settings), book, settings, awake=True, on_event_time=self._settings.clock == "event")
        self._models[name] = model
        return model

    def _wake(self, names: set[str], works: Sequence[Work], now: Instant) -> None:
        """Read what these models' works need and memory has not: rows that were forgotten, detectors, high-water marks."""
        unknown = sorted(name for name in names if name not in self._models)
        asleep = [name for name in sorted(names) if name in self._models and not self._models[name].awake]
        pairs = {
            _key(work)
            for work in works
            if isinstance(work, Ingest) and work.producer is not None and _key(work) not in self._marks
        }
        if not (unknown or asleep or pairs):
            return
        with self._part.read() as connection:
            if unknown:
                rows = detector_tables.load_some_models(connection, unknown)
                records = [r for row in rows for r in detector_tables.load_model_episodes(connection, row.model)]
                self._held(rows, records, now)
                asleep += [row.model for row in rows]
            for row in detector_tables.load_states(connection, asleep):
                self._models[row.model].monitor.wake(row.version, row.metric, row.kind, row.state)
            for name in asleep:
                model = self._models[name]
                self._take_up_pin(connection, model)
                for row in detector_tables.read_log(connection, name, after=model.snapshot, until=model.number):
                    verdict = wire.recheck(row.payload, row.received_at, row.skip)
                    model.monitor.take(verdict.batch, verdict.ok, row.skip, counted=True, keep=model.book.open_versions)
                    model.rows_since += row.count
                model.awake = True
            marks = detector_tables.load_producers(connection, sorted(pairs))
        for pair in pairs:
            self._marks[pair] = marks.get(pair, 0)

    # --- what else changes a model

    def high_water(self, model: str, producer: str, now: Instant) -> int:
        """Give the next free sequence number of a producer, 0 for an unknown one. Raises what the store raises."""
        del now
        with self._part.read() as connection:
            return detector_tables.load_producers(connection, [(model, producer)]).get((model, producer), 0)

    def explain(self, episode: str) -> dict[str, Any]:
        """Give an episode's whole record. KeyError where there is none."""
        with self._part.read() as connection:
            record = detector_tables.read_episode(connection, episode)
        if record is None:
            raise KeyError(f"episode must be one of this store, got {episode!r}")
        return record

    def baseline(self, name: str, version: str, values: dict[str, wire.Floats]) -> Change:
        """Let a version's metrics learn from these values instead of from its first events."""

        def make(model: Model, now: Instant) -> dict[str, Any]:
            watched = model.monitor.give_baseline(version, values)
            model.force_snapshot = True
            model.last_seen = model.last_seen or now
            model.samples += [_sample(name, version, metric, values[metric]) for metric in watched]
            return {"status": "learned", "metrics": watched, "unwatched": sorted(values.keys() - set(watched))}

        return Change(name, make, creates=True)

    def pin(self, name: str, version: str | None) -> Change:
        """Compare every version from now on with the baseline of this one; None: each with its own again."""

        def make(model: Model, now: Instant) -> dict[str, Any]:
            del now
            if version is not None and version not in model.monitor.versions:
                raise KeyError(f"version must be one that {name} has logged, got {version!r}")
            with self._part.read() as connection:
                samples = {} if version is None else self._baseline_of(connection, model, version)
            if version is not None and not samples:
                raise ValueError(f"version must have logged a watched metric or been given a baseline, got {version!r}")
            model.monitor.pin(version, samples)
            model.samples += [_sample(name, str(version), metric, sample) for metric, sample in samples.items()]
            return {"status": "pinned" if version else "unpinned", "metrics": sorted(samples)}

        return Change(name, make)

    def _take_up_pin(self, connection: Any, model: Model) -> None:
        if model.monitor.pinned is not None:
            samples = self._baseline_of(connection, model, model.monitor.pinned)
            model.monitor.pin(model.monitor.pinned, samples)

    def _baseline_of(self, connection: Any, model: Model, version: str) -> dict[str, wire.Floats]:
        """Give the baseline of a version by metric: the one it was given, else its first events in the log."""
        given = detector_tables.load_samples(connection, model.name, version)
        samples = {
            metric: np.frombuffer(sample, dtype="<f8") for metric, sample in given.items() if metric in model.settings.watch
        }
        wanted = [metric for metric in model.settings.watch if metric not in samples]
        collected: dict[str, list[wire.Floats]] = {metric: [] for metric in wanted}
        if wanted and version in model.monitor.versions:
            for row in detector_tables.read_log(connection, model.name, until=10_000):
                seen = wire.recheck(row.payload, row.received_at, row.skip)
                if version in seen.batch.versions:
                    for metric, found in collected.items():
                        found.append(wire.values_of(seen.batch, metric, version, seen.ok, row.skip))
                if all(sum(map(len, found)) >= _PIN_EVENTS for found in collected.values()):
                    break
        for metric, found in collected.items():
            values = np.concatenate(found)[:_PIN_EVENTS] if found else np.empty(0)
            if len(values):
                samples[metric] = values
        return samples

    def due(self, now: Instant) -> list[Change]:
        """Give the changes that time alone makes: requests to ask again, silence where events are expected."""
        self._make_sure(now)
        changes: list[Change] = []
        for model in self._models.values():
            expected = model.settings.expect_every_s
            silent = (
                expected is not None
                and model.events > 0
                and not model.no_data
                and model.last_seen is not None
                and now.seconds_since(model.last_seen) > expected
            )
            if silent or model.book.has_due(model.pace(now)):
                changes.append(Change(model.name, _tick))
        return changes

    def followed(self) -> dict[str, str]:
        """Give {episode: model} whose orders are worth asking for."""
        return {episode: model.name for model in self._models.values() for episode in model.book.followed()}

    def keep_house(self, names: Sequence[str], now: Instant, at_most: int) -> int:
        """Trim the logs of these models to the retention, in short transactions; give how many batches went."""
        retention = self._settings.retention
        gone = 0
        for name in names:
            with self.fence.write() as connection:
                gone += detector_tables.trim(
                    connection, name, before_s=now.wall_s - retention.age_s, rows=retention.rows, at_most=at_most
                )
        return gone

    def forget_old(self, now: Instant) -> None:
        """Forget producers and closed episodes beyond the retention."""
        before_s = now.wall_s - self._settings.retention.age_s
        with self.fence.write() as connection:
            gone = detector_tables.forget_producers(connection, self._process, min(before_s, now.wall_s - _PRODUCER_S))
            detector_tables.forget_episodes(connection, self._process, before_s)
        if gone:  # memory must not know more of them than the store, which is asked where they go on
            self._marks = Recent(_PRODUCERS_IN_MEMORY)


def _tick(model: Model, now: Instant) -> None:
    expected = model.settings.expect_every_s
    if expected is not None and model.last_seen is not None and now.seconds_since(model.last_seen) > expected and model.events:
        model.no_data = True
        logger.warning(
            "%s: no data for %.0f s, one is expected every %.0f s", model.name, now.seconds_since(model.last_seen), expected
        )
    model.effects += model.book.tick(now, model.pace(now))


def _request(record: dict[str, Any], model: Model) -> dict[str, Any]:
    first = record["evidence"][0]
    return {
        "episode": record["id"],
        "model": record["model"],
        "version": record["version"],
        "metric": record["metric"],
        "observed_drift": episodes.observed_drift(first),
        "triggered_at": episodes.asks_at(record) if model.on_event_time else record["opened_at"],
        "explanation": episodes.explanation(record),
    }


def _touched(works: Sequence[Work], replies: Sequence[Any]) -> list[str]:
    """Give the models that the works have changed."""
    changed = (
        work.model
        for work, reply in zip(works, replies, strict=True)
        if work.model is not None and not isinstance(reply, Exception)
        if not (isinstance(work, Ingest) and reply["status"] not in {"accepted", "refused"})
    )
    return list(dict.fromkeys(changed))


def _episode_row(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": record["id"],
        "model": record["model"],
        "version": record["version"],
        "ordinal": record["ordinal"],
        "open": int(record["held"]),
        "opened_at": record["opened_at"],
        "record": detector_tables.pack(record),
    }


def _sample(model: str, version: str, metric: str, values: wire.Floats) -> dict[str, Any]:
    kept = np.asarray(values, dtype="<f8")[-_SAMPLE:]
    return {"model": model, "version": version, "metric": metric, "sample": kept.tobytes()}


def _key(work: Ingest) -> tuple[str, str]:
    return work.model, work.producer or ""


def _log(tell: Tell) -> None:
    if tell.kind in {"opened", "flagged", "skipped"}:
        logger.warning("episode %s %s: %s", tell.episode, tell.kind, tell.text)
    else:
        logger.info("episode %s %s: %s", tell.episode, tell.kind, tell.text)


def _brief(error: Exception) -> str:
    """Give a database's error without its statement and parameters."""
    return str(getattr(error, "orig", None) or error)[:500]

"""What a detector process knows of its models, and the one way to change it: a commit.

All of it runs in the process's store thread. Works that wait together are committed together, in one fenced transaction: log
rows, high-water marks, counts, snapshots, episodes, outbox. Memory runs ahead of the store only inside `commit`; where that
fails, whatever it touched is forgotten, and read again from the store at its next use. So what is in memory is always what a
successor would find.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection

from actors import failpoints, replies, wire
from actors.checks import brief
from actors.clock import Instant
from actors.config.stored import load_stored
from actors.detection import baselines, effects, tables
from actors.detection.attempts import CRASHES, Attempts
from actors.detection.model import Change, Ingest, Model, Work
from actors.detection.models import PRODUCERS_IN_MEMORY, Models, UnreadableError
from actors.detection.rules.episodes import Tell
from actors.detection.rules.promises import Promise
from actors.detection.rules.retrain import Outcome
from actors.detection.tables import DETECTOR, Changes
from actors.detection.weighing import Weighing
from actors.replies import Episode, Ingested, Json, ingested
from actors.storage import UNAVAILABLE, Fence, Part, StaleEpochError, Store

__all__ = ["CRASHES", "Change", "DetectionState", "Ingest", "Model", "UnavailableError", "Work"]

logger = logging.getLogger(__name__)

# A snapshot every so many batches: a restart replays at most that many, and 40 KB of state cost little besides their bytes.
SNAPSHOT_BATCHES: Final = 256
SNAPSHOT_ROWS: Final = 2_000_000
_RETRY_S: Final = 0.5
_PRODUCER_S: Final = 30 * 86_400.0  # a producer that was silent for so long has no batch in flight any more
_REASON: Final = 500  # characters of a reason that are kept
_AGAIN_S: Final = 0.5  # what is due is looked at again after so long, in case its commit fails


class UnavailableError(RuntimeError):
    """The store cannot be written now; nothing has changed."""


class DetectionState:
    """The models of one process. Not thread-safe: one thread uses it."""

    def __init__(self, store: Store, process: str, slot: int, now: Instant) -> None:
        """Raise the epoch and read what the process's predecessor has left. Raises what the store raises."""
        self._store = store
        self._process = process
        self._part: Part = store.part(DETECTOR, slot)
        self.fence = Fence.raise_epoch(self._part, process)
        self._models = Models(self._part, store.store_id, process, load_stored(store))
        self._attempts = Attempts(self.fence, PRODUCERS_IN_MEMORY)
        self.outbox: dict[str, tuple[str, str, Json]] = {}  # id -> model, method, arguments
        # A commit that failed may have come through all the same (the connection was lost before its reply): what it put
        # into the outbox is in the store alone then, and is read from there.
        self._unsure = False
        self._grown: set[str] = set()
        self._models.read_all(now)
        with self._part.read() as connection:
            self.outbox = self._stored_outbox(connection)

    @property
    def epoch(self) -> int:
        """The epoch that every commit of this process must find."""
        return self.fence.epoch

    @property
    def models(self) -> Iterable[Model]:
        """The models in memory: all of this process, less those that a failed commit made it forget."""
        return self._models

    def reload(self, now: Instant) -> None:
        """Read the settings again; every model takes them up at its next batch, its learned state kept where it still fits."""
        self._models.settings = load_stored(self._store)
        self._models.read_all(now)
        for model in self._models:
            model.book.ask_again(now)
            self._models.plan(model, now)

    # --- the commit

    def commit(self, works: Sequence[Work], now: Instant) -> list[Any]:
        """Carry out the works in order and return their replies; one that is the caller's mistake gives its exception.

        Raises:
            UnavailableError: nothing has changed.
            StaleEpochError: this process must end.
        """
        try:
            return self._commit(works, now)
        except (StaleEpochError, UnavailableError):
            raise
        except UNAVAILABLE as error:
            self._forget(works)
            raise UnavailableError(brief(error)) from error
        except Exception as error:  # noqa: BLE001  whatever a detector raises must not stop the other models
            self._forget(works)
            if isinstance(error, UnreadableError) and len(works) == 1:
                return [ingested("unavailable", epoch=self.epoch, reason=str(error), retry_in_s=_RETRY_S)]
            if len(works) == 1:
                return [self._failure(works[0], error, now)]
            # One of this group breaks it: each by itself, so that the others do not suffer.
            return [reply for work in works for reply in self.commit([work], now)]

    def _commit(self, works: Sequence[Work], now: Instant) -> list[Any]:
        self._make_sure(now)
        self._models.wake(works, now)
        tries = self._attempts.note(works, self._models.marks)
        if tries and len(works) > 1:  # one of them may end the process: each by itself, so that no other counts as tried
            return [reply for work in works for reply in self.commit([work], now)]
        if tries >= CRASHES:
            return [self._set_aside(works[0], "it ended its process each time", now)]
        changes = Changes()
        answers = [self._carry_out(work, changes, now) for work in works]
        changes.tried += self._attempts.noted(works)
        touched = [model for name in _touched(works, answers) if (model := self._models.get(name)) is not None]
        told = [tell for model in touched for tell in self._write_down(model, changes, now)]
        if touched or changes.sent or changes.tried:
            self._write(changes)
        for model in touched:
            _written(model)
            self._models.plan(model, now)
        for id_ in changes.sent:
            self.outbox.pop(id_, None)
        self.outbox.update({row["id"]: (row["model"], row["method"], tables.unpack(row["body"])) for row in changes.outbox})
        self._attempts.came_through(changes.tried)
        for tell in told:
            effects.tell(tell)
        self._models.marks.trim()
        return answers

    def _write(self, changes: Changes) -> None:
        failpoints.reach("detector.before_commit")
        with self.fence.write() as connection:
            tables.write(connection, changes)
            failpoints.reach("detector.in_commit")
        failpoints.reach("detector.after_commit")

    def _forget(self, works: Sequence[Work]) -> None:
        self._unsure = True
        self._models.forget(works)

    def _make_sure(self, now: Instant) -> None:
        """Read again what the store holds, after a commit whose outcome is unknown."""
        if not self._unsure:
            return
        with self._part.read() as connection:
            self.outbox = self._stored_outbox(connection)
            self._models.read_forgotten(connection, now)
        self._unsure = False

    def _stored_outbox(self, connection: Connection) -> dict[str, tuple[str, str, Json]]:
        rows = tables.load_outbox(connection, self._process)
        return {row.id: (row.model, row.method, tables.unpack(row.body)) for row in rows}

    def _carry_out(self, work: Work, changes: Changes, now: Instant) -> Any:
        if isinstance(work, Ingest):
            return self._ingest(work, changes, now)
        if work.sent is not None:
            changes.sent.append(work.sent)
        known = None if work.model is None else self._models.get(work.model)
        if work.model is None or (known is None and not work.creates):
            return KeyError(f"model must be one that has logged something, got {work.model!r}")
        try:
            return work.make(known or self._models.get_or_new(work.model), now)
        except (ValueError, KeyError) as error:
            return error

    # --- events

    def _ingest(self, work: Ingest, changes: Changes, now: Instant) -> Ingested:
        known = self._models.get(work.model)
        high = 0 if work.producer is None else self._models.marks[work.key]
        sequence = high if work.producer is None else work.sequence
        if sequence > high:
            return self._gap(sequence, high)
        try:
            batch = wire.unpack(work.payload)
        except ValueError as error:
            if known is not None:  # no model begins with a bad batch
                rule = str(error)[:_REASON]
                known.reject(
                    wire.declared_rows(work.payload),
                    {"index": 0, "field": "payload", "value": len(work.payload), "rule": rule},
                    now,
                )
            reply = ingested("refused", high_water=high, epoch=self.epoch, reason=str(error))
            reply["counted"] = known is not None
            return reply
        model = known or self._models.get_or_new(work.model)
        skip = min(high - sequence, batch.rows)
        payload = work.payload
        if work.is_stamped:
            batch, ahead_s = wire.clamped(batch, now.wall_s)
            if ahead_s:
                payload = wire.pack(batch)  # the log is read again: with the times that count
                model.clock_ahead = {"s": ahead_s, "at": now.wall_s}
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
                    "payload": payload,
                }
            )
        model.events += count - verdict.rejected
        model.duplicates += skip
        model.reject(verdict.rejected, (work.rejection or verdict.listed[-1]) if verdict.listed else None, now)
        if work.producer is not None:
            high = max(high, sequence + batch.rows)
            self._note_mark(work, high, changes, now, client=work.client)
        model.bad_values += verdict.bad_values
        reply = ingested(
            "accepted",
            accepted=count - verdict.rejected,
            duplicates=skip,
            rejected=verdict.listed,
            high_water=high,
            epoch=self.epoch,
        )
        if verdict.bad_value is not None:
            reply["bad_values"], reply["bad_value"] = verdict.bad_values, verdict.bad_value
        return reply

    def _count(self, model: Model, batch: wire.Batch, ok: wire.Bools | None, skip: int, now: Instant) -> None:
        """Feed a batch to its model."""
        before = list(model.monitor.versions)
        taken = model.monitor.take(batch, ok, skip, keep=model.in_use)
        model.number += 1
        self._grown.add(model.name)
        model.rows_since += batch.rows
        model.last_seen, model.no_data = now, False
        effects.decided(model, model.retrain.take(batch, ok, skip), before, now)
        for version, metric, reason in taken.errors:
            logger.error("%s %s: %s is watched no more, its detector cannot take it: %s", model.name, version, metric, reason)
        for feed in taken.feeds:
            model.effects += model.book.feed(feed, now, model.retrain.informs(feed.version))
        model.dropped += taken.dropped_versions
        # Each time the number of events has doubled is often enough to follow a rate.
        if (model.events + batch.rows).bit_length() != model.events.bit_length() and model.monitor.follow_rate():
            model.force_snapshot = True
        if model.on_event_time:  # days may pass between two ticks of the wall's clock
            model.effects += model.book.tick(now, model.pace(now), pays=model.retrain.pays)

    def _gap(self, sequence: int, high: int) -> Ingested:
        reason = f"the next sequence is {high}, got {sequence}"
        return ingested("gap", high_water=high, epoch=self.epoch, reason=reason, retry_in_s=0.0)

    def _note_mark(self, work: Ingest, high: int, changes: Changes, now: Instant, *, client: Json | None) -> None:
        self._models.marks[work.key] = high
        changes.producers.append(
            {
                "model": work.model,
                "producer": str(work.producer),
                "high_water": high,
                "seen_at": now.wall_s,
                "client": None if client is None else tables.pack(client),
            }
        )

    def _write_down(self, model: Model, changes: Changes, now: Instant) -> list[Tell]:
        """Stage everything of a model that a successor must find."""
        outgoing, told = effects.carried_out(model, self._process, now)
        changes.outbox += outgoing
        due = SNAPSHOT_BATCHES + zlib.crc32(model.name.encode()) % 64  # not all models of a process at once
        if model.number - model.snapshot >= due or model.rows_since >= SNAPSHOT_ROWS:
            model.force_snapshot = True
        if model.force_snapshot:
            model.snapshot = model.number
            changes.states += [
                {"model": model.name, "version": version, "metric": metric, "kind": kind, "state": state}
                for version, metric, kind, state in model.monitor.dirty_states()
            ]
        changes.log += model.rows
        changes.samples += model.samples
        changes.dropped_versions += [(model.name, version) for version in model.dropped]
        model.rows, model.samples, model.dropped = [], [], []
        changes.episodes += [tables.episode_row(record) for record in model.book.changed()]
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
                "memory": tables.pack(_memory(model)),
            }
        )
        _warn_unwatched(model)
        return told

    # --- batches that fail

    def _failure(self, work: Work, error: Exception, now: Instant) -> Any:
        reason = f"{type(error).__name__}: {error}"
        if not isinstance(work, Ingest):
            logger.error("a change of %s failed", work.model, exc_info=error)
            return RuntimeError(reason)
        tries = 1 if work.producer is None else self._attempts.failed(work)
        logger.error("a batch of %s failed, attempt %d", work.model, tries, exc_info=error)
        if tries >= CRASHES:
            return self._set_aside(work, reason, now)
        return ingested("unavailable", high_water=0, epoch=self.epoch, reason=reason, retry_in_s=_RETRY_S)

    def _set_aside(self, work: Work, reason: str, now: Instant) -> Any:
        """Quarantine a batch: its rows are rejected, its sequence is consumed, its bytes are kept for a person."""
        if not isinstance(work, Ingest) or work.producer is None:
            return RuntimeError(reason)
        self._models.wake([work], now)
        model = self._models.get_or_new(work.model)
        high = self._models.marks[work.key]
        if work.sequence > high:
            return self._gap(work.sequence, high)
        rows = wire.unpack(work.payload).rows
        skip = min(high - work.sequence, rows)
        changes = Changes()
        changes.quarantine.append(
            {
                "model": model.name,
                "producer": work.producer,
                "sequence": work.sequence,
                "count": rows - skip,
                "received_at": now.wall_s,
                "reason": reason[:_REASON],
                "payload": work.payload,
            }
        )
        high = max(high, work.sequence + rows)
        self._note_mark(work, high, changes, now, client=None)
        changes.tried.append(work.key)
        model.quarantined += 1
        rule = f"was set aside after {CRASHES} failures: {reason}"[:_REASON]
        rejection: replies.Rejection = {"index": skip, "field": "batch", "value": rows - skip, "rule": rule}
        model.reject(rows - skip, rejection, now)
        self._write_down(model, changes, now)
        self._write(changes)
        _written(model)
        self._models.plan(model, now)
        self._attempts.came_through(changes.tried)
        logger.error("a batch of %s (%s, sequence %d) was set aside: %s", model.name, work.producer, work.sequence, reason)
        return ingested("accepted", duplicates=skip, rejected=[rejection], high_water=high, epoch=self.epoch)

    # --- what else changes a model

    def high_water(self, model: str, producer: str) -> int:
        """Return the next free sequence number of a producer, 0 for an unknown one. Raises what the store raises."""
        with self._part.read() as connection:
            return tables.load_producers(connection, [(model, producer)]).get((model, producer), 0)

    def quietest(self) -> replies.Quietest:
        """Return the model that was silent longest; of several, the first by name."""
        seen = [(model.last_seen.wall_s, model.name) for model in self._models if model.last_seen is not None]
        last_at, name = min(seen, default=(None, None))
        return {"status": "ok", "model": name, "last_at": last_at}

    def explain(self, episode: str) -> Episode:
        """Return an episode's whole record. KeyError where there is none."""
        with self._part.read() as connection:
            record = tables.read_episode(connection, episode)
        if record is None:
            raise KeyError(f"episode must be one of this store, got {episode!r}")
        return record

    def baseline(self, name: str, version: str, values: Mapping[str, wire.Floats]) -> Change:
        """Let a version's metrics learn from these values instead of from its first events."""

        def make(model: Model, now: Instant) -> replies.BaselineLearned:
            watched = model.monitor.give_baseline(version, values)
            model.force_snapshot = True
            model.last_seen = model.last_seen or now
            model.samples += [baselines.sample_row(name, version, metric, values[metric]) for metric in watched]
            return {"status": "learned", "metrics": watched, "unwatched": sorted(values.keys() - set(watched))}

        return Change(name, make, creates=True)

    def pin(self, name: str, version: str | None) -> Change:
        """Compare every version from now on with the baseline of this one; None: each with its own again."""

        def make(model: Model, _now: Instant) -> replies.Pinned:
            if version is None:
                model.monitor.pin(None, {})
                return {"status": "unpinned", "metrics": []}
            if version not in model.monitor.versions:
                raise KeyError(f"version must be one that {name} has logged, got {version!r}")
            with self._part.read() as connection:
                samples = baselines.baseline_of(connection, model, version)
            if not samples:
                raise ValueError(f"version must have logged a watched metric or been given a baseline, got {version!r}")
            model.monitor.pin(version, samples)
            model.samples += [baselines.sample_row(name, version, metric, sample) for metric, sample in samples.items()]
            return {"status": "pinned", "metrics": sorted(samples)}

        return Change(name, make)

    def promise(self, name: str, promise: Promise) -> Change:
        """Record what a version has promised, as a numbered row of the model's log."""

        def make(model: Model, now: Instant) -> replies.PromiseRecorded:
            if model.retrain.promise(promise):
                model.number += 1
                model.last_seen = model.last_seen or now
                model.rows.append(
                    {
                        "model": name,
                        "number": model.number,
                        "producer": None,
                        "sequence": 0,
                        "skip": 0,
                        "count": 0,
                        "received_at": now.wall_s,
                        "payload": promise.packed(),
                    }
                )
            return {"status": "recorded"}

        return Change(name, make, creates=True)

    def promote(self, name: str, version: str) -> Change:
        """Make a version live because a person says so. KeyError: it has never logged; ValueError: it is live already."""
        return self._moved(name, "promoted", lambda model, at: model.retrain.promote(version, at))

    def rollback(self, name: str) -> Change:
        """Return to the version that was live before. ValueError: there is none."""
        return self._moved(name, "rolled_back", lambda model, at: model.retrain.rollback(at))

    def _moved(
        self,
        name: str,
        status: Literal["promoted", "rolled_back"],
        move: Callable[[Model, float], list[Outcome]],
    ) -> Change:
        def make(model: Model, now: Instant) -> replies.VersionChanged:
            over = model.retrain.versions.live
            outcomes = move(model, model.pace(now).wall_s)
            effects.decided(model, outcomes, list(model.monitor.versions), now)
            return {"status": status, "version": str(model.retrain.versions.live), "over": over}

        return Change(name, make)

    def versions(self, name: str) -> replies.VersionsListed:
        """Return a model's versions. KeyError where it has never logged."""
        model = self._models.get(name)
        if model is None:
            raise KeyError(f"model must be one that has logged something, got {name!r}")
        rows: list[replies.VersionShown] = [
            {
                "version": row["version"],
                "state": row["state"],
                "since": row["since"],
                "promise": _plain(model.retrain.promise_of(row["version"])),
                "evidence": _plain(row["evidence"]),
            }
            for row in model.retrain.versions.rows()
        ]
        return {"status": "ok", "rows": rows}

    # --- time

    def due(self, now: Instant) -> list[Change]:
        """Return the changes that time alone makes: requests to ask again, silence where events are expected."""
        self._make_sure(now)
        changes: list[Change] = []
        for name in self._models.agenda.take(now.boot_s):
            model = self._models.get(name)
            due_in = None if model is None else model.due_in(now)
            if model is not None and due_in is not None:
                if _is_due(model, now):
                    changes.append(Change(name, _tick))
                # Also where it is due: the change may not come through.
                self._models.agenda.put(name, now.boot_s + max(due_in, _AGAIN_S))
        return changes

    def due_in(self, now: Instant) -> float | None:
        """Return the seconds until `due` may have something; None: nothing waits."""
        if self.outbox or self._unsure:
            return 0.0
        at = self._models.agenda.next_at
        return None if at is None else max(at - now.boot_s, 0.0)

    def followed(self) -> dict[str, str]:
        """Return {episode: model} whose orders are worth asking for."""
        models = (self._models.get(name) for name in sorted(self._models.followed))
        return {episode: model.name for model in models if model is not None for episode in model.book.followed()}

    def grown(self) -> list[str]:
        """Return the models that have logged since this was asked last: their logs may be longer than the retention."""
        grown, self._grown = self._grown, set()
        return sorted(grown)

    def overlong(self, names: Sequence[str], now: Instant) -> list[str]:
        """Return those of the models whose logs are beyond the retention."""
        retention = self._models.settings.retention
        with self._part.read() as connection:
            return tables.overlong(connection, names, before_s=now.wall_s - retention.age_s, rows=retention.rows)

    def weighing(self) -> Weighing | None:
        """Return what adds the logs up; None where no limit is in bytes."""
        retention = self._models.settings.retention
        if retention.model_bytes is None and retention.store_bytes is None:
            return None
        return Weighing(model_bytes=retention.model_bytes, store_bytes=retention.store_bytes)

    def weigh(self, weighing: Weighing, name: str, below: int | None, at_most: int) -> int | None:
        """Add up to `at_most` batches of a model, those before `below`; return where to go on, None at the end."""
        with self._part.read() as connection:
            snapshot, batches = tables.weighed(connection, name, below=below, at_most=at_most)
        on = weighing.add(name, snapshot, batches) and len(batches) == at_most
        return batches[-1][0] if on else None

    def keep_house(self, names: Sequence[str], now: Instant, at_most: int, upto: int = 0) -> int:
        """Trim the logs of these models to the retention, in short transactions; return how many batches went.

        Up to number `upto`, they go whatever their age: see `weighing`.
        """
        retention = self._models.settings.retention
        gone = 0
        for name in names:
            with self.fence.write() as connection:
                before_s = now.wall_s - retention.age_s
                gone += tables.trim(connection, name, before_s=before_s, rows=retention.rows, at_most=at_most, upto=upto)
        return gone

    def forget_old(self, now: Instant) -> None:
        """Forget producers, closed episodes and batches that were set aside, beyond the retention."""
        before_s = now.wall_s - self._models.settings.retention.age_s
        with self.fence.write() as connection:
            gone = tables.forget_producers(connection, self._process, min(before_s, now.wall_s - _PRODUCER_S))
            tables.forget_episodes(connection, self._process, before_s)
            tables.forget_quarantine(connection, self._process, before_s)
        if gone:
            self._models.forget_marks()

    def give_back(self) -> bool:
        """Give what was deleted back to the file system, in one short step; True where there is more."""
        return self._part.give_back()


def _plain(record: Mapping[str, Any] | None) -> Json | None:
    return None if record is None else dict(record)


def _written(model: Model) -> None:
    """Learn that the commit came through."""
    if model.force_snapshot:
        model.monitor.written()
        model.rows_since, model.force_snapshot = 0, False
    model.book.written()


def _memory(model: Model) -> Json:
    memory = model.monitor.memory()
    for version, held in memory["versions"].items():
        drifting = model.book.drifting(version)
        if model.book.open_of(version) is not None:
            held["state"] = "drifting"
        for metric in drifting.keys() & held["metrics"].keys():
            # What the detector learns now is the drifted level; the episode keeps the old one.
            held["metrics"][metric]["progress"].update(state="drifting", baseline=drifting[metric])
    return {
        **memory,
        "no_data": model.no_data,
        "quarantined": model.quarantined,
        "flagged": model.book.flagged,
        "retrain": model.retrain.memory(),
        "deployed": model.deployed,
        "rejection": model.rejection,
        "bad_values": model.bad_values,
        "clock_ahead": model.clock_ahead,
        "state": model.state(),
        "ordinal": model.book.ordinal,
    }


def _warn_unwatched(model: Model) -> None:
    if model.events and not model.warned and not model.monitor.watched:
        model.warned = True
        watched = ", ".join(model.settings.watch) or "none"
        logger.warning("%s logs nothing that is watched (%s): it shows as unwatched", model.name, watched)


def _is_silent(model: Model, now: Instant) -> bool:
    """Tell whether a model has logged nothing for longer than is expected, and nobody has noticed yet."""
    expected = model.settings.expect_every_s
    if expected is None or model.last_seen is None or not model.events or model.no_data:
        return False
    return now.seconds_since(model.last_seen) > expected


def _is_due(model: Model, now: Instant) -> bool:
    return _is_silent(model, now) or model.book.has_due(model.pace(now)) or model.is_undeployed


def _tick(model: Model, now: Instant) -> None:
    if _is_silent(model, now) and model.last_seen is not None:
        model.no_data = True
        silent_s, expected_s = now.seconds_since(model.last_seen), model.settings.expect_every_s
        logger.warning("%s: no data for %.0f s, one is expected every %.0f s", model.name, silent_s, expected_s)
    model.effects += model.book.tick(now, model.pace(now), pays=model.retrain.pays)


def _touched(works: Sequence[Work], answers: Sequence[Any]) -> list[str]:
    """Return the models that the works have changed."""
    changed = (
        work.model
        for work, answer in zip(works, answers, strict=True)
        if work.model is not None and not isinstance(answer, Exception)
        if not (isinstance(work, Ingest) and answer["status"] not in {"accepted", "refused"})
    )
    return list(dict.fromkeys(changed))

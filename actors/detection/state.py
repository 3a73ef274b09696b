"""The state of a detector process, and the one way to change it: a commit.

All of it runs in the process's store thread. Works that wait together are committed together, in one fenced transaction: log
rows, high-water marks, counts, snapshots, episodes, outbox. Memory runs ahead of the store only inside `commit`; where that
fails, whatever it touched is forgotten, and read again from the store at its next use. So what is in memory is always what a
successor would find.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from actors import failpoints, replies
from actors.checks import brief
from actors.clock import Instant
from actors.config.stored import load_stored
from actors.detection import effects, stored, tables
from actors.detection.attempts import CRASHES, Attempts
from actors.detection.intake import Intake
from actors.detection.keeping import Keeping
from actors.detection.model import Change, Ingest, Model, Work
from actors.detection.models import PRODUCERS_IN_MEMORY, Models, RefusedError
from actors.detection.quarantine import Quarantine
from actors.detection.removal import Removals
from actors.detection.rows import Changes, Damage
from actors.detection.tables import DETECTOR, Call
from actors.detection.writing import write_down, written
from actors.replies import Episode, ingested
from actors.storage import UNAVAILABLE, Fence, Part, StaleEpochError, Store
from actors.storage.schema import SYSTEM

__all__ = ["CRASHES", "Change", "DetectionState", "Ingest", "Model", "UnavailableError", "Work"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5
_AGAIN_S: Final = 0.5  # what is due is looked at again after so long, in case its commit fails


class UnavailableError(RuntimeError):
    """The store cannot be written now; nothing has changed."""


class DetectionState:
    """The models of one process. Not thread-safe: one thread uses it."""

    def __init__(self, store: Store, process: str, slot: int, now: Instant) -> None:
        """Raise the epoch and read what the process's predecessor has left. Raises what the store raises."""
        self._store = store
        self._process = process
        self.part: Part = store.part(DETECTOR, slot)
        self.fence = Fence.raise_epoch(self.part, process)
        self._models = Models(self.part, store.part(SYSTEM), store.store_id, process, load_stored(store))
        self._removals = Removals(self.fence, self._models)
        self._attempts = Attempts(self.fence, PRODUCERS_IN_MEMORY)
        self._intake = Intake(self._models, self.epoch)
        self._quarantine = Quarantine(self._models, self._intake, self.epoch)
        self.keeping = Keeping(self.fence, self._models, process)
        self.outbox: dict[str, Call] = {}
        # A commit that failed may have come through all the same (the connection was lost before its reply): what it put
        # into the outbox is in the store alone then, and is read from there.
        self._unsure = False
        self._models.read_all(now)
        with self.part.read() as connection:
            self.outbox = self._stored_outbox(connection)
        self._mend(now)

    @property
    def epoch(self) -> int:
        """The epoch that every commit of this process must find."""
        return self.fence.epoch

    @property
    def models(self) -> Iterable[Model]:
        """The models in memory: all of this process, less those that a failed commit made it forget."""
        return self._models

    def model(self, name: str) -> Model:
        """Return a model. KeyError where it has never logged."""
        model = self._models.get(name)
        if model is None:
            raise KeyError(f"model must be one that has logged something, got {name!r}")
        return model

    def reload(self, now: Instant) -> None:
        """Read the settings again; every model takes them up at its next batch, its learned state kept where it still fits."""
        self._models.settings = load_stored(self._store)
        self._models.read_all(now)
        for model in self._models:
            model.book.ask_again(now)
            self._models.plan(model, now)
        self._mend(now)

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
            if isinstance(error, RefusedError) and len(works) == 1:
                return [ingested("unavailable", epoch=self.epoch, reason=str(error), retry_in_s=_RETRY_S)]
            if len(works) == 1:
                return [self._failure(works[0], error, now)]
            # One of this group breaks it: each by itself, so that the others do not suffer.
            return [reply for work in works for reply in self.commit([work], now)]

    def _commit(self, works: Sequence[Work], now: Instant) -> list[Any]:
        self._make_sure(now)
        self._models.wake(works, now)
        tries = self._attempts.note(works, self._models.marks)
        if tries and len(works) > 1:  # one of them may end the process: try each alone, so that no other counts as tried
            return [reply for work in works for reply in self.commit([work], now)]
        if tries >= CRASHES:
            return [self._set_aside(works[0], "it ended its process every time", now)]
        changes = Changes(now.wall_s)
        answers = [self._carry_out(work, changes, now) for work in works]
        changes.tried += self._attempts.noted(works)
        self._finish(_touched(works, answers), changes, now)
        return answers

    def _finish(self, names: Iterable[str], changes: Changes, now: Instant) -> None:
        """Write what has changed of these models, and learn that it is written."""
        touched = [model for name in names if (model := self._models.get(name)) is not None]
        changes.damaged += [damage for model in touched for damage in self._models.take_damage(model.name)]
        told = [tell for model in touched for tell in write_down(model, self._process, changes, now)]
        if touched or changes.sent or changes.tried:
            self._write(changes)
        for model in touched:
            written(model)
            self._models.plan(model, now)
        for id_ in changes.sent:
            self.outbox.pop(id_, None)
        for row in changes.outbox:
            self.outbox[row["id"]] = Call(row["model"], row["method"], tables.unpack(row["body"]))
        self._attempts.came_through(changes.tried)
        self.keeping.has_grown(row["model"] for row in changes.log)
        for tell in told:
            effects.tell(tell)
        self._models.marks.trim()

    def _write(self, changes: Changes) -> None:
        failpoints.reach("detector.before_commit")
        with self.fence.write() as connection:
            tables.write(connection, changes)
            failpoints.reach("detector.in_commit")
        failpoints.reach("detector.after_commit")

    def _carry_out(self, work: Work, changes: Changes, now: Instant) -> Any:
        if isinstance(work, Ingest):
            return self._intake.take(work, changes, now)
        if work.sent is not None:
            changes.sent.append(work.sent)
        known = None if work.model is None else self._models.get(work.model)
        if work.model is None or (known is None and not work.creates):
            return KeyError(f"model must be one that has logged something, got {work.model!r}")
        try:
            return work.make(known or self._models.get_or_new(work.model), now)
        except (ValueError, KeyError) as error:
            return error

    # --- commits that fail

    def _forget(self, works: Sequence[Work]) -> None:
        self._unsure = True
        self._models.forget(works)

    def _make_sure(self, now: Instant) -> None:
        """Read again what the store holds, after a commit whose outcome is unknown."""
        if not self._unsure:
            return
        with self.part.read() as connection:
            self.outbox = self._stored_outbox(connection)
            self._models.read_forgotten(connection, now)
        self._unsure = False

    def _stored_outbox(self, connection: Connection) -> dict[str, Call]:
        damaged: list[Damage] = []
        found = tables.load_outbox(connection, self._process, damaged)
        self._models.note(damaged)
        return found

    def _mend(self, now: Instant) -> None:
        """Set aside what could not be read of models that may be silent for long."""
        works = [Change(name, _nothing) for name in self._models.damaged()]
        if works:
            with contextlib.suppress(UnavailableError):  # it goes with the next commit of each
                self.commit(works, now)

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
        if not isinstance(work, Ingest) or work.producer is None:
            return RuntimeError(reason)
        self._models.wake([work], now)
        changes = Changes(now.wall_s)
        reply = self._quarantine.set_aside(work, reason, changes, now)
        self._finish([work.model] if changes.quarantine else [], changes, now)
        return reply

    # --- questions

    def high_water(self, model: str, producer: str) -> int:
        """Return the next free sequence number of a producer, 0 for an unknown one. Raises what the store raises."""
        with self.part.read() as connection:
            return tables.load_producers(connection, [(model, producer)]).get((model, producer), 0)

    def quietest(self) -> replies.Quietest:
        """Return the model that was silent longest; of several, the first by name."""
        seen = [(model.last_seen.wall_s, model.name) for model in self._models if model.last_seen is not None]
        last_at, name = min(seen, default=(None, None))
        return {"status": "ok", "model": name, "last_at": last_at}

    def explain(self, episode: str) -> Episode:
        """Return an episode's whole record. KeyError where there is none."""
        with self.part.read() as connection:
            record = stored.read_episode(connection, episode)
        if record is None:
            raise KeyError(f"episode must be one of this store, got {episode!r}")
        return record

    def removable(self, name: str, now: Instant, *, force: bool) -> replies.Removable:
        """Return the numbers that a model has come to. ValueError: it must not be removed now."""
        self._make_sure(now)
        return self._removals.removable(name, self._unconfirmed(name), now, force=force)

    def remove(self, name: str, now: Instant, *, ordinal: int, number: int, purge: bool) -> replies.ModelRemoved:
        """Delete a model's rows, where it has not come further than its numbers that were noted. Safe to repeat."""
        self._make_sure(now)
        self._unsure = True  # until this has come through: what it drops is read again
        if not self._removals.remove(name, now, ordinal=ordinal, number=number, purge=purge):
            return {"status": "changed"}
        for id_ in self._unconfirmed(name):
            del self.outbox[id_]
        return {"status": "removed"}

    def _unconfirmed(self, name: str) -> list[str]:
        return [id_ for id_, (model, _method, _body) in self.outbox.items() if model == name]

    # --- time

    def due(self, now: Instant) -> list[Change]:
        """Return the changes that time alone makes: requests to ask again, silence where events are expected."""
        self._make_sure(now)
        changes: list[Change] = []
        for name in self._models.agenda.take(now.boot_s):
            model = self._models.get(name)
            due_in = None if model is None else model.due_in(now)
            if model is not None and due_in is not None:
                if model.is_due(now):
                    changes.append(Change(name, Model.tick))
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


def _nothing(_model: Model, _now: Instant) -> None:
    pass


def _touched(works: Sequence[Work], answers: Sequence[Any]) -> list[str]:
    """Return the models that the works have changed."""
    changed = (
        work.model
        for work, answer in zip(works, answers, strict=True)
        if work.model is not None and not isinstance(answer, Exception)
        if not (isinstance(work, Ingest) and answer["status"] not in {"accepted", "refused"})
    )
    return list(dict.fromkeys(changed))

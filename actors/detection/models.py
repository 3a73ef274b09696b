"""The models of one process in memory, and how they come there: their rows, episodes, detectors and high-water marks.

A model's counts and episodes are read with the process, its detectors at its first work: the last snapshot of each, and the
log after it. Models that a failed commit touched are dropped and read again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from actors import config, wire
from actors.clock import Instant
from actors.detection import baselines, logged, tables
from actors.detection.agenda import Agenda
from actors.detection.attempts import Key
from actors.detection.model import Ingest, Model, ModelMemory, Work
from actors.detection.rows import Damage
from actors.detection.rules.episodes import EpisodeBook
from actors.detection.rules.monitor import Monitor
from actors.detection.rules.retrain import RetrainWatch
from actors.recent import Recent
from actors.replies import Episode
from actors.storage import Part, removals
from actors.storage.removals import Removal
from actors.storage.schema import placements

logger = logging.getLogger(__name__)

PRODUCERS_IN_MEMORY: Final = 20_000  # pairs of model and producer of one process; others are read again when they come


class RefusedError(RuntimeError):
    """A model takes nothing now."""


class UnreadableError(RefusedError):
    """A model's row in the store cannot be read, and must not be overwritten."""


class Models:
    """The models by name, and the high-water marks by model and producer. Not thread-safe: one thread uses it."""

    def __init__(self, part: Part, system: Part, store_id: str, process: str, settings: config.Settings) -> None:
        """`part` holds this process's models, `system` what the store knows of models that were removed."""
        self._part = part
        self._system = system
        self._store_id = store_id
        self._process = process
        self.settings = settings
        self._models: dict[str, Model] = {}
        self._forgotten: set[str] = set()
        self._unreadable: set[str] = set()  # models whose row cannot be read
        self._removed: dict[str, Removal] = {}  # of models that come back: where they go on
        self.agenda = Agenda()
        self._damaged: dict[str, dict[Damage, None]] = {}  # by model; what the next commit sets aside
        self.followed: set[str] = set()  # models with an order worth asking about
        # A group's are read before it is carried out, and stay until its commit.
        self.marks: Recent[Key, int] = Recent(PRODUCERS_IN_MEMORY)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model | None:
        """Return a model; None for one that has never logged."""
        return self._models.get(name)

    def get_or_new(self, name: str) -> Model:
        """Return a model, a new one where it has never logged."""
        known = self._models.get(name)
        if known is None:
            settings = self.settings.for_model(name)
            before = self._removed.pop(name, Removal())
            book = EpisodeBook(self._store_id, name, before.ordinal)
            on_event_time = self.settings.clock == "event"
            retrain = RetrainWatch(settings)
            known = Model(name, Monitor(settings), book, retrain, settings, awake=True, on_event_time=on_event_time)
            known.number = known.snapshot = before.number
            self._models[name] = known
        return known

    def is_unreadable(self, name: str) -> bool:
        """Return whether the store holds a row of the model that cannot be read."""
        return name in self._unreadable

    def read_all(self, now: Instant) -> None:
        """Read every model of the process anew, under the settings of now."""
        self._models.clear()
        self._damaged.clear()
        self.followed.clear()
        self.agenda.clear()
        with self._part.read() as connection:
            damaged: list[Damage] = []
            rows = tables.load_models(connection, self._process)
            self._hold(rows, tables.load_open_episodes(connection, self._process, damaged), now)
            self.note(damaged)

    def plan(self, model: Model, now: Instant) -> None:
        """Note when the model has to be looked at again, after anything about it has changed."""
        due_in = model.due_in(now)
        if due_in is not None:
            self.agenda.put(model.name, now.boot_s + due_in)
        if model.book.followed():
            self.followed.add(model.name)
        else:
            self.followed.discard(model.name)

    def drop(self, name: str) -> None:
        """Forget a model whose rows are about to go; should they stay, it is read again."""
        self._models.pop(name, None)
        self._removed.pop(name, None)
        self._damaged.pop(name, None)
        self._unreadable.discard(name)
        self._forgotten.add(name)
        self.followed.discard(name)
        self.forget_marks()

    def forget(self, works: Iterable[Work]) -> None:
        """Forget what these works may have changed without a commit."""
        for work in works:
            if work.model is not None and self._models.pop(work.model, None) is not None:
                self._forgotten.add(work.model)
                self._damaged.pop(work.model, None)  # found again where it is read again
            if isinstance(work, Ingest):
                self.marks.discard(work.key)

    def forget_marks(self) -> None:
        """Forget all marks: the store has let go of some, and memory must not know more than it."""
        self.marks = Recent(PRODUCERS_IN_MEMORY)

    def read_forgotten(self, connection: Connection, now: Instant) -> None:
        """Read the dropped models again: they must not wait for their next event to request again, or to be found silent."""
        self._read_some(connection, sorted(self._forgotten - self._models.keys()), now)
        self._forgotten.clear()

    def wake(self, works: Sequence[Work], now: Instant) -> None:
        """Read what these works need and memory has not: rows that were forgotten, detectors, high-water marks."""
        names = {work.model for work in works if work.model is not None}
        if broken := sorted(names & self._unreadable):
            raise UnreadableError(f"{', '.join(broken)}: the model's row in the store cannot be read")
        unknown = sorted(name for name in names if name not in self._models)
        asleep = [name for name in sorted(names) if name in self._models and not self._models[name].awake]
        unmarked = {
            work.key for work in works if isinstance(work, Ingest) and work.producer is not None and work.key not in self.marks
        }
        if not (unknown or asleep or unmarked):
            return
        with self._part.read() as connection:
            if unknown:
                known = self._read_some(connection, unknown, now)
                asleep += known
                self._look_whether_removed(set(unknown) - set(known))
            self._wake_detectors(connection, [name for name in asleep if name in self._models])
            marks = tables.load_producers(connection, sorted(unmarked))
        for key in unmarked:
            self.marks[key] = marks.get(key, 0)

    def _look_whether_removed(self, new: Collection[str]) -> None:
        """Learn where models that are new here go on. RefusedError for one that is being removed, or lives elsewhere by now."""
        if not new:
            return
        with self._system.read() as connection:
            found = removals.read(connection, new)
            for name, removal in found.items():
                if removal.under_way:
                    raise RefusedError(f"{name}: the model is being removed; if the removal was interrupted, run it again")
                place = connection.execute(select(placements.c.process).where(placements.c.model == name)).scalar()
                if place != self._process:
                    raise RefusedError(f"{name}: the model was removed and has no place in {self._process}")
        self._removed |= found

    def _read_some(self, connection: Connection, names: Sequence[str], now: Instant) -> list[str]:
        """Read these models, as far as there are any; return which."""
        damaged: list[Damage] = []
        rows = tables.load_some_models(connection, names)
        self._hold(rows, [r for row in rows for r in tables.load_model_episodes(connection, row.model, damaged)], now)
        self.note(damaged)
        return [row.model for row in rows]

    def _wake_detectors(self, connection: Connection, asleep: Collection[str]) -> None:
        damaged: list[Damage] = []
        for state in tables.load_states(connection, sorted(asleep), damaged):
            self._models[state["model"]].monitor.wake(state["version"], state["metric"], state["kind"], state["state"])
        for name in asleep:
            model = self._models[name]
            baselines.take_up_pin(connection, model, damaged)
            for row in logged.read_log(connection, name, after=model.snapshot, until=model.number, damaged=damaged):
                try:
                    verdict = wire.recheck(row.payload, row.received_at, row.skip)
                except ValueError as error:  # its events stay counted; what the detectors would have learned of them is lost
                    damaged.append(Damage("log", name, (row.number,), row.payload, str(error), row.count))
                    continue
                model.monitor.take(verdict.batch, verdict.ok, row.skip, counted=True, keep=model.in_use)
                model.rows_since += row.count
            model.awake = True
        self.note(damaged)

    def note(self, damaged: Iterable[Damage]) -> None:
        """Note rows that cannot be read: their models go on without them, and the next commit sets them aside."""
        for damage in damaged:
            model, known = self._models.get(damage.model), self._damaged.setdefault(damage.model, {})
            if model is not None and damage not in known:
                known[damage] = None
                model.ask_for(damage)
                logger.error("%s: a row of the store cannot be read; setting it aside: %s", damage.model, damage)

    def damaged(self) -> list[str]:
        """Return the models of which rows wait to be set aside."""
        return [name for name, damaged in self._damaged.items() if damaged and name in self._models]

    def take_damage(self, name: str) -> list[Damage]:
        """Return the rows of a model that a commit sets aside now; where that fails, they are found again."""
        return list(self._damaged.pop(name, ()))

    def _hold(self, rows: Iterable[Any], records: Iterable[Episode], now: Instant) -> None:
        """Make models of their rows, their detectors still asleep."""
        by_model: dict[str, list[Episode]] = {}
        for record in records:
            by_model.setdefault(record["model"], []).append(record)
        for row in rows:
            try:
                model = self._model_of(row, by_model.get(row.model, ()), now)
            except tables.UNREADABLE as error:
                logger.error("the row of %s cannot be read: its events are refused, other models go on: %r", row.model, error)  # noqa: TRY400  no fault of ours
                self._unreadable.add(row.model)
                continue
            self._models[row.model] = model
            self.plan(model, now)

    def _model_of(self, row: Any, records: Iterable[Episode], now: Instant) -> Model:
        memory: ModelMemory = tables.unpack(row.memory)
        settings = self.settings.for_model(row.model)
        # The boot clock's reading of then is not known; the wall's is.
        seen = Instant(row.last_at, 0.0, "") if row.last_at <= now.wall_s else now
        monitor = Monitor(settings, memory)
        return Model(
            row.model,
            monitor,
            EpisodeBook(self._store_id, row.model, memory["ordinal"], records),
            RetrainWatch(settings, memory.get("retrain"), monitor.since()),
            settings,
            row.events,
            row.duplicates,
            row.rejected,
            row.number,
            row.snapshot,
            last_seen=seen,
            quarantined=memory["quarantined"],
            bad_values=memory.get("bad_values", 0),
            clock_ahead=memory.get("clock_ahead"),
            deployed=memory.get("deployed"),
            rejection=memory.get("rejection"),
            no_data=memory["no_data"],
            on_event_time=self.settings.clock == "event",
        )

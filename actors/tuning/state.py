"""The state of the tuner: the ledgers of running studies, and their storage.

A job changes ledgers in memory; `commit` writes what has changed in one transaction that holds the tuner's epoch. Studies that
have ended are in the store alone. All of it belongs to the store thread (see `desk`), but for what Reader reads.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, Row, select

from actors import failpoints
from actors.clock import Clock
from actors.cluster import actor
from actors.replies import Gone, StepAnswered, StudyEnded, StudyListing, StudySummary, TrialRow, WorkerTerms
from actors.storage import Fence, Part, Store
from actors.tuning import tables as tuner_tables
from actors.tuning.desk import DeskUnavailableError
from actors.tuning.rules.book import StrategyError
from actors.tuning.rules.ledger import GONE, STUDY_FAILED, STUDY_RUNNING, StudyLedger
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import Step, study_of, worker_key
from actors.tuning.tables import TUNER, ChangeWriter, studies

logger = logging.getLogger(__name__)

OWNER: Final = "tuner"
# Studies beyond this number are forgotten, the oldest that have ended first.
MAX_STUDIES: Final = 10_000


class Begun(NamedTuple):
    """The present state of a submitted study."""

    status: Literal["submitted", "running", "resumed", "done"]
    study: str


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A study that has ended and was read again, as it stood in `row`, to go on by `plan`."""

    row: Row[Any]
    plan: Plan
    ledger: StudyLedger


class TuningState:
    """Owns every study of a store."""

    def __init__(self, storage: str, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._store: Store | None = None
        self._fence: Fence | None = None
        self._writer = ChangeWriter()
        self._ledgers: dict[str, StudyLedger] = {}
        self._writes: list[Callable[[Connection], object]] = []
        self._loaded = False
        self.untidy = True  # a deleted study may have left rows: see `sweep`

    @property
    def epoch(self) -> int:
        """The epoch of this process; 0 before the store is open."""
        return 0 if self._fence is None else self._fence.epoch

    # ---- jobs -------------------------------------------------------------------------------------------------------------

    def submit(self, plan: Plan, objective: bytes, taken_up: TakenUp | None = None) -> Begun | None:
        """Begin a study, or take up the one of that name; ValueError where the name belongs to another search.

        A study that has ended is read by Reader.take_up first, which may take a while. None asks for that.
        """
        with self.part().read() as connection:
            row = tuner_tables.read_study(connection, plan.name)
        if row is None:
            return self._begin(plan, objective)
        continued = Plan.from_document(row.plan).continued_by(plan)
        ledger = self._ledgers.get(row.study)
        status: Literal["running", "resumed", "done"] = "running"
        if ledger is not None and ledger.state == STUDY_RUNNING:
            ledger.continue_by(continued)
        elif taken_up is None or taken_up.row != row or taken_up.plan != continued:
            return None
        else:
            ledger = self._ledgers[row.study] = taken_up.ledger
            status = "resumed" if ledger.state == STUDY_RUNNING else "done"
        values = {"plan": continued.document(), "objective": objective, "state": ledger.state, "error": ledger.error}
        update = studies.update().where(studies.c.study == row.study).values(**values)
        self._writes.append(lambda connection: connection.execute(update))
        return Begun(status, row.study)

    def step(self, study: str, step: Step) -> StepAnswered | Gone:
        """Take a step of a worker; see StudyLedger.step."""
        ledger = self._ledgers.get(study)
        if ledger is None:
            return GONE
        now = self._clock.now()
        try:
            return ledger.step(step, now_s=now.boot_s, wall_s=now.wall_s)
        except StrategyError as error:
            ledger.fail(str(error))
            return GONE

    def staff(self, limits: Mapping[str, int]) -> list[tuple[str, str]]:
        """Note the workers that are about to be launched, given how many each study may have: (study, key)."""
        now_s = self._clock.now().boot_s
        wanted = []
        for study, ledger in self._ledgers.items():
            for _ in range(ledger.missing_workers(limits.get(study, 0))):
                key = worker_key(study, uuid.uuid4().hex[:8])
                ledger.expect(key, now_s)
                wanted.append((study, key))
        return wanted

    def running(self) -> dict[str, tuple[Plan, list[str]]]:
        """Return the running studies: their plans and the keys of their workers."""
        return {study: (ledger.plan, list(ledger.sessions)) for study, ledger in self._ledgers.items()}

    def lost(self, ended: Mapping[str, str | None]) -> None:
        """Take note that tasks have ended: by key, with what Ray says of it."""
        wall_s = self._clock.now().wall_s
        for key, reason in ended.items():
            ledger = self._ledgers.get(study_of(key) or "")
            if ledger is not None:
                ledger.lost(key, reason, wall_s=wall_s)

    def give_up_silent(self, limit_s: float) -> list[str]:
        """Take back what workers hold that have said nothing for `limit_s`; return their keys."""
        now = self._clock.now()
        keys = []
        for ledger in self._ledgers.values():
            for key in ledger.silent(now.boot_s - limit_s):
                ledger.lost(key, None, wall_s=now.wall_s)
                keys.append(key)
        return keys

    def stop(self, name: str, reason: str | None = None) -> StudyEnded:
        """End a study before its time, for a reason that stays with it; KeyError where there is none of that name."""
        ledger = self._ledgers.get(self._row(name).study)
        if ledger is None:
            return {"status": "ended"}
        ledger.stop(reason)
        return {"status": "stopped"}

    def delete(self, name: str) -> StudyEnded:
        """Delete a study that has ended, with its trials; ValueError while it runs, KeyError where there is none."""
        study = str(self._row(name).study)
        if study in self._ledgers:
            raise ValueError(f"study must have ended to be deleted, got {name!r}, which is running: stop it first")
        self._writes.append(lambda connection: tuner_tables.forget_study(connection, study))
        self.untidy = True
        return {"status": "deleted"}

    def sweep(self, study: str) -> bool:
        """Delete some of the rows that a deleted study has left (see Reader.orphans); False where there are none."""
        with self._owned().write() as connection:
            return tuner_tables.sweep(connection, study)

    def give_back(self) -> bool:
        """Return freed pages to the file system, in one short step; True if there are more."""
        return self._owned().part.give_back()

    def study(self, name: str) -> StudySummary | None:
        """Return the summary of a study that runs; None where none of that name does."""
        ledger = self._running(name)
        return None if ledger is None else ledger.summary()

    def trials(self, name: str, since: int, limit: int) -> list[TrialRow] | None:
        """Return up to `limit` trials from number `since` on of a study that runs; None where none of that name does."""
        ledger = self._running(name)
        if ledger is None:
            return None
        known = ledger.book.trials
        return tuner_tables.page(known[number] for number in range(since, min(since + limit, len(known))))

    # ---- kept -------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store, raise the epoch, and read the studies that run, where that has not been done."""
        if self._store is None:
            self._store = actor.open_store(self._storage)
        if self._fence is None:
            self._fence = Fence.raise_epoch(self.part(), OWNER)
        if not self._loaded:
            with self.part().read() as connection:
                running = connection.execute(
                    select(studies.c.study, studies.c.plan).where(studies.c.state == STUDY_RUNNING)
                ).all()
                for row in running:
                    self._ledgers[row.study] = load(connection, row.study, Plan.from_document(row.plan), self._clock)
            self._loaded = True

    def commit(self) -> None:
        """Write what has changed; StaleEpochError where a successor has raised the epoch."""
        changed = [(ledger, changes) for ledger in self._ledgers.values() if (changes := ledger.take_changes())]
        if not changed and not self._writes:
            return
        now_s = self._clock.now().wall_s
        with self._owned().write() as connection:
            for write in self._writes:
                write(connection)
            for ledger, changes in changed:
                self._writer.write(connection, ledger.study_id, changes, ledger.book.trials, now_s)
            failpoints.reach("tuner.before_commit")
        failpoints.reach("tuner.after_commit")
        self._writes.clear()
        for ledger, _ in changed:
            if ledger.state != STUDY_RUNNING:
                logger.info("study %s: %s", ledger.plan.name, ledger.state)
                del self._ledgers[ledger.study_id]

    def drop(self) -> None:
        """Forget what is in memory; `open` reads it again."""
        self._ledgers.clear()
        self._writes.clear()
        self._loaded = False

    def fail(self, study: str, error: str) -> None:
        """End a study whose values cannot be stored: by its row alone, and with nothing of those values."""
        self._ledgers.pop(study, None)
        failed = {"state": STUDY_FAILED, "error": error, "finished_at": self._clock.now().wall_s}
        with self._owned().write() as connection:
            connection.execute(tuner_tables.tuner_workers.delete().where(tuner_tables.tuner_workers.c.study == study))
            connection.execute(studies.update().where(studies.c.study == study).values(**failed))

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> Store | None:
        """The store, once it has been opened."""
        return self._store

    def part(self) -> Part:
        """Return the part of the store; DeskUnavailableError before it is open."""
        if self._store is None:
            raise DeskUnavailableError("the store is not open")
        return self._store.part(TUNER)

    def _begin(self, plan: Plan, objective: bytes) -> Begun:
        if self._store is None:
            raise DeskUnavailableError("the store is not open")
        study_id = f"{self._store.store_id}-s-{uuid.uuid4().hex[:12]}"
        values = {
            "study": study_id,
            "name": plan.name,
            "plan": plan.document(),
            "objective": objective,
            "state": STUDY_RUNNING,
            "created_at": self._clock.now().wall_s,
        }
        self._ledgers[study_id] = StudyLedger(study_id, plan)
        self._writes.append(lambda connection: connection.execute(studies.insert().values(**values)))
        self._writes.append(self._forget_oldest)
        return Begun("submitted", study_id)

    def _forget_oldest(self, connection: Connection) -> None:
        for study in tuner_tables.oldest_ended(connection, MAX_STUDIES):
            tuner_tables.forget_study(connection, study)
            self.untidy = True

    def _running(self, name: str) -> StudyLedger | None:
        return next((ledger for ledger in self._ledgers.values() if ledger.plan.name == name), None)

    def _row(self, name: str) -> Row[Any]:
        with self.part().read() as connection:
            return row_of(connection, name)

    def _owned(self) -> Fence:
        if self._fence is None:
            raise DeskUnavailableError("the store is not open")
        return self._fence


class Reader:
    """Reads what may be large or has ended, outside the store thread: only its caller waits."""

    def __init__(self, state: TuningState, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def study(self, name: str) -> StudySummary:
        """Return the summary of a study; KeyError where there is none of that name."""
        with self._state.part().read() as connection:
            return tuner_tables.read_summary(connection, row_of(connection, name))

    def trials(self, name: str, since: int, limit: int) -> list[TrialRow]:
        """Return up to `limit` trials from number `since` on; KeyError where there is no study of that name."""
        with self._state.part().read() as connection:
            return tuner_tables.read_page(connection, row_of(connection, name).study, since=since, limit=limit)

    def studies(self) -> list[StudyListing]:
        """Return name, state and times of every study, the newest first."""
        with self._state.part().read() as connection:
            return tuner_tables.read_studies(connection)

    def terms(self, study: str) -> WorkerTerms:
        """Return what a worker needs to begin; KeyError where the study is not there any more."""
        with self._state.part().read() as connection:
            row = connection.execute(select(studies).where(studies.c.study == study)).one_or_none()
        if row is None:
            raise KeyError(f"study must exist, got {study!r}")
        plan = Plan.from_document(row.plan)
        return {
            "objective": row.objective,
            "executor": plan.executor,
            "seed": plan.seed,
            "context": plan.context,
            "timeout_s": plan.timeout_s,
            "resources": plan.resources,
        }

    def submitted(self, name: str) -> tuple[Plan, bytes]:
        """Return the plan and the objective that a study was submitted with last; KeyError where there is none."""
        with self._state.part().read() as connection:
            row = row_of(connection, name)
            objective = connection.execute(select(studies.c.objective).where(studies.c.study == row.study)).scalar_one()
        return Plan.from_document(row.plan), bytes(objective)

    def seed(self, name: object) -> int | None:
        """Return the seed of a study; None where there is none of that name."""
        with self._state.part().read() as connection:
            row = tuner_tables.read_study(connection, str(name))
        return None if row is None else Plan.from_document(row.plan).seed

    def orphans(self) -> list[str]:
        """Return the deleted studies that have left rows, by id."""
        with self._state.part().read() as connection:
            return tuner_tables.orphans(connection)

    def take_up(self, plan: Plan) -> TakenUp | None:
        """Read a study that has ended, to go on by `plan`; None where there is none of that name, or it runs."""
        with self._state.part().read() as connection:
            row = tuner_tables.read_study(connection, plan.name)
            if row is None or row.state == STUDY_RUNNING:
                return None
            continued = Plan.from_document(row.plan).continued_by(plan)
            return TakenUp(row, continued, load(connection, row.study, continued, self._clock))


def load(connection: Connection, study: str, plan: Plan, clock: Clock) -> StudyLedger:
    """Return the ledger of a study as the store has kept it."""
    trials = tuner_tables.read_entries(connection, study)
    sessions, _ = tuner_tables.read_sessions(connection, study)
    reports = tuner_tables.read_reports(connection, study)
    now_s = clock.now().boot_s
    for session in sessions:
        session.heard_s = now_s
    try:
        return StudyLedger(study, plan, trials=trials, sessions=sessions, reports=reports)
    except (StrategyError, ValueError) as error:
        # A strategy that cannot be created again must not affect the other studies.
        ledger = StudyLedger(study, plan.with_random_strategy(), trials=trials, sessions=sessions, reports=reports)
        ledger.fail(str(error))
        return ledger


def row_of(connection: Connection, name: str) -> Row[Any]:
    """Return the row of a study; KeyError where there is none of that name."""
    row = tuner_tables.read_study(connection, name)
    if row is None:
        raise KeyError(f"study must be the name of a study, got {name!r}")
    return row

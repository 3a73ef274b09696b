"""The desk at which studies are kept: one thread, ledgers in memory, everything committed in groups before it is answered.

Jobs that wait together are done together: each changes the ledgers in memory, then one fenced transaction writes what has
changed, then all are answered. Where the commit fails, memory is ahead of the store: it is dropped and read again, and
nobody has been told anything that is not kept.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from actors import failpoints
from actors.clock import Clock
from actors.storage import UNAVAILABLE, Fence, Part, SchemaError, StaleEpochError, Store, StoreError
from actors.tuning import tables as tuner_tables
from actors.tuning.rules.book import StrategyError, Trial, as_row
from actors.tuning.rules.ledger import STUDY_RUNNING, StudyLedger
from actors.tuning.rules.plan import Plan
from actors.tuning.tables import TUNER, ChangeWriter, studies

logger = logging.getLogger(__name__)
T = TypeVar("T")

OWNER: Final = "tuner"
_MAX_GROUP = 256
# Studies beyond this number are forgotten, the oldest that have ended first.
MAX_STUDIES = 10_000


class DeskUnavailableError(RuntimeError):
    """The store cannot be reached now; nothing has changed."""


class StudyDesk:
    """Owns every study of a store. Methods without an underscore run in the desk's thread, through `do`."""

    def __init__(self, storage: str, clock: Clock, on_stale: Callable[[StaleEpochError], None]) -> None:
        self._storage = storage
        self._clock = clock
        self._on_stale = on_stale
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop] | None] = (
            queue.SimpleQueue()
        )
        self._store: Store | None = None
        self._fence: Fence | None = None
        self._writer = ChangeWriter()
        self._ledgers: dict[str, StudyLedger] = {}
        self._inserts: list[Callable[[Connection], Any]] = []
        self._loaded = False
        self._thread = threading.Thread(target=self._work, name="study-desk", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """The epoch of this process; 0 before the store is open."""
        return 0 if self._fence is None else self._fence.epoch

    async def do(self, job: Callable[[], T]) -> T:
        """Run `job` at the desk and give its answer once it is committed; DeskUnavailableError where it could not be."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, future, loop))
        return await future

    def close(self) -> None:
        """End the thread and close the store."""
        self._jobs.put(None)
        self._thread.join()
        if self._store is not None:
            self._store.close()

    # ---- jobs -------------------------------------------------------------------------------------------------------------

    def submit(self, plan: Plan, objective: bytes) -> dict[str, Any]:
        """Begin a study, or take up the one of that name; ValueError where the name belongs to another search."""
        now_s = self._clock.now().wall_s
        with self._part().read() as connection:
            row = tuner_tables.read_study(connection, plan.name)
        if row is None:
            study_id = f"{self._opened().store_id}-s-{uuid.uuid4().hex[:12]}"
            values = {"study": study_id, "name": plan.name, "plan": plan.document(), "objective": objective,
                      "state": STUDY_RUNNING, "created_at": now_s}  # fmt: skip
            self._ledgers[study_id] = StudyLedger(study_id, plan)
            self._inserts.append(lambda connection: connection.execute(studies.insert().values(**values)))
            self._inserts.append(_forget_oldest)
            return {"status": "submitted", "study": study_id, "name": plan.name}
        continued = Plan.from_document(row.plan).continued_by(plan)
        update = studies.update().where(studies.c.study == row.study)
        ledger = self._ledgers.get(row.study)
        if ledger is not None and ledger.state == STUDY_RUNNING:
            ledger.continue_by(continued)
            status = "running"
        else:
            ledger = self._load(row.study, continued)
            status = "resumed" if ledger.state == STUDY_RUNNING else "done"
            self._ledgers[row.study] = ledger
        values = {"plan": continued.document(), "objective": objective, "state": ledger.state}
        self._inserts.append(lambda connection: connection.execute(update.values(**values)))
        return {"status": status, "study": row.study, "name": plan.name}

    def step(self, *, study: str, **said: Any) -> dict[str, Any]:
        """Take a step of a worker; see StudyLedger.step."""
        ledger = self._ledgers.get(study)
        if ledger is None:
            return {"status": "gone"}
        now = self._clock.now()
        try:
            return ledger.step(now_s=now.boot_s, wall_s=now.wall_s, **said)
        except StrategyError as error:
            ledger.fail(str(error))
            return {"status": "gone"}

    def staff(self, limits: dict[str, int]) -> list[tuple[str, str]]:
        """Note the workers that are about to be launched, given how many each study may have: (study, key)."""
        now_s = self._clock.now().boot_s
        wanted = []
        for study, ledger in self._ledgers.items():
            for _ in range(ledger.missing_workers(limits.get(study, 0))):
                key = f"{study}-w-{uuid.uuid4().hex[:8]}"
                ledger.expect(key, now_s)
                wanted.append((study, key))
        return wanted

    def running(self) -> dict[str, tuple[Plan, list[str]]]:
        """Give the running studies: their plans and the keys of their workers."""
        return {study: (ledger.plan, list(ledger.sessions)) for study, ledger in self._ledgers.items()}

    def lost(self, ended: Mapping[str, str | None]) -> None:
        """Take note that tasks have ended: by key, with what Ray says of it."""
        wall_s = self._clock.now().wall_s
        for key, reason in ended.items():
            ledger = self._ledgers.get(key.rpartition("-w-")[0])
            if ledger is not None:
                ledger.lost(key, reason, wall_s=wall_s)

    def give_up_silent(self, limit_s: float) -> list[str]:
        """Take back what workers hold that have not been heard of for `limit_s`; gives their keys."""
        now = self._clock.now()
        keys = []
        for ledger in self._ledgers.values():
            for key in ledger.silent(now.boot_s - limit_s):
                ledger.lost(key, None, wall_s=now.wall_s)
                keys.append(key)
        return keys

    def stop(self, name: str) -> dict[str, Any]:
        """Stop a study."""
        ledger = self._ledgers.get(self._row(name).study)
        if ledger is None:
            return {"status": "ended"}
        ledger.stop()
        return {"status": "stopped"}

    def study(self, name: str) -> dict[str, Any]:
        """Give the summary of a study."""
        for ledger in self._ledgers.values():
            if ledger.plan.name == name:
                return ledger.summary()
        with self._part().read() as connection:
            return tuner_tables.read_summary(connection, self._row(name))

    def study_id(self, name: str) -> str:
        """Give a study's id; KeyError where there is none of that name."""
        return str(self._row(name).study)

    def objective(self, study: str) -> dict[str, Any]:
        """Give what a worker needs to begin."""
        with self._part().read() as connection:
            row = connection.execute(select(studies).where(studies.c.study == study)).one_or_none()
        if row is None:
            raise KeyError(f"study must exist, got {study!r}")
        plan = Plan.from_document(row.plan)
        return {"objective": row.objective, "executor": plan.executor, "seed": plan.seed, "context": plan.context,
                "timeout_s": plan.timeout_s, "resources": plan.resources}  # fmt: skip

    def trials(self, name: str, since: int, limit: int) -> list[dict[str, Any]]:
        """Give up to `limit` trials from number `since` on."""
        study = self._row(name).study
        ledger = self._ledgers.get(study)
        if ledger is not None:
            known = ledger.book.trials
            return [as_row(known[number]) for number in range(since, min(since + limit, len(known)))]
        with self._part().read() as connection:
            return [as_row(trial) for trial in tuner_tables.read_trials(connection, study, since=since)[:limit]]

    def all(self) -> list[dict[str, Any]]:
        """Give name, state and time of every study, the newest first."""
        with self._part().read() as connection:
            return tuner_tables.read_studies(connection)

    # ---- the thread -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            group = [self._jobs.get()]
            while len(group) < _MAX_GROUP and None not in group:
                try:
                    group.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            jobs = [job for job in group if job is not None]
            if jobs:
                self._serve(jobs)
            if None in group:
                return

    def _serve(self, jobs: list[tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]]) -> None:
        answers: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            self._open()
            for job, future, _ in jobs:
                try:
                    answers.append((future, job(), None))
                except (ValueError, KeyError) as error:  # the caller's mistake; the job has changed nothing
                    answers.append((future, None, error))
            self._commit()
        except StaleEpochError as error:
            self._on_stale(error)
            answers = [(future, None, error) for _, future, _ in jobs]
        except Exception as error:
            if not isinstance(error, (*UNAVAILABLE, StoreError, SchemaError)):
                logger.exception("the tuner failed at a job; it reads its studies again and goes on")
            self._drop_memory()
            failed = DeskUnavailableError(f"{type(error).__name__}: {error}")
            answers = [(future, None, failed) for _, future, _ in jobs]
        jobs[0][2].call_soon_threadsafe(_deliver, answers)

    def _commit(self) -> None:
        changed = [(ledger, changes) for ledger in self._ledgers.values() if (changes := ledger.take_changes())]
        if not changed and not self._inserts:
            return
        if self._fence is None:
            raise DeskUnavailableError("not open")
        now_s = self._clock.now().wall_s
        with self._fence.write() as connection:
            for insert in self._inserts:
                insert(connection)
            for ledger, changes in changed:
                self._writer.write(connection, ledger.study_id, changes, ledger.book.trials, now_s)
            failpoints.reach("tuner.before_commit")
        failpoints.reach("tuner.after_commit")
        self._inserts.clear()
        for ledger, _ in changed:
            if ledger.state != STUDY_RUNNING:
                logger.info("study %s: %s", ledger.plan.name, ledger.state)
                del self._ledgers[ledger.study_id]

    def _drop_memory(self) -> None:
        self._ledgers.clear()
        self._inserts.clear()
        self._loaded = False

    def _open(self) -> None:
        if self._store is None:
            self._store = Store(self._storage)
        if self._fence is None:
            self._fence = Fence.raise_epoch(self._part(), OWNER)
        if not self._loaded:
            with self._part().read() as connection:
                running = connection.execute(
                    select(studies.c.study, studies.c.plan).where(studies.c.state == STUDY_RUNNING)
                ).all()
            for row in running:
                self._ledgers[row.study] = self._load(row.study, Plan.from_document(row.plan))
            self._loaded = True

    def _load(self, study: str, plan: Plan) -> StudyLedger:
        with self._part().read() as connection:
            trials: dict[int, Trial] = {trial.id: trial for trial in tuner_tables.read_trials(connection, study)}
            sessions, _ = tuner_tables.read_sessions(connection, study)
            reports = tuner_tables.read_reports(connection, study)
        now_s = self._clock.now().boot_s
        for session in sessions:
            session.heard_s = now_s
        try:
            return StudyLedger(study, plan, trials=trials.values(), sessions=sessions, reports=reports)
        except (StrategyError, ValueError) as error:
            # A strategy that cannot be made again must not stand in the way of the other studies.
            ledger = StudyLedger(study, plan.with_random_strategy(), trials=trials.values(), sessions=sessions, reports=reports)
            ledger.fail(str(error))
            return ledger

    def _row(self, name: str) -> Any:
        with self._part().read() as connection:
            row = tuner_tables.read_study(connection, name)
        if row is None:
            raise KeyError(f"study must be the name of a study, got {name!r}")
        return row

    def _opened(self) -> Store:
        if self._store is None:
            raise DeskUnavailableError("not open")
        return self._store

    def _part(self) -> Part:
        return self._opened().part(TUNER)


def _deliver(answers: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, answer, error in answers:
        if future.done():  # the caller has gone
            continue
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)


def _forget_oldest(connection: Connection) -> None:
    ended = select(studies.c.name).where(studies.c.state != STUDY_RUNNING)
    names = connection.execute(ended.order_by(studies.c.created_at.desc()).offset(MAX_STUDIES)).scalars().all()
    if names:
        tuner_tables.forget_studies(connection, names)

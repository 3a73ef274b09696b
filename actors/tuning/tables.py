"""Tables of the part `tuner`: studies, trials, leases to workers, reports; and how they are read.

A trial has a row once it has an outcome or waits for another attempt; while a worker holds it, it is in that worker's
row instead, with its parameters. One row per lease and one per outcome is all that a trial costs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    func,
    select,
)

from actors.plain import Values
from actors.replies import StudyListing, StudySummary, TrialRow
from actors.storage.schema import PartKind, insert_or_keep, upsert
from actors.tuning.rules.book import COMPLETED, FINAL, RUNNING, STATES, Entry, as_row
from actors.tuning.rules.ledger import STUDY_RUNNING, Changes, JudgedReport, Session
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import Report

# Trials in one reply: a page takes 20 ms to read and to decode.
TRIALS_PER_PAGE: Final = 5_000
PAGE_BYTES: Final = 4 * 2**20
_SWEPT_ROWS: Final = 20_000  # a tenth of a second

TUNER = PartKind("tuner")

studies = Table(
    "studies",
    TUNER.metadata,
    Column("study", String(60), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("plan", Text, nullable=False),
    # Pickled by value, or a reference `module:function`; only workers open it.
    Column("objective", LargeBinary, nullable=False),
    Column("state", String(20), nullable=False),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
)
trials = Table(
    "trials",
    TUNER.metadata,
    Column("study", String(60), primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("params", Text, nullable=False),
    Column("value", Float),
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("error", Text),
    Column("seconds", Float),
    Column("node", String(200)),
    Column("finished_at", Float),
)
# One row per worker task that is wanted or at work, with the trials that it holds.
tuner_workers = Table(
    "tuner_workers",
    TUNER.metadata,
    Column("worker", String(80), primary_key=True),
    Column("study", String(60), nullable=False, index=True),
    Column("incarnation", String(40), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("node", String(200)),
    Column("running", Integer, nullable=False),
    Column("leases", Text, nullable=False),
)
trial_reports = Table(
    "trial_reports",
    TUNER.metadata,
    Column("study", String(60), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("trial", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("value", Float),
    Column("stop", Boolean, nullable=False),
    Column("seen", Text, nullable=False),
)

_TRIAL_COLUMNS = [column.name for column in trials.columns if not column.primary_key]
_WORKER_COLUMNS = [column.name for column in tuner_workers.columns if not column.primary_key]


class ChangeWriter:
    """Writes what a ledger has changed; keeps its statements, since making one costs more than a row."""

    def __init__(self) -> None:
        self._trials: Any = None
        self._workers: Any = None

    def write(self, connection: Connection, study: str, changes: Changes, held: Mapping[int, Entry], now_s: float) -> None:
        """Write `changes` of `study`; `held` are the trials that its workers hold."""
        if self._trials is None:
            self._trials = upsert(connection, trials, *_TRIAL_COLUMNS)
            self._workers = upsert(connection, tuner_workers, *_WORKER_COLUMNS)
        if changes.trials:
            connection.execute(self._trials, [_trial_row(study, trial) for trial in changes.trials])
        if changes.sessions:
            connection.execute(self._workers, [_worker_row(study, session, held) for session in changes.sessions])
        if changes.gone:
            connection.execute(tuner_workers.delete().where(tuner_workers.c.worker.in_(changes.gone)))
        if changes.reports:
            connection.execute(
                insert_or_keep(connection, trial_reports),
                [
                    {"study": study, "number": each.number, **each.report._asdict(), "stop": each.stop, "seen": each.seen}
                    for each in changes.reports
                ],
            )
        if changes.state is not None:
            connection.execute(
                studies.update()
                .where(studies.c.study == study)
                .values(state=changes.state, error=changes.error, finished_at=now_s)
            )


def read_sessions(connection: Connection, study: str) -> tuple[list[Session], list[Entry]]:
    """Return the workers of a study, and the trials that they hold."""
    sessions, held = [], []
    for row in connection.execute(select(tuner_workers).where(tuner_workers.c.study == study)):
        leases = json.loads(row.leases)
        sessions.append(
            Session(row.worker, row.incarnation, row.sequence, [(trial, attempt) for trial, attempt, *_ in leases], row.node)
        )
        for trial, attempt, params, failures, losses in leases:
            held.append(Entry(trial, params, RUNNING, attempts=attempt, failures=failures, losses=losses, node=row.node))
    return sessions, held


def read_entries(connection: Connection, study: str) -> list[Entry]:
    """Return every trial that was ever handed out, in their order; those that a worker holds are RUNNING."""
    found = {row.trial: _entry(row) for row in connection.execute(select(trials).where(trials.c.study == study))}
    _, held = read_sessions(connection, study)
    found.update({trial.id: trial for trial in held})
    return [found[number] for number in sorted(found)]


def read_page(connection: Connection, study: str, *, since: int, limit: int) -> list[TrialRow]:
    """Return up to `limit` trials from number `since` on, as many as a reply holds; at least one where there is any."""
    wanted = select(trials).where((trials.c.study == study) & (trials.c.trial >= since)).order_by(trials.c.trial).limit(limit)
    found = {row.trial: _entry(row) for row in connection.execute(wanted)}
    last = max(found) if len(found) == limit else None  # beyond it there may be trials that this page does not have
    _, held = read_sessions(connection, study)
    found.update({trial.id: trial for trial in held if trial.id >= since and (last is None or trial.id <= last)})
    return page([found[number] for number in sorted(found)[:limit]])


def page(entries: Iterable[Entry]) -> list[TrialRow]:
    """Return trials as rows, up to the size of a reply."""
    rows: list[TrialRow] = []
    left_bytes = PAGE_BYTES
    for trial in entries:
        left_bytes -= len(trial.params) + len(trial.error or "")
        if rows and left_bytes < 0:
            break
        rows.append(as_row(trial))
    return rows


def read_reports(connection: Connection, study: str) -> list[JudgedReport]:
    """Return the reports of a study in the order in which they were judged."""
    found = connection.execute(select(trial_reports).where(trial_reports.c.study == study).order_by(trial_reports.c.number))
    return [JudgedReport(r.number, Report(r.trial, r.attempt, r.step, r.value), r.stop, r.seen) for r in found]


def read_study(connection: Connection, name: str) -> Row[Any] | None:
    """Return the row of a study by its name, without its objective, which may be large; None where there is none."""
    columns = [column for column in studies.columns if column.name != "objective"]
    return connection.execute(select(*columns).where(studies.c.name == name)).one_or_none()


def read_summary(connection: Connection, row: Row[Any]) -> StudySummary:
    """Return state, counts and best trial of the study in `row`, as a running study gives them."""
    plan = Plan.from_document(row.plan)
    of_study = trials.c.study == row.study
    counted = select(trials.c.state, func.count().label("number")).where(of_study).group_by(trials.c.state)
    counts = dict.fromkeys(STATES, 0) | {row.state: row.number for row in connection.execute(counted)}
    workers = connection.execute(select(tuner_workers.c.running).where(tuner_workers.c.study == row.study)).scalars().all()
    counts[RUNNING] = sum(workers)
    order = trials.c.value.desc() if plan.mode == "max" else trials.c.value
    completed = select(trials.c.trial, trials.c.value).where(of_study & (trials.c.state == COMPLETED))
    best = connection.execute(completed.order_by(order, trials.c.trial).limit(1)).one_or_none()
    return {
        "study": row.study,
        "name": row.name,
        "state": row.state,
        "error": row.error,
        "trials": plan.trials,
        "done": sum(counts[state] for state in FINAL),
        "counts": counts,
        "workers": len(workers),
        "best": None if best is None else best.trial,
        "best_value": None if best is None else best.value,
        "mode": plan.mode,
        "seed": plan.seed,
        "space": plan.space,
        "strategy": plan.strategy,
        "first": len(plan.first),
    }


def read_studies(connection: Connection) -> list[StudyListing]:
    """Return name, state and times of every study, the newest first."""
    columns = (studies.c.study, studies.c.name, studies.c.state, studies.c.error, studies.c.created_at, studies.c.finished_at)
    return [
        {
            "study": row.study,
            "name": row.name,
            "state": row.state,
            "error": row.error,
            "created_at": row.created_at,
            "finished_at": row.finished_at,
        }
        for row in connection.execute(select(*columns).order_by(studies.c.created_at.desc()))
    ]


def read_status(connection: Connection) -> dict[str, int]:
    """Return the number of studies and of running trials, for `status`."""
    number = connection.execute(select(func.count()).select_from(studies)).scalar_one()
    running = connection.execute(select(func.sum(tuner_workers.c.running))).scalar()
    return {"studies": int(number), "running_trials": int(running or 0)}


def forget_study(connection: Connection, study: str) -> None:
    """Delete a study that has ended; its trials and reports follow by `sweep`, since they may be a million rows."""
    connection.execute(tuner_workers.delete().where(tuner_workers.c.study == study))
    connection.execute(studies.delete().where(studies.c.study == study))


def oldest_ended(connection: Connection, beyond: int) -> list[str]:
    """Return the studies that have ended beyond the newest `beyond` of those, by id."""
    ended = select(studies.c.study).where(studies.c.state != STUDY_RUNNING)
    return list(connection.execute(ended.order_by(studies.c.created_at.desc()).offset(beyond)).scalars())


def orphans(connection: Connection) -> list[str]:
    """Return the ids under which there are trials or reports and no study."""
    known = select(studies.c.study)
    found: set[str] = set()
    for table in (trials, trial_reports):
        found.update(connection.execute(select(table.c.study).where(table.c.study.not_in(known)).distinct()).scalars())
    return sorted(found)


def sweep(connection: Connection, study: str) -> bool:
    """Delete some of the rows that a deleted study has left; True where there may be more."""
    if connection.execute(select(studies.c.study).where(studies.c.study == study)).first() is not None:
        return False
    for table, number in ((trials, trials.c.trial), (trial_reports, trial_reports.c.number)):
        of_study = table.c.study == study
        first = connection.execute(select(func.min(number)).where(of_study)).scalar()
        if first is not None:
            connection.execute(table.delete().where(of_study & (number < first + _SWEPT_ROWS)))
            return True
    return False


def _trial_row(study: str, trial: Entry) -> Values:
    return {
        "study": study,
        "trial": trial.id,
        "state": trial.state,
        "params": trial.params,
        "value": trial.value,
        "attempts": trial.attempts,
        "failures": trial.failures,
        "losses": trial.losses,
        "error": trial.error,
        "seconds": trial.seconds,
        "node": trial.node,
        "finished_at": trial.finished_at,
    }


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.trial,
        row.params,
        row.state,
        row.value,
        row.attempts,
        row.failures,
        row.losses,
        row.error,
        row.seconds,
        row.node,
        row.finished_at,
    )


def _worker_row(study: str, session: Session, held: Mapping[int, Entry]) -> Values:
    leases = []
    for number, attempt in session.leases:
        trial = held[number]
        leases.append([number, attempt, trial.params, trial.failures, trial.losses])
    return {
        "worker": session.key,
        "study": study,
        "incarnation": session.incarnation,
        "sequence": session.sequence,
        "node": session.node,
        "running": len(leases),
        "leases": json.dumps(leases),
    }

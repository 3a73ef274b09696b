"""The ledger of one study: the book of its trials, and the workers that it is leased to.

A worker is known by its key, for which one task was launched, and by its incarnation: Ray may run a task again after its
process died, and the second run is another worker. A step is counted once per (incarnation, sequence); a repeated one gets
the same answer again. Everything that a step changes is handed out by `take_changes` and must be committed before the reply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.replies import Gone, Lease, StepAnswered, StudySummary
from actors.tuning.rules.book import COMPLETED, Entry, TrialBook
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import Report, Result, Step

STUDY_RUNNING: Final = "RUNNING"
STUDY_DONE: Final = "DONE"
STUDY_STOPPED: Final = "STOPPED"
STUDY_FAILED: Final = "FAILED"

GONE: Final[Gone] = {"status": "gone"}

# How long a worker that got nothing waits before it asks again; the tail of a study, no more.
_IDLE_RETRY_S = 0.02
# After so many workers in a row that could not load the objective or died before their first step, the study has failed.
_MAX_FALSE_STARTS = 3


@dataclass(slots=True)
class Session:
    """One worker: what it holds and how far it has counted."""

    key: str
    incarnation: str = ""  # empty until its first step
    sequence: int = 0
    leases: list[tuple[int, int]] = field(default_factory=list)  # (trial, attempt), in the order in which they are run
    node: str | None = None
    heard_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JudgedReport:
    """An intermediate value and the verdict on it; `number` orders the reports of a study."""

    number: int
    report: Report
    stop: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What must be committed before anybody hears of it."""

    trials: list[Entry]
    sessions: list[Session]
    gone: list[str]
    reports: list[JudgedReport]
    state: str | None  # of the study, where it has changed
    error: str | None

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.trials or self.sessions or self.gone or self.reports or self.state)


class StudyLedger:
    """One study while it runs. Not thread safe: one caller at a time."""

    def __init__(
        self,
        study_id: str,
        plan: Plan,
        *,
        trials: Iterable[Entry] = (),
        sessions: Iterable[Session] = (),
        reports: Sequence[JudgedReport] = (),
    ) -> None:
        """Take up a study with what the store has kept of it."""
        self.study_id = study_id
        self.plan = plan
        self.state = STUDY_RUNNING
        self.error: str | None = None
        self.sessions = {session.key: session for session in sessions}
        holders = {trial: key for key, session in self.sessions.items() for trial, _ in session.leases}
        self.book = TrialBook(plan, trials, holders)
        self._rule = plan.stopping_rule()
        self._reports = 0
        self._stop: set[tuple[int, int]] = set()
        for report in reports:
            self._replay(report)
        for trial in self.book.trials.values():
            self._tell_rule(trial)
        self._false_starts = 0
        self._changed: dict[str, Session] = {}
        self._gone: list[str] = []
        self._new_reports: list[JudgedReport] = []
        self._state_changed = False
        self._end_if_finished()

    def missing_workers(self, limit: int) -> int:
        """Return how many workers more could be used, where `limit` may run at once."""
        if self.state != STUDY_RUNNING:
            return 0
        free = sum(1 for session in self.sessions.values() if not session.leases)
        return max(min(limit - len(self.sessions), self.book.unleased - free), 0)

    def expect(self, key: str, now_s: float) -> None:
        """Note that a worker is about to be launched."""
        self.sessions[key] = session = Session(key, heard_s=now_s)
        self._changed[key] = session

    def step(self, step: Step, *, now_s: float, wall_s: float) -> StepAnswered | Gone:
        """Take what a worker has to say and return what it gets; see the lease protocol in docs/explanation/tuning.md."""
        session = self._session(step, wall_s)
        if session is None:
            return GONE
        session.heard_s = now_s
        if step.sequence > session.sequence:
            session.sequence = step.sequence
            self._take_reports(session, step.reports)
            self._take_results(session, step.results, wall_s)
            if step.load_error is not None:
                fatal = self.book.done == 0  # nobody has been able to load it
                error = f"the objective cannot be loaded on a worker: {step.load_error}"
                self._false_start(session, error, wall_s, fatal=fatal)
            elif self.book.finished:
                self._end(STUDY_DONE)
            elif step.leaving:
                self._drop(session)
            elif step.wanted and len(session.leases) <= step.holding:
                self._lease(session)
        return self._reply(session, step) if step.key in self.sessions else GONE

    def lost(self, key: str, reason: str | None, *, wall_s: float) -> None:
        """Take back what the worker `key` held: its process is gone. `reason` is what Ray says of it."""
        session = self.sessions.get(key)
        if session is None:
            return
        if not session.incarnation and reason:
            self._false_start(session, f"a worker could not start: {reason}", wall_s, fatal=False)
            return
        self._lose_leases(session, wall_s)
        self._drop(session)
        self._end_if_finished()

    def silent(self, before_s: float) -> list[str]:
        """Return the workers that said hello and have not been heard of since `before_s`."""
        return [key for key, session in self.sessions.items() if session.incarnation and session.heard_s < before_s]

    def stop(self, reason: str | None = None) -> None:
        """End the study before its time: what runs is cancelled, what waits may be taken up again later."""
        if self.state == STUDY_RUNNING:
            self.error = reason
            self._end(STUDY_STOPPED)

    def fail(self, error: str) -> None:
        """End the study: it cannot go on."""
        if self.state == STUDY_RUNNING:
            self.error = error
            self._end(STUDY_FAILED)

    def continue_by(self, plan: Plan) -> None:
        """Go on with changed settings: more trials, other limits. The search itself stays what it is."""
        self.plan = plan
        self.book.continue_by(plan)

    def take_changes(self) -> Changes:
        """Return what has to be written, once."""
        changes = Changes(
            trials=self.book.take_changes(),
            sessions=[session for session in self._changed.values() if session.key in self.sessions],
            gone=self._gone,
            reports=self._new_reports,
            state=self.state if self._state_changed else None,
            error=self.error,
        )
        self._changed, self._gone, self._new_reports, self._state_changed = {}, [], [], False
        return changes

    def summary(self) -> StudySummary:
        """Return the study's state, counts and best trial as plain values."""
        best = self.book.best
        return {
            "study": self.study_id,
            "name": self.plan.name,
            "state": self.state,
            "error": self.error,
            "trials": self.book.goal,
            "done": self.book.done,
            "counts": self.book.counts(),
            "workers": sum(1 for session in self.sessions.values() if session.incarnation),
            "best": None if best is None else best.id,
            "best_value": None if best is None else best.value,
            "mode": self.plan.mode,
            "seed": self.plan.seed,
            "space": self.plan.space,
            "strategy": self.plan.strategy,
            "first": len(self.plan.first),
        }

    def _session(self, step: Step, wall_s: float) -> Session | None:
        """Return the session of a step; None for a worker that was given up for lost or whose task ran again."""
        session = self.sessions.get(step.key)
        if session is None or self.state != STUDY_RUNNING:
            return None
        if session.incarnation != step.incarnation:
            if step.sequence != 1:
                return None
            self._lose_leases(session, wall_s)
            session.incarnation, session.sequence, session.node = step.incarnation, 0, step.node
            self._changed[step.key] = session
        return session if step.sequence >= session.sequence else None

    def _lease(self, session: Session) -> None:
        held = [trial for trial, _ in session.leases]
        leased = self.book.lease(session.key, workers=len(self.sessions), held=held)
        if leased:
            session.leases += [(trial.id, trial.attempts) for trial in leased]
            self._changed[session.key] = session

    def _reply(self, session: Session, step: Step) -> StepAnswered:
        trials = self.book.trials
        new = session.leases[step.holding :] if step.wanted else []
        leases: list[Lease] = [[trial, attempt, trials[trial].params] for trial, attempt in new]
        stop = [trial for trial, attempt in session.leases if (trial, attempt) in self._stop] if self._stop else []
        reply: StepAnswered = {"status": "ok", "leases": leases, "ahead": self.book.ahead, "stop": stop}
        if step.wanted and not leases:
            reply["retry_in_s"] = _IDLE_RETRY_S
        return reply

    def _take_results(self, session: Session, results: Sequence[Result], wall_s: float) -> None:
        for result in results:
            trial = self.book.settle(session.key, result, node=session.node, now_s=wall_s)
            if trial is not None:
                self._tell_rule(trial)
            self._stop.discard((result.trial, result.attempt))
        if results:
            self._false_starts = 0
            ended = {(result.trial, result.attempt) for result in results}
            session.leases = [lease for lease in session.leases if lease not in ended]
            self._changed[session.key] = session

    def _take_reports(self, session: Session, reports: Sequence[Report]) -> None:
        held = set(session.leases) if reports else ()
        for report in reports:
            if (report.trial, report.attempt) not in held:
                continue
            verdict = self._rule.report(report.trial, report.step, self._loss(report))
            if verdict.stop:
                self._stop.add((report.trial, report.attempt))
            self._new_reports.append(JudgedReport(self._reports, report, verdict.stop, verdict.seen))
            self._reports += 1
        if reports:
            self._changed[session.key] = session

    def _replay(self, judged: JudgedReport) -> None:
        report = judged.report
        self._rule.report(report.trial, report.step, self._loss(report))
        self._reports = judged.number + 1
        if judged.stop:
            self._stop.add((report.trial, report.attempt))

    def _loss(self, report: Report) -> float:
        return math.inf if report.value is None else self.plan.loss(report.value)

    def _tell_rule(self, trial: Entry) -> None:
        if trial.state == COMPLETED:
            self._rule.complete(trial.id)

    def _lose_leases(self, session: Session, wall_s: float) -> None:
        self.book.lose(session.key, [trial for trial, _ in session.leases], now_s=wall_s)
        session.leases = []

    def _drop(self, session: Session) -> None:
        self.book.give_back(session.key, [trial for trial, _ in session.leases])
        del self.sessions[session.key]
        self._gone.append(session.key)

    def _false_start(self, session: Session, error: str, wall_s: float, *, fatal: bool) -> None:
        self._lose_leases(session, wall_s)
        self._drop(session)
        self._false_starts += 1
        if fatal or self._false_starts >= _MAX_FALSE_STARTS:
            self.fail(error)

    def _end_if_finished(self) -> None:
        if self.state == STUDY_RUNNING and self.book.finished:
            self._end(STUDY_DONE)

    def _end(self, state: str) -> None:
        self.state = state
        self._state_changed = True
        for session in list(self.sessions.values()):
            self.book.give_back(session.key, [trial for trial, _ in session.leases], cancelled=True)
            del self.sessions[session.key]
            self._gone.append(session.key)

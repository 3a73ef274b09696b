"""Whatever callers and workers do, in whatever order, however often the process is replaced: what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from actors.tuning.desk import UnstorableError
from actors.tuning.rules.book import FINAL
from actors.tuning.rules.ledger import STUDY_DONE, STUDY_RUNNING, STUDY_STOPPED
from actors.tuning.tables import ChangeWriter
from tests.unit.tuning.kept import Kept, a_plan

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b"])


class Studies(RuleBasedStateMachine):
    """Two study names, their workers, and what a caller knows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp(prefix="studies-")
        self.kept = Kept(f"sqlite:///{self.folder}/store")
        self.goal: dict[str, int] = {}  # of each study that is there
        self.ids: dict[str, str] = {}
        self.acknowledged: dict[str, dict[int, float]] = {}
        self.workers: dict[str, Any] = {}  # of each name: its study, the worker's key, and what it holds

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.kept.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def state_of(self, name: str) -> str:
        return self.run(self.kept.summary(name))["state"]

    @initialize(trials=st.integers(3, 9))
    def begin(self, trials: int) -> None:
        for name in ("a", "b"):
            self.submit(name, trials)

    @rule(name=NAMES, trials=st.integers(1, 9))
    def submit(self, name: str, trials: int) -> None:
        before = self.goal.get(name)
        begun = self.run(self.kept.submit(a_plan(name=name, trials=trials, retries=1)))
        if before is None:
            assert begun.status == "submitted"
            self.ids[name], self.acknowledged[name] = begun.study, {}
        assert begun.study == self.ids[name]
        self.goal[name] = max(trials, before or 0)

    @rule(name=NAMES, rounds=st.integers(1, 3), good=st.booleans(), again=st.booleans())
    def work(self, name: str, rounds: int, good: bool, again: bool) -> None:
        """Let a worker take some steps: it reports all that it holds, and asks for more."""
        study = self.ids.get(name)
        if study is None:
            return
        if self.workers.get(name, (None,))[0] != study:
            keys = self.run(self.kept.staffed(study, 2))
            if not keys:
                return
            self.workers[name] = (study, keys[0], {"sequence": 0, "leases": []})
        _, key, mind = self.workers[name]
        kind, value, error = ("completed", 0.25, None) if good else ("failed", None, "no")
        for _ in range(rounds):
            results = [[trial, attempt, kind, value, 1e-5, error] for trial, attempt, _ in mind["leases"]]
            reply = self.run(self.kept.step(study, key, mind["sequence"] + 1, results))
            if again:
                repeated = self.run(self.kept.step(study, key, mind["sequence"] + 1, results))
                assert repeated["status"] in {reply["status"], "gone"}
            if reply["status"] == "gone":
                del self.workers[name]
                return
            mind["sequence"], mind["leases"] = mind["sequence"] + 1, reply["leases"]
            self.acknowledged[name] |= {result[0]: 0.25 for result in results if good}

    @rule(name=NAMES)
    def lose(self, name: str) -> None:
        if name in self.workers:
            key = self.workers.pop(name)[1]
            self.run(self.kept.do(lambda: self.kept.state.lost({key: None})))

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        if name not in self.goal:
            with pytest.raises(KeyError):
                self.run(self.kept.do(lambda: self.kept.state.stop(name)))
            return
        self.run(self.kept.do(lambda: self.kept.state.stop(name)))
        assert self.state_of(name) in {STUDY_STOPPED, STUDY_DONE}

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name not in self.goal:
            return
        if self.state_of(name) == STUDY_RUNNING:
            with pytest.raises(ValueError, match="must have ended"):
                self.run(self.kept.do(lambda: self.kept.state.delete(name)))
            return
        self.run(self.kept.do(lambda: self.kept.state.delete(name)))
        del self.goal[name], self.ids[name], self.acknowledged[name]

    @rule()
    def sweep(self) -> None:
        for study in self.run(self.kept.desk.read(self.kept.reader.orphans)):
            assert study not in self.ids.values()
            while self.run(self.kept.do(lambda study=study: self.kept.state.sweep(study))):  # type: ignore[misc]
                pass

    @rule()
    def restart(self) -> None:
        epoch = self.kept.state.epoch
        self.run(self.kept.close())
        self.kept = Kept(f"sqlite:///{self.folder}/store")
        self.run(self.kept.do(lambda: None))
        assert self.kept.state.epoch == epoch + 1

    @invariant()
    def what_was_acknowledged_is_kept(self) -> None:
        for name, known in self.acknowledged.items():
            trials = {trial["id"]: trial for trial in self.run(self.kept.trials(name))}
            for trial, value in known.items():
                assert (trials[trial]["state"], trials[trial]["value"]) == ("COMPLETED", value)
            summary = self.run(self.kept.summary(name))
            assert summary["done"] == sum(trial["state"] in FINAL for trial in trials.values())
            assert summary["done"] <= self.goal[name]
            assert sorted(trials) == list(range(len(trials)))
            if summary["state"] == STUDY_DONE:
                assert summary["done"] == len(trials) == summary["trials"]


def examined(examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    run_state_machine_as_test(
        Studies,
        settings=settings(
            max_examples=examples,
            phases=phases,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_studies_of_callers_workers_and_successors() -> None:
    examined(15)


def test_a_result_that_is_acknowledged_and_not_written_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ChangeWriter.write

    def forgetful(self: ChangeWriter, connection: Any, study: str, changes: Any, *rest: Any) -> None:
        honest(self, connection, study, replace(changes, trials=[]), *rest)

    monkeypatch.setattr(ChangeWriter, "write", forgetful)
    # The check notices it, or the tuner itself, where a trial that it needs is not there.
    with pytest.raises((AssertionError, KeyError, UnstorableError, ExceptionGroup)):
        examined(60, (Phase.generate,))  # found, not made small

"""Whatever callers and workers do, in whatever order, however often the process is replaced: what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule, run_state_machine_as_test

from actors.tuning.rules.book import FINAL
from actors.tuning.rules.ledger import STUDY_DONE, STUDY_RUNNING, STUDY_STOPPED
from tests.unit.tuning.kept import Kept, a_plan

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b"])


class Studies(RuleBasedStateMachine):
    """Two study names, their workers, and what a caller knows of them."""

    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp(prefix="studies-")
        self.kept = Kept(f"sqlite:///{self.folder}/store")
        self.goal: dict[str, int] = {}  # of each study that is there
        self.ids: dict[str, str] = {}
        self.acknowledged: dict[str, dict[int, float]] = {}
        self.made = 0

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.kept.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def state_of(self, name: str) -> str:
        return self.run(self.kept.summary(name))["state"]

    @initialize()
    def begin(self) -> None:
        self.run(self.kept.do(lambda: None))

    @rule(name=NAMES, trials=st.integers(1, 9))
    def submit(self, name: str, trials: int) -> None:
        before = self.goal.get(name)
        begun = self.run(self.kept.submit(a_plan(name=name, trials=trials, retries=1)))
        if before is None:
            assert begun.status == "submitted"
            self.ids[name], self.acknowledged[name] = begun.study, {}
        assert begun.study == self.ids[name]
        self.goal[name] = max(trials, before or 0)

    @rule(name=NAMES, target=workers)
    def staff(self, name: str) -> Any:
        study = self.ids.get(name)
        keys = [] if study is None else self.run(self.kept.staffed(study, 2))
        return (name, study, keys[0], {"sequence": 0, "leases": []}) if keys else None

    @rule(worker=workers, done=st.integers(0, 9), good=st.booleans(), again=st.booleans())
    def step(self, worker: Any, done: int, good: bool, again: bool) -> None:
        if worker is None:
            return
        name, study, key, mind = worker
        kind, value = ("completed", 0.25) if good else ("failed", None)
        results = [[t, a, kind, value, 1e-5, None if good else "no"] for t, a, _ in mind["leases"][:done]]
        holding = len(mind["leases"]) - len(results)
        sequence = mind["sequence"] + 1
        reply = self.run(self.kept.step(study, key, sequence, results, holding=holding))
        if again:
            assert self.run(self.kept.step(study, key, sequence, results, holding=holding))["status"] in {
                reply["status"],
                "gone",
            }
        if reply["status"] == "gone":
            mind["leases"] = []
            return
        mind["sequence"], mind["leases"] = sequence, mind["leases"][len(results) :] + reply["leases"]
        if self.ids.get(name) == study and good:
            self.acknowledged[name] |= {result[0]: 0.25 for result in results}

    @rule(worker=consumes(workers))
    def lose(self, worker: Any) -> None:
        if worker is not None:
            self.run(self.kept.do(lambda: self.kept.state.lost({worker[2]: None})))

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


def examined(examples: int) -> None:
    run_state_machine_as_test(
        Studies,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_studies_of_callers_workers_and_successors() -> None:
    examined(25)

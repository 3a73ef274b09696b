"""The lease protocol: what workers may do, what they get, and what is written before they hear of it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.tuning.rules.book import COMPLETED, FAILED, FINAL, MAX_LOSSES, PENDING, PRUNED, TIMED_OUT, Entry, TrialBook
from actors.tuning.rules.ledger import JudgedReport, Session, StudyLedger
from actors.tuning.rules.plan import Plan, check
from actors.tuning.rules.steps import Result, Step
from actors.tuning.strategies.random_search import RandomSearchTuner

SPACE = {"x": [0.0, 1.0], "n": [1, 5, "int"]}


def a_plan(**changes: Any) -> Plan:
    return check({"name": "s", "space": SPACE, "trials": 10, "seed": 4} | changes)


class Worker:
    """Says steps as a worker does."""

    def __init__(self, ledger: StudyLedger, key: str = "w1", incarnation: str = "a", *, expected: bool = False) -> None:
        self.ledger, self.key, self.incarnation, self.sequence = ledger, key, incarnation, 0
        self.leases: list[list[Any]] = []
        if not expected:
            ledger.expect(key, 0.0)

    def step(
        self, results: Any = (), *, wanted: bool = True, holding: int = 0, again: bool = False, **said: Any
    ) -> dict[str, Any]:
        self.sequence += 0 if again else 1
        now_s = said.pop("now_s", 1.0)
        fields = {
            "key": self.key,
            "incarnation": self.incarnation,
            "sequence": self.sequence,
            "results": results,
            "wanted": wanted,
            "holding": holding,
            "node": "n1",
        }
        reply: Any = self.ledger.step(Step.from_wire(fields | said), now_s=now_s, wall_s=100.0)  # type: ignore[arg-type]
        if reply["status"] == "ok" and wanted and not again:
            reported = {(result[0], result[1]) for result in results}
            self.leases = [lease for lease in self.leases if (lease[0], lease[1]) not in reported] + reply["leases"]
        said_back: dict[str, Any] = reply
        return said_back

    def results(
        self, outcome: str = "completed", value: float | None = 1.0, seconds: float = 1e-5, of: int | None = None
    ) -> list[list[Any]]:
        """What came of all that it holds, or of the first `of`."""
        error = None if outcome == "completed" else "broken"
        return [[trial, attempt, outcome, value, seconds, error] for trial, attempt, _ in self.leases[:of]]


def test_one_worker_runs_every_trial_once() -> None:
    ledger = StudyLedger("s", a_plan(trials=50))
    worker, seen = Worker(ledger), []
    results: list[list[Any]] = []
    while (reply := worker.step(results))["status"] == "ok":
        seen += [(trial, attempt) for trial, attempt, _ in reply["leases"]]
        results = worker.results()
    assert seen == [(trial, 1) for trial in range(50)]
    assert ledger.state == "DONE"
    assert ledger.summary()["counts"] == {
        "PENDING": 0,
        "RUNNING": 0,
        "COMPLETED": 50,
        "PRUNED": 0,
        "FAILED": 0,
        "TIMED_OUT": 0,
        "CANCELLED": 0,
    }


def test_a_step_that_is_said_again_is_answered_again_and_counted_once() -> None:
    ledger = StudyLedger("s", a_plan())
    worker = Worker(ledger)
    first = worker.step()
    assert worker.step(again=True) == first
    results = worker.results(value=3.0)
    second = worker.step(results)
    assert worker.step(results, again=True) == second
    assert [trial.id for trial in ledger.book.trials.values() if trial.state == COMPLETED] == [0]
    assert ledger.book.trials[0].attempts == 1


def test_quick_trials_go_in_batches_and_slow_ones_one_by_one() -> None:
    ledger = StudyLedger("s", a_plan(trials=10_000))
    worker = Worker(ledger)
    sizes = [len(worker.step()["leases"])]
    sizes += [len(worker.step(worker.results(seconds=1e-5))["leases"]) for _ in range(6)]
    assert sizes == [1, 4, 16, 64, 256, 256, 256]
    slow = worker.results(seconds=1e-5)
    slow[-3][4] = 0.5  # one slow trial among the last eight ends the batches
    assert len(worker.step(slow)["leases"]) == 1


def after_eight(seconds: float, **changes: Any) -> tuple[StudyLedger, Worker]:
    """A study whose last eight trials took `seconds`, and a worker that holds its next lease."""
    ledger = StudyLedger("s", a_plan(**{"trials": 100} | changes))
    worker = Worker(ledger)
    worker.step()
    while ledger.book.done < 8:
        worker.step(worker.results(seconds=seconds))
    return ledger, worker


def test_a_worker_of_quick_trials_gets_the_next_while_it_runs_some_and_is_told_of_each_once() -> None:
    ledger, worker = after_eight(0.05)
    seen = []
    for _ in range(5):
        (running,) = worker.leases
        reply = worker.step(holding=1)
        assert reply["ahead"]
        assert len(reply["leases"]) == 1
        assert worker.step(holding=1, again=True) == reply
        seen.append(running[0])
        assert worker.step(worker.results(seconds=0.05, of=1), wanted=False, holding=1)["leases"] == []
        del worker.leases[0]
    assert seen == list(range(8, 13))
    assert ledger.book.running == 1


@pytest.mark.parametrize(("seconds", "changes"), [(0.5, {}), (0.001, {"strategy": "optuna:TPESampler"})])
def test_nobody_waits_behind_a_slow_trial_and_a_learner_is_not_asked_ahead(seconds: float, changes: dict[str, Any]) -> None:
    _, worker = after_eight(seconds, **changes)
    reply = worker.step(holding=1)
    assert (reply["ahead"], reply["leases"]) == (False, [])
    assert len(worker.step(worker.results(seconds=seconds))["leases"]) == 1


def test_what_died_with_its_worker_shares_a_worker_with_nothing_ahead_of_it_or_behind() -> None:
    ledger, _ = after_eight(0.05)
    other = Worker(ledger, "w2")
    other.step()
    ledger.lost("w1", None, wall_s=1.0)
    assert other.step(holding=1)["leases"] == []
    (suspect,) = other.step(other.results(seconds=0.05))["leases"]
    assert suspect[:2] == [8, 2]
    assert other.step(holding=1)["leases"] == []


def test_the_last_trials_are_shared_out() -> None:
    ledger = StudyLedger("s", a_plan(trials=100))
    workers = [Worker(ledger, f"w{n}") for n in range(4)]
    for worker in workers:
        worker.step()
    for _ in range(3):
        for worker in workers:
            worker.step(worker.results())
    assert max(len(worker.leases) for worker in workers) <= 100 // (2 * 4)


def test_a_learner_gets_every_result_before_it_is_asked_again() -> None:
    ledger = StudyLedger("s", a_plan(trials=20, strategy="optuna:TPESampler"))
    worker = Worker(ledger)
    worker.step()
    for _ in range(5):
        assert len(worker.step(worker.results())["leases"]) == 1


def test_a_dead_workers_trials_go_to_others_alone_and_cost_it_in_the_end() -> None:
    ledger = StudyLedger("s", a_plan(trials=40))
    worker = Worker(ledger)
    worker.step()
    worker.step(worker.results())
    held = [trial for trial, _, _ in worker.leases]
    assert len(held) == 4
    ledger.lost("w1", None, wall_s=1.0)
    assert worker.step(worker.results())["status"] == "gone"  # too late: it has been given up
    other = Worker(ledger, "w2")
    for _ in held:
        other.step(other.results())
        assert len(other.leases) == 1
        assert other.leases[0][1] == 2
    killer = other.leases[0][0]
    for n in range(MAX_LOSSES - 1):
        ledger.lost(f"w{2 + n}", None, wall_s=1.0)
        following = Worker(ledger, f"w{3 + n}")
        following.step()
    assert ledger.book.trials[killer].state == FAILED
    assert "died 3 times" in str(ledger.book.trials[killer].error)


def test_a_task_that_ray_runs_again_is_another_worker() -> None:
    ledger = StudyLedger("s", a_plan())
    first = Worker(ledger, "w1", "a")
    first.step()
    again = Worker(ledger, "w1", "b", expected=True)
    assert again.step()["leases"][0][:2] == [0, 2]
    assert first.step(first.results())["status"] == "gone"
    assert again.step(again.results())["status"] == "ok"


def test_retries_are_for_exceptions_and_not_for_time_outs() -> None:
    ledger = StudyLedger("s", a_plan(trials=2, retries=2, timeout_s=1.0))
    worker = Worker(ledger)
    worker.step()
    attempts = []
    for _ in range(3):
        attempts.append(worker.leases[0][:2])
        worker.step(worker.results("failed", None))
    assert attempts == [[0, 1], [0, 2], [0, 3]]
    assert ledger.book.trials[0].state == FAILED
    assert ledger.book.trials[0].error == "broken"
    worker.step(worker.results("timed_out", None))
    assert ledger.book.trials[1].state == TIMED_OUT
    assert ledger.state == "DONE"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_a_value_that_is_no_finite_number_fails_the_trial(value: Any) -> None:
    book = TrialBook(a_plan(mode="max"))
    (trial,) = book.lease("w", workers=1)
    book.settle("w", Result(trial.id, 1, "completed", value, 0.1, None), node=None, now_s=1.0)
    assert trial.state == FAILED
    assert book.best is None


def test_of_equal_values_the_earliest_trial_is_best_whatever_the_order() -> None:
    for order in ([0, 1], [1, 0]):
        book = TrialBook(a_plan())
        for _ in range(2):
            book.lease("w", workers=1)
        for number in order:
            book.settle("w", Result(number, 1, "completed", 2.0, 0.1, None), node=None, now_s=1.0)
        assert book.best is not None
        assert book.best.id == 0


def test_an_objective_that_workers_cannot_open_fails_the_study_before_any_trial() -> None:
    ledger = StudyLedger("s", a_plan())
    assert Worker(ledger).step(wanted=False, load_error="ModuleNotFoundError: no module named x")["status"] == "gone"
    assert ledger.state == "FAILED"
    assert "cannot be loaded on a worker: ModuleNotFoundError" in str(ledger.error)


def test_a_strategy_that_raises_says_so() -> None:
    ledger = StudyLedger("s", a_plan(trials=30, strategy={"name": "grid", "points": 2}))
    assert ledger.book.goal == 4  # 2 x 2 points: no more trials than the grid has
    with pytest.raises(ValueError, match="budget"):
        TrialBook(a_plan(strategy="tests.unit.tuning.rules.test_ledger:Raising"))


class Raising:
    def __init__(self, space: Any, *, seed: int) -> None:
        raise ValueError("strategy: no budget")

    def next_params(self) -> dict[str, Any]:
        return {}


def test_early_stopping_rides_on_replies_and_is_written_with_what_it_saw() -> None:
    ledger = StudyLedger("s", a_plan(trials=8, early_stopping={"name": "asha", "reduction": 2}))
    workers = [Worker(ledger, f"w{n}") for n in range(3)]
    for worker in workers:
        worker.step()
    verdicts = []
    for worker, value in zip(workers, [1.0, 5.0, 9.0], strict=True):
        trial, attempt, _ = worker.leases[0]
        verdicts.append(worker.step(wanted=False, reports=[[trial, attempt, 1, value]])["stop"])
    assert verdicts == [[], [1], [2]]
    written = ledger.take_changes().reports
    assert [(*judged.report[2:], judged.stop) for judged in written] == [(1, 1.0, False), (1, 5.0, True), (1, 9.0, True)]
    assert [judged.report.trial for judged in written] == [0, 1, 2]
    assert written[1].seen.startswith("rung 1: 5 is beyond 1")
    workers[1].step([[1, 1, "stopped", 5.0, 0.1, None]])
    assert ledger.book.trials[1].state == PRUNED
    assert ledger.book.best is None  # a trial that was cut short is never the best
    # The same reports give the same verdicts to a successor.
    replayed = StudyLedger("s", ledger.plan, reports=written)
    expected = deepcopy(ledger._rule.__dict__)
    assert replayed._rule.__dict__ == expected
    assert replayed._stop == {(1, 1), (2, 1)}


def test_the_median_is_that_of_completed_trials_whatever_failed_ones_had_reported() -> None:
    ledger = StudyLedger("s", a_plan(early_stopping={"name": "median", "min_trials": 1}))
    worker = Worker(ledger)
    worker.step()
    for outcome, value in (("failed", 0.1), ("completed", 5.0)):
        trial, attempt, _ = worker.leases[0]
        assert worker.step(reports=[[trial, attempt, 1, value]], wanted=False)["stop"] == []
        worker.step(worker.results(outcome, value, seconds=1.0))
    trial, attempt, _ = worker.leases[0]
    assert worker.step(reports=[[trial, attempt, 1, 4.0]], wanted=False)["stop"] == []


def test_reports_of_what_a_worker_does_not_hold_are_dropped() -> None:
    ledger = StudyLedger("s", a_plan(early_stopping="asha"))
    worker = Worker(ledger)
    worker.step()
    worker.step(wanted=False, reports=[[5, 1, 1, 1.0], [0, 2, 1, 1.0]])
    assert ledger.take_changes().reports == []


def test_a_stopped_study_can_be_taken_up_again_where_it_stood() -> None:
    ledger, store = StudyLedger("s", a_plan()), Memory()
    worker = Worker(ledger)
    worker.step()
    worker.step(worker.results())
    ledger.stop()
    store.write(ledger)
    assert worker.step(worker.results())["status"] == "gone"
    assert ledger.summary()["counts"]["CANCELLED"] == 4
    taken_up = store.load(a_plan(trials=12))
    assert taken_up.book.done == 1
    other = Worker(taken_up, "w2")
    assert other.step()["leases"][0][:2] == [1, 2]
    assert taken_up.book.unleased == 10


def test_how_many_workers_are_missing() -> None:
    ledger = StudyLedger("s", a_plan(trials=3))
    assert ledger.missing_workers(8) == 3
    workers = [Worker(ledger, f"w{n}") for n in range(3)]
    assert ledger.missing_workers(8) == 0  # they are on their way
    for worker in workers:
        worker.step()
    assert ledger.missing_workers(8) == 0
    ledger.lost("w1", None, wall_s=1.0)
    assert ledger.missing_workers(8) == 1
    assert ledger.missing_workers(2) == 0


def test_a_worker_that_cannot_start_again_and_again_fails_the_study() -> None:
    ledger = StudyLedger("s", a_plan())
    for n in range(3):
        assert ledger.state == "RUNNING"
        ledger.expect(f"w{n}", 0.0)
        ledger.lost(f"w{n}", "RuntimeEnvSetupError: no such wheel", wall_s=1.0)
    assert ledger.state == "FAILED"
    assert "no such wheel" in str(ledger.error)


def test_a_node_without_the_objectives_packages_does_not_fail_a_study_that_goes_on_elsewhere() -> None:
    ledger = StudyLedger("s", a_plan(trials=50))
    good = Worker(ledger, "good")
    good.step()
    for n in range(2):
        good.step(good.results())
        Worker(ledger, f"bad{n}").step(wanted=False, load_error="ModuleNotFoundError")
        Worker(ledger, f"worse{n}").step(wanted=False, load_error="ModuleNotFoundError")
    assert ledger.state == "RUNNING"


def test_a_worker_that_says_nothing_is_named() -> None:
    ledger = StudyLedger("s", a_plan())
    ledger.expect("not begun", 0.0)
    Worker(ledger, "heard").step(now_s=50.0)
    Worker(ledger, "silent").step(now_s=10.0)
    assert ledger.silent(before_s=40.0) == ["silent"]


class Memory:
    """A store in memory: keeps what a ledger hands out, and nothing else."""

    def __init__(self) -> None:
        self.trials: dict[int, Entry] = {}
        self.sessions: dict[str, tuple[Session, list[Entry]]] = {}
        self.reports: list[JudgedReport] = []

    def write(self, ledger: StudyLedger) -> None:
        changes = ledger.take_changes()
        self.trials.update({trial.id: deepcopy(trial) for trial in changes.trials})
        for session in changes.sessions:
            self.sessions[session.key] = deepcopy((session, [ledger.book.trials[trial] for trial, _ in session.leases]))
        for key in changes.gone:
            self.sessions.pop(key, None)
        self.reports += changes.reports

    def load(self, plan: Plan) -> StudyLedger:
        trials = dict(self.trials)
        for _, held in self.sessions.values():
            trials.update({trial.id: trial for trial in held})
        sessions = [session for session, _ in self.sessions.values()]
        return deepcopy(StudyLedger("s", plan, trials=trials.values(), sessions=sessions, reports=self.reports))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_dies_no_acknowledged_result_is_lost_and_none_is_run_again(  # noqa: C901, PLR0912  a state machine
    data: st.DataObject,
) -> None:
    """Random interleavings of steps, lost replies, repeated steps, dead workers and restarts of the tuner."""
    plan = a_plan(trials=data.draw(st.integers(1, 30)), retries=1, seed=data.draw(st.integers(0, 99)))
    ledger, store = StudyLedger("s", plan), Memory()
    workers: dict[str, Worker] = {}
    acknowledged: dict[int, float] = {}
    made = 0
    for _ in range(400):
        if ledger.state != "RUNNING":
            break
        while ledger.missing_workers(3):
            made += 1
            workers[f"w{made}"] = Worker(ledger, f"w{made}", f"i{made}")
        key = data.draw(st.sampled_from(sorted(workers)))
        worker = workers[key]
        event = data.draw(st.sampled_from(["step", "step", "step", "step", "twice", "die", "restart", "rerun"]))
        if event in {"step", "twice"}:
            done = data.draw(st.integers(0, len(worker.leases)))  # the rest it still runs
            results = [
                [trial, attempt, *data.draw(st.sampled_from([("completed", 1.0 + trial), ("failed", None)])), 1e-4, None]
                for trial, attempt, _ in worker.leases[:done]
            ]
            holding = len(worker.leases) - done
            for trial, _, _, _, _, _ in results:
                assert trial not in acknowledged, "run again after it was acknowledged"
            reply = worker.step(results, holding=holding)
            store.write(ledger)  # the commit, then the reply
            if event == "twice":
                assert worker.step(results, holding=holding, again=True) == reply
                store.write(ledger)
            if reply["status"] == "ok":
                acknowledged |= {result[0]: result[3] for result in results if result[2] == "completed"}
            if reply["status"] == "gone":
                workers.pop(key)
        elif event == "die":
            ledger.lost(key, None, wall_s=1.0)
            store.write(ledger)
            workers.pop(key)
        elif event == "rerun":
            workers[key] = Worker(ledger, key, f"{worker.incarnation}+", expected=True)
        else:
            unwritten = [k for k in workers if k not in store.sessions]
            ledger = store.load(plan)
            for lost in unwritten:
                workers.pop(lost)
            for left in workers.values():
                left.ledger = ledger
    kept = {trial.id: trial for trial in ledger.book.trials.values()}
    for trial, value in acknowledged.items():
        assert (kept[trial].state, kept[trial].value) == (COMPLETED, value)
    if ledger.state == "DONE":
        assert sorted(kept) == list(range(plan.trials))
        assert all(trial.state in FINAL for trial in kept.values())
    else:
        assert all(trial.state in {*FINAL, PENDING, "RUNNING"} for trial in kept.values())
    reference = RandomSearchTuner(SPACE, seed=plan.seed)
    assert all(json.loads(trial.params) == reference.params_of(trial.id) for trial in kept.values())

"""The worker's loop against a tuner that is played: what it says again, what it gives up, when it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from actors.cluster.peers import PeerUnavailableError
from actors.tuning.worker import Worker


class Played:
    """A tuner with three trials, that fails to answer as often as the test says."""

    def __init__(
        self,
        objective: Callable[..., Any],
        *,
        trials: int = 3,
        lost_answers: int = 0,
        stop_at_reports: bool = False,
        ahead: bool = False,
        mark: str | None = None,
    ) -> None:
        self.objective = objective
        self.left = list(range(trials))
        self.lost_answers = lost_answers
        self.stop_at_reports = stop_at_reports
        self.ahead = ahead
        self.mark = mark  # the path of a file per trial that the worker had in hand when it asked for the next
        self.leased = -1
        self.heard: list[dict[str, Any]] = []
        self.values: dict[int, Any] = {}
        self.answers: dict[int, dict[str, Any]] = {}

    def call(self, name: str, method: str, arguments: dict[str, Any], *, timeout_s: float) -> Any:
        assert name == "tuner"
        if method == "objective":
            shipped = self.objective if isinstance(self.objective, bytes) else b"pkl:" + cloudpickle.dumps(self.objective)
            return {
                "objective": shipped,
                "executor": "inline",
                "seed": 1,
                "context": None,
                "timeout_s": None,
                "resources": None,
            }
        self.heard.append(arguments)
        answer = self.answers.setdefault(arguments["sequence"], self._answer(arguments))
        if self.lost_answers:
            self.lost_answers -= 1
            raise PeerUnavailableError("lost")
        return answer

    def _answer(self, said: dict[str, Any]) -> dict[str, Any]:
        if said["sequence"] in self.answers:
            return self.answers[said["sequence"]]
        for trial, _, _, value, _, error in said.get("results", ()):
            self.values[trial] = value if error is None else error.splitlines()[0]
        if said.get("load_error") or said.get("leaving"):
            return {"status": "gone"}
        if self.mark and said.get("holding"):
            Path(f"{self.mark}-{self.leased}").touch()
        leases: list[list[Any]] = [[self.left.pop(0), 1, '{"x": 2}']] if said.get("wanted") and self.left else []
        if said.get("wanted") and not leases and not said.get("holding"):
            return {"status": "gone"}
        self.leased = leases[0][0] if leases else self.leased
        stop = [0] if self.stop_at_reports and said["reports"] else []
        return {"status": "ok", "leases": leases, "ahead": self.ahead, "stop": stop}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tuning.worker.time.sleep", lambda _: None)


def run(played: Played, **settings: Any) -> None:
    Worker(played, study="s", key="k", node="n", **settings).run()


def test_it_runs_what_it_is_given_until_it_is_not_wanted() -> None:
    played = Played(lambda params, trial: params["x"] + trial.id)
    run(played)
    assert played.values == {0: 2.0, 1: 3.0, 2: 4.0}
    assert [said["sequence"] for said in played.heard] == [1, 2, 3, 4]
    assert len({said["incarnation"] for said in played.heard}) == 1


def test_where_it_may_it_asks_for_the_next_while_it_runs_some(tmp_path: Path) -> None:
    asked = str(tmp_path / "asked")

    def objective(_params: dict[str, Any], trial: Any) -> float:
        import os
        import select

        while not os.path.exists(f"{asked}-{trial.id}"):  # noqa: PTH110  the tuner hears of the step that says: holding this one
            select.select([], [], [], 0.002)
        return float(trial.id)

    played = Played(objective, ahead=True, mark=asked)
    run(played)
    assert played.values == {0: 0.0, 1: 1.0, 2: 2.0}
    assert [(said.get("holding"), [result[0] for result in said.get("results", ())]) for said in played.heard] == [
        (None, []),
        (1, []),
        (1, [0]),
        (1, [1]),
        (None, [2]),
    ]


def test_a_step_without_an_answer_is_said_again_with_the_same_number() -> None:
    played = Played(lambda params: 1.0, lost_answers=2)
    run(played)
    assert [said["sequence"] for said in played.heard] == [1, 1, 1, 2, 3, 4]
    assert played.heard[0] == played.heard[1] == played.heard[2]
    assert played.values == {0: 1.0, 1: 1.0, 2: 1.0}


def test_a_tuner_that_never_answers_is_given_up_in_the_end() -> None:
    played = Played(lambda params: 1.0, lost_answers=10**9)
    run(played, patience_s=0.05)
    assert played.values == {}


def test_an_objective_that_cannot_be_opened_is_said_at_once() -> None:
    played = Played(b"ref:no_such_module:f")  # type: ignore[arg-type]
    run(played)
    assert "No module named 'no_such_module'" in played.heard[0]["load_error"]
    assert len(played.heard) == 1


def test_an_objective_that_raises_costs_its_trial() -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id == 1:
            raise RuntimeError("one")
        return 1.0

    played = Played(objective)
    run(played)
    assert played.values == {0: 1.0, 1: "RuntimeError: one", 2: 1.0}


def test_reports_reach_the_tuner_while_the_trial_runs_and_its_verdict_comes_back() -> None:
    def objective(_params: dict[str, Any], trial: Any) -> float:
        import select

        step = 0
        while trial.report(step, float(step)):
            step += 1
            select.select([], [], [], 0.002)
        return float(step)

    played = Played(objective, trials=1, stop_at_reports=True)
    run(played)
    assert played.values[0] > 0
    reports = [report for said in played.heard for report in said["reports"]]
    assert reports[0] == [0, 1, 0, 0.0]
    assert [report[2] for report in reports] == list(range(len(reports)))

"""Tuning inside a whole system: after a retrain order, and from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.system import System
from drivers import tune
from tests.known import some
from tests.speed import slow

SPACE = {"x": [0.0, 1.0]}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + slow(seconds)
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def test_a_retrain_order_runs_a_study_and_hands_its_best_parameters_on(start: Callable[..., System]) -> None:
    handler: dict[str, Any] = {
        "kind": "tune",
        "objective": "drivers.objectives:branin",
        "space": {"x": [-5, 10], "y": [0, 15]},
        "trials": 30,
        "seed": 1,
        "current": {"x": 0.0, "y": 0.0},
        "min_improvement": 1.0,
    }
    system = start(models={"tuned": {"handler": handler, "cooldown": "1s"}})
    system.retrains.trigger("tuned", reason="try")
    order = next(iter(system.retrains.stream(model="tuned", timeout_s=slow(60))))
    order.done(new_version="v2")
    found: Any = order.event.explanation["tuning"]
    assert found["name"] == order.event.id
    study = system.tuner.study(order.event.id)
    assert study.state == "DONE"
    assert study.trials[0].params == {"x": 0.0, "y": 0.0} == found["current_params"]
    best, current = some(study.best), some(study.trials[0].value)
    assert (best.id, best.params, some(best.value)) == (found["trial"], found["params"], found["value"])
    assert found["improvement"] == pytest.approx(current - some(best.value))
    # The next order starts from what this one found, and random search will hardly improve on it by so much again.
    time.sleep(1.1)
    system.retrains.trigger("tuned", reason="again")

    def settled() -> Any:
        rows = [row for row in system.retrains.history(model="tuned") if row["id"] != order.event.id]
        return rows and rows[-1]["state"] in {"done", "failed", "dead"} and rows[-1]

    second = wait_for(settled, "the second order is not settled")
    assert second["state"] == "done"
    assert "less than min_improvement 1: they stay" in second["reason"]
    assert system.tuner.study(second["id"]).trials[0].params == found["params"]


def objective(params: dict[str, float]) -> float:
    return (params["x"] - 0.25) ** 2


def test_the_command_line_runs_lists_shows_stops_and_reads_studies(
    shared_system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def visutility_tune(*arguments: str, code: int = 0) -> Any:
        found = tune.main([*arguments, "--namespace", shared_system.namespace, "-o", "json"])
        printed = capsys.readouterr().out
        assert found == code, printed
        return json.loads(printed)

    (tmp_path / "objective_of_mine.py").write_text("def f(params):\n    return (params['x'] - K) ** 2\n\nK = 0.25\n")
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = visutility_tune(
        "objective_of_mine:f", "--space", "space.json", "--trials", "30", "--name", "cli", "--seed", "1", "--csv", "t.csv"
    )
    assert (ran["state"], ran["done"]) == ("DONE", 30)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 31
    assert "cli" in [study["name"] for study in visutility_tune("--list")]
    shown = visutility_tune("--show", "cli")
    assert shown["best_value"] == ran["best_value"] < 0.01
    assert visutility_tune("--stop", "cli")["state"] == "DONE"
    assert visutility_tune("--watch", "cli")["done"] == 30
    longer = visutility_tune("objective_of_mine:f", "--space", "space.json", "--trials", "40", "--name", "cli", "--no-wait")
    assert longer["trials"][:30] == ran["trials"]
    assert visutility_tune("--watch", "cli")["done"] == 40
    for wrong, rule in (
        (["objective_of_mine:g", "--space", "space.json", "--trials", "3"], "cannot be imported"),
        (["objective_of_mine:f", "--space", "nowhere.json", "--trials", "3"], "there is no such file"),
        (["objective_of_mine:f", "--space", "{", "--trials", "3"], "must be JSON"),
        (["objective_of_mine:f", "--space", "space.json", "--trials", "0"], "trials must be"),
        (
            ["objective_of_mine:f", "--space", "space.json", "--trials", "40", "--name", "cli", "--mode", "max"],
            "mode of the study",
        ),
        (["objective_of_mine:f"], "required: --space"),
        (["--show", "nobody"], "got 'nobody'"),
    ):
        assert rule in visutility_tune(*wrong, code=2)["error"]
    assert visutility_tune("objective_of_mine:f", "--space", '{"y": [0, 1]}', "--trials", "2", code=1)["counts"]["FAILED"] == 2

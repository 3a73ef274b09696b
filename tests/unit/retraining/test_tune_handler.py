"""The `tune` handler between the dispatcher and the tuner, both played here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors import config
from actors.cluster.peers import PeerUnavailableError
from actors.retraining import handlers
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.rules.delivery import Done, Failed, HandOn, Launched, Retry, Stop
from actors.retraining.rules.orders import RUNNING, Order, Request

DOCUMENT = {
    "kind": "tune",
    "objective": "train:objective",
    "space": {"x": [0, 1]},
    "trials": 5,
    "mode": "max",
    "seed": 3,
    "then": {"kind": "task", "target": "train:retrain"},
}


class Played:
    """The dispatcher and the tuner."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.in_force: dict[str, Any] | None = None  # what the record of orders says
        self.state = "RUNNING"
        self.values: list[float] = [0.5, 0.7, 0.6]
        self.problem: Exception | dict[str, Any] | None = None

    async def parameters_in_force(self, model: str, names: Collection[str], /) -> dict[str, Any] | None:
        assert (model, set(names)) == ("fraud", {"x"})
        return self.in_force

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        if isinstance(self.problem, Exception) and name == "tuner":
            raise self.problem
        if isinstance(self.problem, dict) and name == "tuner":
            return self.problem
        match (name, method):
            case ("tuner", "submit"):
                if any(first["x"] > 1 for first in arguments["plan"]["first"]):
                    raise ValueError("first[0]['x'] must be a number from 0 to 1")
                self.submitted.append(arguments["plan"] | {"objective": arguments["objective"]})
                return {"status": "submitted"}
            case ("tuner", "study"):
                if not self.submitted:
                    raise KeyError("no study")
                best = max(range(len(self.values)), key=self.values.__getitem__) if self.values else None
                return {
                    "study": "s-1",
                    "state": self.state,
                    "best": best,
                    "done": 3,
                    "mode": "max",
                    "error": "broken",
                    "first": len(self.submitted[0]["first"]),
                }
            case ("tuner", "trials"):
                since = arguments.get("since", 0)
                rows = [{"id": n, "params": {"x": n / 10}, "value": v, "state": "COMPLETED"} for n, v in enumerate(self.values)]
                return rows[since : since + arguments["limit"]]
        raise AssertionError(f"{name}.{method}")


ORDER = Order(
    id="order-1",
    request=Request("fraud", "7", "recall", 4.0, 1.0, "e-1", {"n": 1}),
    state=RUNNING,
    reason="",
    handler="tune",
    handler_settings={},
    requested_at=1.0,
    attempts=1,
)


def run(played: Played, method: str, **changes: Any) -> Any:
    settings = config.parse({"defaults": {"handler": DOCUMENT | changes}}, "test").defaults.handler
    with ThreadPoolExecutor(1) as threads:
        handler = handlers.create(settings, Surroundings("ns", played, {}, threads, played.parameters_in_force))
        return asyncio.run(getattr(handler, method)(ORDER))


def test_the_study_is_named_by_the_order_and_its_objective_sees_the_order() -> None:
    played = Played()
    assert run(played, "launch") == Launched()
    (asked,) = played.submitted
    assert (asked["name"], asked["objective"], asked["trials"], asked["seed"]) == ("order-1", "train:objective", 5, 3)
    assert asked["context"]["episode"] == "e-1"
    assert asked["first"] == []
    assert run(played, "follow") == Launched()


def test_the_parameters_in_force_are_those_of_the_last_completed_order_else_the_configured() -> None:
    played = Played()
    run(played, "launch", current={"x": 0.1})
    played.in_force = {"x": 0.3}
    run(played, "launch", current={"x": 0.1})
    assert [asked["first"] for asked in played.submitted] == [[{"x": 0.1}], [{"x": 0.3}]]


def test_parameters_in_force_that_the_space_does_not_hold_any_more_give_way_to_the_configured() -> None:
    played = Played()
    played.in_force = {"x": 3.0}
    assert run(played, "launch", current={"x": 0.1}) == Launched()
    assert [asked["first"] for asked in played.submitted] == [[{"x": 0.1}]]
    assert isinstance(run(played, "launch", current={"x": 2.0}), Stop)


def test_the_best_parameters_are_handed_on_with_what_they_improve() -> None:
    played = Played()
    run(played, "launch", current={"x": 0.1}, min_improvement=0.1)
    played.state = "DONE"
    outcome = run(played, "follow", min_improvement=0.1)
    assert isinstance(outcome, HandOn)
    assert outcome.handler == "task"
    assert config.read_handler(outcome.handler_settings).kind == "task"
    assert outcome.tuning["params"] == {"x": 0.1}
    assert (outcome.tuning["value"], outcome.tuning["trial"], outcome.tuning["study"]) == (0.7, 1, "s-1")
    assert outcome.tuning["improvement"] == pytest.approx(0.2)


def test_too_small_an_improvement_hands_nothing_on_and_says_why() -> None:
    played = Played()
    run(played, "launch", current={"x": 0.1}, min_improvement=0.3)
    played.state = "DONE"
    outcome = run(played, "follow", min_improvement=0.3)
    assert isinstance(outcome, Done)
    assert outcome.new_version is None
    assert "improves on 0.5 of those in force by 0.2, less than min_improvement 0.3" in outcome.reason


def test_without_parameters_in_force_there_is_nothing_to_compare() -> None:
    played = Played()
    run(played, "launch", min_improvement=0.3)
    played.state = "DONE"
    assert isinstance(run(played, "follow", min_improvement=0.3), HandOn)


def test_a_study_that_failed_was_stopped_or_found_nothing_fails_the_order() -> None:
    played = Played()
    run(played, "launch")
    for state, values, reason in (
        ("FAILED", [], "failed: broken"),
        ("STOPPED", [0.5], "stopped"),
        ("DONE", [], "none of its 3"),
    ):
        played.state, played.values = state, list(values)
        outcome = run(played, "follow")
        assert isinstance(outcome, Failed)
        assert reason in outcome.reason


def test_a_tuner_that_does_not_answer_is_asked_again_and_a_wrong_study_is_given_up() -> None:
    played = Played()
    assert run(played, "follow") == Retry("the study never started", after_s=0)
    played.problem = PeerUnavailableError("away")
    assert isinstance(run(played, "launch"), Retry)
    assert run(played, "follow") == Launched()
    played.problem = {"status": "unavailable", "reason": "disk full"}
    assert isinstance(run(played, "launch"), Retry)
    assert run(played, "follow") == Launched()
    played.problem = ValueError("space['x']: min must be below max")
    assert isinstance(run(played, "launch"), Stop)

"""What a registry promises: whichever process stops or moves first, the alias and the live version agree in the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors import config, failpoints
from actors.config.registry import MlflowRegistrySettings
from actors.detection.rules.versions import Decision, Versions
from actors.errors import NotConnectedError
from actors.failpoints import FailpointError
from actors.http_json import HttpError
from actors.replies import Ingested
from actors.retraining import handlers
from actors.retraining.handlers import mlflow_alias
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Outcome, Retry, Stop
from actors.retraining.rules.orders import Order, Request
from actors.sources import kinds, mlflow_registry
from actors.sources.feed import Feed
from actors.sources.registry_rules import Decided
from actors.sources.state import SourcesState
from actors.storage import Store
from actors.storage.sources import SOURCES, SourceShown, read_sources

REGISTRY = config.load(
    {"registry": {"mlflow": {"url": "http://m", "models": {"churn-there": "churn"}, "promise": "val", "promise_n": "rows"}}}
).registry.mlflow


class Mlflow:
    """Pretends to be MLflow's API, as far as it is asked."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, Any]] = {}
        self.alias: str | None = None
        self.runs: dict[str, dict[str, Any]] = {}
        self.fails: HttpError | None = None
        self.is_gone = False
        self.sets: list[str] = []

    def add(self, *, value: float | None = None) -> str:
        version = str(len(self.versions) + 1)
        self.versions[version] = {"version": version, "run_id": f"run{version}", "tags": []}
        data = [] if value is None else [{"key": "val", "value": value}]
        self.runs[f"run{version}"] = {"run": {"data": {"metrics": data, "params": [{"key": "rows", "value": "300"}]}}}
        return version

    def get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        if self.fails is not None:
            raise self.fails
        if path.endswith("registered-models/get"):
            if self.is_gone or query["name"] != "churn-there":
                raise HttpError("answered 404", 404)
            aliases = [] if self.alias is None else [{"alias": "champion", "version": self.alias}]
            return {"registered_model": {"name": "churn-there", "aliases": aliases}}
        if path.endswith("runs/get"):
            return self.runs[query["run_id"]]
        return {"model_versions": list(reversed(self.versions.values()))}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.fails is not None:
            raise self.fails
        if body["version"] not in self.versions:
            raise HttpError("answered 404", 404)
        self.alias = body["version"]
        self.sets.append(body["version"])
        return {}


class System:
    """Plays the detector, which decides, and the dispatcher, which carries the decisions out in their order."""

    def __init__(self, registry: Mlflow) -> None:
        self.versions = Versions(gate="registry")
        self.promises: dict[str, dict[str, Any]] = {}
        self.decided: list[tuple[Decision, str]] = []
        self.is_down = False
        self.clock = itertools.count(1)
        self.registry = registry

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        if self.is_down:
            raise NotConnectedError("down")
        version = arguments["version"]
        if method == "promise":
            self.promises[version] = arguments
            return {"status": "recorded"}
        assert method == "announce"
        self.versions.announced(version, at=float(next(self.clock)))
        if arguments["live"]:
            self.keep(self.versions.follow(version, at=float(next(self.clock))))
        return {"status": "recorded"}

    def keep(self, decisions: list[Decision]) -> None:
        self.decided += [(each, orders.PENDING) for each in decisions if each.kind in {"promoted", "rolled back"}]

    def promote(self, version: str) -> None:
        self.keep([self.versions.promote(version, at=float(next(self.clock)))])

    def rollback(self) -> None:
        self.keep([self.versions.rollback(at=float(next(self.clock)))])

    def decisions(self, _model: str) -> list[Decided]:
        return [
            Decided(n, each.version, state == orders.PENDING, state == "set") for n, (each, state) in enumerate(self.decided, 1)
        ]

    def deliver(self, *, forgets: bool = False) -> Outcome | None:
        """Carry out the first decision that is due; `forgets`: the process ends before the outcome is on record."""
        due = next((n for n, (_, state) in enumerate(self.decided) if state == orders.PENDING), None)
        if due is None:
            return None
        decision, _ = self.decided[due]
        outcome = launched(decision.version, decision.over)
        if not forgets and isinstance(outcome, Done):
            self.decided[due] = decision, "left" if outcome.new_version is None else "set"
        return outcome

    def send(self, batches: list[Any]) -> list[Ingested] | None:
        raise AssertionError("a registry has no events")

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        return []

    def reply(self, ticket: Any) -> list[Ingested] | None:
        return None

    def schema(self) -> int | None:
        return None


def launched(version: str, over: str | None, cause: orders.Cause = "promoted") -> Outcome:
    assert REGISTRY is not None
    said = REGISTRY.sets_alias("churn")
    assert said is not None
    order = Order(
        "o", Request("churn", version, "", None, 0.0, "", {"over": over}, cause=cause), orders.RUNNING, "", "", {}, 0.0
    )
    with ThreadPoolExecutor(1) as threads:
        around = Surroundings("ns", cast("Any", None), {}, threads, cast("Any", None))
        return asyncio.run(handlers.create(said, around).launch(order))


class World:
    """A registry, a system, and the process between them, which can be begun anew."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.mlflow = Mlflow()
        patch.setattr(mlflow_registry, "Http", lambda *_, **__: self.mlflow)
        patch.setattr(mlflow_alias, "Http", lambda *_, **__: self.mlflow)
        self.system = System(self.mlflow)
        self.folder = folder
        self.store: Store | None = None

    def begin(self, said: MlflowRegistrySettings | None = REGISTRY) -> None:
        assert said is not None
        if self.store is not None:
            self.store.close()
        self.store = Store(f"sqlite:///{self.folder}/store")
        self.feed = Feed(
            "it", cast("Any", said), SourcesState(self.store), self.system,
            lambda chosen: kinds.make(chosen, decisions=self.system.decisions),
        )  # fmt: skip

    def look(self, most: int = 20) -> float:
        for _ in range(most):
            pause_s = self.feed.step(0.0)
            if pause_s > 0.0:
                break
        return pause_s

    def settle(self) -> None:
        for _ in range(6):
            while self.system.deliver() is not None:
                pass
            self.look()

    def shown(self) -> SourceShown:
        assert self.store is not None
        with self.store.part(SOURCES).read() as connection:
            return read_sources(connection)["it"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    made.begin()
    yield made
    assert made.store is not None
    made.store.close()


def states(world: World) -> dict[str, str]:
    return {row["version"]: row["state"] for row in world.system.versions.rows()}


def test_a_new_version_there_is_one_here_with_its_hold_out_promise_and_the_alias_says_which_is_live(world: World) -> None:
    for value in (0.7, 0.8, None):
        world.mlflow.add(value=value)
    world.mlflow.alias = "2"
    world.look()
    assert states(world) == {"2": "live", "3": "registered"}  # what was before the alias is history
    (promise,) = world.system.promises.values()
    assert (promise["version"], promise["values"], promise["n"]) == ("2", {"accuracy": 0.8}, 300.0)
    assert promise["source"] == "hold_out"
    world.mlflow.add(value=0.9)
    world.mlflow.alias = "4"
    world.look()
    assert world.system.versions.live == "4"
    assert world.system.promises["4"]["values"] == {"accuracy": 0.9}


def test_a_tag_of_the_version_goes_before_the_metric_of_its_run(world: World) -> None:
    world.mlflow.versions[world.mlflow.add(value=0.7)]["tags"] = [
        {"key": "val", "value": "0.75"},
        {"key": "rows", "value": "9"},
    ]
    world.look()
    assert world.system.promises["1"]["values"] == {"accuracy": 0.75}
    assert world.system.promises["1"]["n"] == 9.0


def test_a_promotion_and_a_rollback_here_move_the_alias_and_are_not_announced_back(world: World) -> None:
    world.mlflow.add(), world.mlflow.add()
    world.mlflow.alias = "1"
    world.look()
    world.system.promote("2")
    world.settle()
    assert world.mlflow.alias == "2"
    world.system.rollback()
    world.settle()
    assert (world.mlflow.alias, world.system.versions.live) == ("1", "1")
    assert [each.kind for each, _ in world.system.decided] == ["promoted", "rolled back"]


def test_a_rollback_that_follows_at_once_is_not_undone_by_the_alias_that_is_still_on_its_way(world: World) -> None:
    world.mlflow.add(), world.mlflow.add()
    world.mlflow.alias = "1"
    world.look()
    world.system.promote("2")
    world.look()  # the decision is on record, its alias not set yet
    world.system.deliver()
    world.system.rollback()
    world.look()  # sees the alias at 2, which this system has put there, after the rollback was decided
    world.settle()
    assert (world.mlflow.alias, world.system.versions.live) == ("1", "1")


def test_an_alias_that_somebody_has_moved_since_the_decision_is_left_there_and_followed(world: World) -> None:
    for _ in range(3):
        world.mlflow.add()
    world.mlflow.alias = "1"
    world.look()
    world.system.promote("2")
    world.mlflow.alias = "3"
    outcome = world.system.deliver()
    assert isinstance(outcome, Done)
    assert "moved to 3 since the decision" in outcome.reason
    world.settle()
    assert (world.mlflow.alias, world.system.versions.live) == ("3", "3")


def test_an_alias_that_points_to_nothing_and_a_model_that_is_gone_are_told_and_mended(world: World) -> None:
    world.mlflow.add()
    world.look()
    assert world.shown()["problem"] == "churn: the alias champion of churn-there points to nothing"
    world.mlflow.alias = "1"
    world.look()
    assert (world.shown()["state"], world.shown()["problem"]) == ("ok", None)
    world.mlflow.is_gone = True
    world.look()
    assert world.shown()["problem"] == "churn: there is no registered model churn-there"
    world.mlflow.is_gone = False
    world.look()
    assert world.shown()["problem"] is None
    assert world.system.versions.live == "1"


def test_a_token_that_is_wrong_shows_as_failing_and_ends_a_decision_with_the_reason(world: World) -> None:
    world.mlflow.add()
    world.mlflow.alias = "1"
    world.mlflow.fails = HttpError("http://m/api answered 401: who are you", 401, "who are you")
    assert world.look() > 0.0
    assert world.shown()["state"] == "failing"
    assert "401" in str(world.shown()["problem"])
    assert isinstance(launched("1", None), Stop)
    world.mlflow.fails = HttpError("http://m/api cannot be reached")
    outcome = launched("1", None)
    assert isinstance(outcome, Retry)
    assert outcome.silent


def test_a_retrain_is_not_carried_out_by_an_alias() -> None:
    assert isinstance(launched("1", None, cause="alarm"), Stop)


def test_a_version_that_the_registry_does_not_hold_is_a_dead_letter_and_the_problem_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(launched("7", None), Stop)
    assert world.mlflow.sets == []
    world.mlflow.alias = world.mlflow.add()
    monkeypatch.setattr(world.system, "decisions", lambda _model: [Decided(1, "7", is_active=False, gave_up="answered 404")])
    world.begin()
    world.look()
    assert world.shown()["problem"] == "churn: champion of churn-there was not moved to 7: answered 404"


@pytest.mark.parametrize("point", ["sources.read", "sources.took", "sources.committed", "sources.sent", "sources.settled"])
def test_a_process_that_ends_between_any_two_steps_announces_each_version_and_follows_the_alias(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    monkeypatch.setattr(failpoints, "_FOLDER", str(points))
    for turn in range(3):
        world.mlflow.alias = world.mlflow.add(value=0.5 + turn / 10)
        failpoints.arm(points, point, "raise")
        with pytest.raises(FailpointError):
            world.look()
        world.begin()
        world.look()
        world.settle()
        assert world.system.versions.live == world.mlflow.alias
    assert sorted(world.system.promises) == ["1", "2", "3"]
    assert [(each.version, each.over) for each, _ in world.system.decided] == [("2", "1"), ("3", "2")]


STEPS = st.lists(
    st.sampled_from(["move 1", "move 2", "move 3", "add", "promote 1", "promote 2", "promote 3", "rollback", "deliver",
                     "deliver and end", "step", "look", "end"]),
    max_size=16,
)  # fmt: skip


@given(steps=STEPS)
@example(steps=["promote 2", "look", "deliver", "rollback", "look"])
@example(steps=["promote 2", "look", "deliver", "move 1"])
@example(steps=["promote 2", "move 3", "deliver and end", "end", "look", "promote 1"])
@settings(max_examples=12, deadline=None)
def test_whoever_moves_what_in_whatever_order_the_alias_and_the_live_version_agree_in_the_end(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("world"), patch)
        world.begin()
        for _ in range(3):
            world.mlflow.add()
        world.mlflow.alias = "1"
        world.look()
        for step in steps:
            act(world, step)
        decided_last = not any(step.startswith("move") for step in steps)
        live = world.system.versions.live
        world.settle()
        assert world.store is not None
        world.store.close()
        assert world.mlflow.alias == world.system.versions.live
        if decided_last:  # nobody but this system has moved anything
            assert world.system.versions.live == live


def act(world: World, step: str) -> None:
    verb, _, version = step.partition(" ")
    if verb == "move":
        world.mlflow.alias = version
    elif verb == "add":
        world.mlflow.add()
    elif verb == "promote" and world.system.versions.live != version and world.system.versions.state_of(version):
        world.system.promote(version)
    elif verb == "rollback" and world.system.versions.memory()["before"]:
        world.system.rollback()
    elif verb == "deliver":
        world.system.deliver(forgets=version == "and end")
    elif verb == "step":
        world.feed.step(0.0)
    elif verb == "look":
        world.look()
    elif verb == "end":
        world.begin()

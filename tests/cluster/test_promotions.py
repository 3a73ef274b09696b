"""Gate, rollback and removal on a real Ray: detector, dispatcher and broadcaster killed -9 between any two steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from actors import failpoints as points
from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.drift import ChallengerTest
from actors.system import System
from tests.cluster.waiting import eventually
from tests.server import Server, reply
from tests.speed import slow

N, GOOD, BETTER = 200, 170, 184
PROMOTED = "io.visutility.version.promoted.v1"
# Where a promotion by the gate is killed, and where the rollback of the same model is.
KILLED = [
    ("detector.before_commit", "dispatcher.after_done"),
    ("detector.after_commit", "dispatcher.before_promotion"),
    ("outbox.before_send", "detector.in_commit"),
    ("dispatcher.after_promotion", "outbox.after_send"),
    ("dispatcher.after_attempt", "detector.after_commit"),
    ("dispatcher.after_effect", "dispatcher.before_attempt"),
]


class Receiver:
    """The receiver of `promotion.handler`: keeps the id of every event by model and type, and how many came again."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], list[str]] = {}
        self.resent = 0
        self.server = Server(self.take)
        self.url = self.server.url

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        event = json.loads(body)
        ids = self.seen.setdefault((event["subject"].split("/")[0], event["type"]), [])
        if event["id"] in ids:
            self.resent += 1
        else:
            ids.append(event["id"])
        reply(request, 200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.stop()


def rounds_until_better() -> int:
    """Return after how many periods the test promotes the better version."""
    test, rounds = ChallengerTest(), 1
    while test.update(hits_a=GOOD, n_a=N, hits_b=BETTER, n_b=N) != "better":
        rounds += 1
    return rounds


def side_by_side(system: System, model: str, rounds: int) -> None:
    """Log periods of the comparison: each event in a batch of its own, for a client sorts a burst by version."""
    for _ in range(rounds):
        for version, hits in (("v1", GOOD), ("v2", BETTER)):
            system.metrics.log({"accuracy": hits / N}, model=model, version=version, n=N)
            eventually(lambda: not system.metrics.flush(timeout_s=slow(20))["pending"], f"what {model} logs is acknowledged")


def live(system: System, model: str) -> str | None:
    try:
        return next((row["version"] for row in system.versions.history(model) if row["state"] == "live"), None)
    except (ConnectionError, PeerUnavailableError):
        return None


def rolled_back(system: System, model: str) -> bool:
    """Say it as a person does: where there was no answer, look first whether it has come through."""
    if (seen := live(system, model)) != "v2":
        return seen == "v1"
    try:
        system.versions.rollback(model)
    except (ConnectionError, PeerUnavailableError):
        return False
    return live(system, model) == "v1"


def strikes(failpoints: Path, point: str) -> None:
    eventually(lambda: not (failpoints / point).exists(), f"{point} strikes")


def test_killed_at_any_step_each_decision_is_carried_out_once_and_the_live_version_is_right(
    start: Callable[..., System], receiver: Receiver, failpoints: Path
) -> None:
    promotion = {"gate": "challenger", "handler": {"kind": "webhook", "url": receiver.url}}
    system = start(
        defaults={"promotion": promotion, "retrain": {"price": 1000}},
        delivery={"backoff": "200ms"},
        detectors={"max_processes": 2},
    )
    decides = rounds_until_better()
    models = [f"m{number}" for number in range(len(KILLED))]

    def is_promoted(model: str) -> bool:
        return live(system, model) == "v2"

    def is_received(model: str) -> bool:
        return (model, PROMOTED) in receiver.seen

    for model in models:
        # The first event of the live version comes before there is a candidate: a period ends with the one after it.
        side_by_side(system, model, decides)
        assert eventually(partial(live, system, model), f"{model} has a live version") == "v1", "undecided yet"
    for model, (promoting, rolling_back) in zip(models, KILLED, strict=True):
        points.arm(failpoints, promoting, "exit")
        side_by_side(system, model, 1)
        strikes(failpoints, promoting)
        eventually(partial(is_promoted, model), f"{model} is promoted")
        eventually(partial(is_received, model), f"the promotion of {model} is received")
        points.arm(failpoints, rolling_back, "exit")
        eventually(partial(rolled_back, system, model), f"{model} is rolled back")
        strikes(failpoints, rolling_back)
    peers = BlockingPeers(system.namespace)

    def all_done() -> list[dict[str, Any]] | None:
        try:
            rows: list[dict[str, Any]] = peers.call("dispatcher", "promotions", {}, timeout_s=slow(10))["rows"]
        except (PeerUnavailableError, KeyError):
            return None
        return rows if len(rows) == 2 * len(KILLED) and all(row["state"] == "done" for row in rows) else None

    rows = eventually(all_done, "every decision is carried out")
    assert [live(system, model) for model in models] == ["v1"] * len(models)
    for model in models:
        mine = [row for row in rows if row["model"] == model]
        assert [(row["cause"], row["version"]) for row in mine] == [("promoted", "v2"), ("rolled_back", "v1")]
        for row in mine:
            assert receiver.seen[model, f"io.visutility.version.{row['cause']}.v1"] == [row["id"]]
    assert receiver.resent >= 1, "a kill after the effect is resent, with the same id"
    assert not [row for row in system.retrains.history() if row["state"] != "skipped"], "no retrain was ordered"


@pytest.mark.parametrize("point", ["removal.noted", "dispatcher.after_forget"])
def test_a_removal_that_was_killed_is_carried_on_by_saying_it_again(
    shared_system: System, failpoints: Path, point: str
) -> None:
    system, model = shared_system, f"gone at {point}"
    system.metrics.log({"accuracy": 0.9}, model=model, version="v1")
    system.metrics.flush(timeout_s=slow(20))
    points.arm(failpoints, point, "exit")
    peers = BlockingPeers(system.namespace)

    def removed() -> bool:
        try:
            reply = peers.call("broadcaster", "remove", {"model": model, "purge": True, "force": True}, timeout_s=slow(10))
        except PeerUnavailableError:
            return False
        return bool(reply["status"] == "removed")

    eventually(removed, "it is removed")
    strikes(failpoints, point)
    assert model not in system.status()["models"]
    system.metrics.log({"accuracy": 0.9}, model=model, version="v1")
    eventually(lambda: not system.metrics.flush(timeout_s=slow(20))["pending"], "it logs again")
    assert system.status()["models"][model]["events"] == 1

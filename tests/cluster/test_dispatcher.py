"""The dispatcher on a real Ray: killed -9 at every boundary, its consumers killed, its drivers run."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import drivers.reference
import drivers.retrains
import drivers.silence
from actors import failpoints as points
from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.system import System
from tests.cluster.waiting import eventually
from tests.known import some
from tests.server import Server, reply
from tests.speed import slow

ROOT = Path(__file__).parents[2]
COOLDOWN_S = 4.0
LAUNCHING = [
    "before_claim",
    "after_claim",
    "before_attempt",
    "after_attempt",
    "before_effect",
    "after_effect",
    "before_done",
    "after_done",
]
HANDING_OVER = ["before_take", "after_take", "before_finish", "after_finish"]


class Receiver:
    """A webhook's receiver: keeps when it saw which order, and whether it had seen it before."""

    def __init__(self) -> None:
        self.launched: dict[str, list[tuple[float, str]]] = {}
        self.resent = 0
        self.server = Server(self.take)
        self.url = self.server.url

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        event = json.loads(body)
        order = event["id"]
        seen = self.launched.setdefault(event["data"]["model_name"], [])
        if order in {id_ for _at, id_ in seen}:
            self.resent += 1
        else:
            seen.append((time.monotonic(), order))
        reply(request, 200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.stop()


def requested(peers: BlockingPeers, model: str, episode: str) -> dict[str, Any]:
    """Ask as a detector's outbox does: again until it is recorded."""
    asked = {
        "episode": episode,
        "model": model,
        "version": "1",
        "metric": "accuracy",
        "observed_drift": 4.0,
        "triggered_at": time.time(),
        "explanation": {"baseline": {"n": 500}},
    }

    def recorded() -> Any:
        try:
            reply = peers.call("dispatcher", "request", asked, timeout_s=slow(10))
        except PeerUnavailableError:
            return None
        return reply if reply["status"] == "recorded" else None

    return dict(eventually(recorded, f"{episode} is recorded"))


def gone(path: Path) -> bool:
    return not path.exists()


def second_order(peers: BlockingPeers, model: str) -> None:
    """Ask for another order until the cooldown lets one through."""
    eventually(lambda: requested(peers, model, f"{model}-2")["decision"] != "skipped", f"the second order of {model}")


def test_killed_at_every_boundary_no_order_is_lost_launched_twice_or_inside_a_cooldown(
    start: Callable[..., System], receiver: Receiver, failpoints: Path
) -> None:
    handler = {"kind": "webhook", "url": receiver.url}
    system = start(defaults={"handler": handler, "cooldown": f"{COOLDOWN_S:g}s"}, delivery={"backoff": "200ms"})
    peers = BlockingPeers(system.namespace)
    orders, threads = {}, []
    for point in LAUNCHING:
        points.arm(failpoints, f"dispatcher.{point}", "exit")
        orders[point] = requested(peers, point, f"{point}-1")["order"]
        eventually(partial(gone, failpoints / f"dispatcher.{point}"), f"{point} strikes")
        threads.append(threading.Thread(target=second_order, args=(peers, point)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    eventually(lambda: all(row["state"] in {"done", "skipped"} for row in system.retrains.history()), "all orders end")
    rows = [row for row in system.retrains.history() if row["state"] == "done"]
    launched = [order for seen in receiver.launched.values() for _at, order in seen]
    assert sorted(launched) == sorted(row["id"] for row in rows)
    assert len(rows) == 2 * len(LAUNCHING)
    assert all(orders[model] == seen[0][1] for model, seen in receiver.launched.items())
    for seen in receiver.launched.values():
        # Half a second for what the receiver's clock and ours may differ in: between its answer and our commit.
        assert all(later - earlier >= COOLDOWN_S - 0.5 for (earlier, _a), (later, _b) in itertools.pairwise(seen))
    assert receiver.resent >= 1, "a kill after the effect is resent, with the same id"


def test_killed_while_handing_over_every_order_is_done_once(start: Callable[..., System], failpoints: Path) -> None:
    system = start(defaults={"handler": {"kind": "channel", "lease": "1s"}, "cooldown": "0s"})
    peers = BlockingPeers(system.namespace)
    done: list[str] = []

    def consume() -> None:
        for order in system.retrains.stream(timeout_s=slow(60)):
            if order.done(new_version=f"after {order.event.model_name}"):
                done.append(order.id)
            if len(done) == len(HANDING_OVER):
                return

    consumer = threading.Thread(target=consume)
    consumer.start()
    given = []
    for point in HANDING_OVER:
        points.arm(failpoints, f"dispatcher.{point}", "exit")
        given.append(requested(peers, point, f"{point}-1")["order"])
        eventually(partial(gone, failpoints / f"dispatcher.{point}"), f"{point} strikes")
        eventually(lambda: all(row["state"] == "done" for row in system.retrains.history()), f"the order of {point} is done")
    consumer.join()
    assert sorted(done) == sorted(given)
    assert {row["new_version"] for row in system.retrains.history()} == {f"after {point}" for point in HANDING_OVER}


CONSUMER = """
import sys, time, actors
system = actors.connect(address=sys.argv[1], namespace=sys.argv[2])
for order in system.retrains.stream(model="leased"):
    print(order.id, order.attempt, flush=True)
    time.sleep(600)
"""


def test_the_order_of_a_killed_consumer_goes_to_the_next_with_its_id_and_a_raised_attempt(
    start: Callable[..., System], cluster: str
) -> None:
    system = start(defaults={"handler": {"kind": "channel", "lease": "1s"}})
    order = system.retrains.trigger("leased", "test")["order"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CONSUMER, cluster, system.namespace]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as consumer:
        assert consumer.stdout is not None
        assert consumer.stdout.readline().split() == [order, "1"]
        time.sleep(3)  # three leases: while it lives, its thread keeps the order
        assert list(system.retrains.stream(model="leased", timeout_s=0)) == []
        os.kill(consumer.pid, signal.SIGKILL)
    second = next(system.retrains.stream(model="leased", timeout_s=slow(30)))
    assert (second.id, second.attempt) == (order, 2)
    assert second.done(new_version="2")
    shown = system.retrains.show(some(order))
    assert [log["outcome"] for log in shown["attempt_log"]] == ["retry", "done"]


def test_the_drivers_list_show_put_back_silence_and_end(
    shared_system: System, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--address", cluster, "--namespace", shared_system.namespace]

    def run(driver: Any, *words: str) -> tuple[int, Any]:
        code = driver.main([*words, *where, "-o", "json"])
        return code, json.loads(capsys.readouterr().out or "null")

    code, given = run(drivers.retrains, "trigger", "driven", "--reason", "test")
    assert (code, given["decision"]) == (0, "dispatched")
    assert run(drivers.retrains, "trigger", "driven", "--reason", "again")[0] == 1
    code, shown = run(drivers.retrains, "show", given["order"])
    assert (code, shown["model"], shown["state"]) == (0, "driven", "pending")
    assert run(drivers.retrains, "failed", given["order"], "--reason", "oom")[1]["status"] == "recorded"
    assert run(drivers.retrains, "retry", given["order"])[1]["order"] == given["order"]
    assert run(drivers.retrains, "done", given["order"], "--new-version", "2")[0] == 0
    code, rows = run(drivers.retrains, "ls", "--model", "driven")
    assert [(row["state"], row["new_version"]) for row in rows if row["id"] == given["order"]] == [("done", "2")]
    code, silence = run(drivers.silence, "add", "driven*", "--duration", "2h", "--comment", "sale")
    assert code == 0
    assert silence["silence"] in {row["id"] for row in run(drivers.silence, "query")[1]}
    assert run(drivers.silence, "expire", silence["silence"])[0] == 0
    assert run(drivers.silence, "query", "driven*")[1] == []
    assert run(drivers.retrains, "show", "nope")[0] == 2
    assert run(drivers.silence, "add", "driven", "--duration", "soon")[0] == 2
    assert drivers.retrains.main(["ls", *where]) == 0
    assert given["order"] in capsys.readouterr().out


def test_the_reference_scenario_is_fine_on_real_actors(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = drivers.reference.main(["--address", cluster, "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["problems"]) == (0, [])
    assert [len(told["retrains"]), len(told["parameters"])] == [2, 3]

"""The data path on a real Ray: whatever is killed, an acknowledged event is counted once and an episode requests one order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors import MetricsEvent
from actors import failpoints as points
from actors.metrics.client import Metrics
from actors.system import System
from tests.known import some
from tests.speed import slow


def values(level: float, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.clip(np.random.default_rng(seed).normal(level, 0.01, n), 0, 1)


def until(true: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Wait for something with a deadline."""
    deadline = time.monotonic() + slow(timeout_s)
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.05)
    return found


def kill(system: System, actor: str) -> None:
    """End the process of an actor like a crash does."""
    pid = system.status()["actors"][actor]["pid"]
    os.kill(some(pid), signal.SIGKILL)


def counted(metrics: Metrics, timeout_s: float = 60.0) -> int:
    """Return what the system has acknowledged, everything being acknowledged."""
    counts = metrics.flush(slow(timeout_s))
    assert counts["pending"] == 0
    assert counts["rejected"] == counts["dropped"] == 0
    return counts["accepted"] + counts["duplicate"]


def test_killed_actors_lose_nothing_and_count_nothing_twice(shared_system: System) -> None:
    system = shared_system
    metrics = Metrics(system.namespace)
    logged = 0
    for step in range(40):
        metrics.log_batch({"accuracy": values(0.9, 500, step)}, model="killed", version="v1")
        metrics.log({"accuracy": 0.9}, model="another", version="v1")
        logged += 501
        if step == 10:
            metrics.flush()
            kill(system, "detector:killed")
        if step == 25:
            kill(system, "broadcaster")
    assert counted(metrics) == logged
    models = system.status()["models"]
    assert models["killed"]["events"] == 20_000
    assert models["another"]["events"] == 40
    assert models["killed"]["versions"]["v1"]["metrics"]["accuracy"]["state"] == "stable"


BOUNDARIES = ["detector.after_attempt", "detector.in_commit", "detector.after_commit", "broadcaster.after_forward"]


def test_a_process_that_ends_at_any_boundary_counts_each_event_once(shared_system: System, failpoints: Path) -> None:
    metrics = shared_system.metrics
    logged = 0
    for name in BOUNDARIES:
        model = f"at-{'detector' if name.startswith('detector') else 'broadcaster'}"
        metrics.log_batch({"accuracy": values(0.9, 100)}, model=model, version="v1")
        counted(metrics)
        points.arm(failpoints, name, "exit")
        if name == "detector.after_attempt":  # reached by producers that are new to the process
            other = Metrics(shared_system.namespace)
            other.log_batch({"accuracy": values(0.9, 100)}, model=model, version="v1")
            assert counted(other) == 100
            logged += 100
        metrics.log_batch({"accuracy": values(0.9, 100)}, model=model, version="v1")
        counted(metrics)
        assert not (failpoints / name).exists(), f"{name} was not reached"
        logged += 200
    models = shared_system.status()["models"]
    assert models["at-detector"]["events"] + models["at-broadcaster"]["events"] == logged


def test_an_episode_whose_process_ends_while_it_asks_gets_one_order(shared_system: System, failpoints: Path) -> None:
    model, boundary = "asking", "outbox.after_send"
    shared_system.metrics.log_batch({"accuracy": values(0.9, 500)}, model=model, version="v1")
    counted(shared_system.metrics)
    points.arm(failpoints, boundary, "exit")
    shared_system.metrics.log_batch({"accuracy": values(0.5, 50)}, model=model, version="v1")
    assert (
        counted(shared_system.metrics)
        == shared_system.metrics.counts()["accepted"] + shared_system.metrics.counts()["duplicate"]
    )
    orders = until(lambda: [row for row in shared_system.retrains.history() if row["model"] == model])
    # The order shows as soon as the dispatcher has it, a moment before the detector that asked for it reaches the failpoint.
    until(lambda: not (failpoints / boundary).exists())
    (order,) = shared_system.retrains.stream(model=model, timeout_s=slow(5))
    order.done(new_version="v2")
    assert [row["id"] for row in shared_system.retrains.history() if row["model"] == model] == [orders[0]["id"]]
    until(lambda: not shared_system.status()["models"][model]["open_episodes"])


def test_raw_events_are_answered_with_what_became_of_each(shared_system: System) -> None:
    broadcaster = ray.get_actor("broadcaster", namespace=shared_system.namespace)
    good = {"model_name": "raw", "model_version": "7", "accuracy": 0.91}
    reply: Any = ray.get(broadcaster.broadcast.remote(events=[good, {**good, "accuracy": 1.2}, {**good, "model_name": "raw2"}]))
    assert reply["accepted"] == 2
    assert [(r["index"], r["field"], r["rule"]) for r in reply["rejected"]] == [(1, "accuracy", "must be a number from 0 to 1")]
    numbered = {"events": [good, {**good, "accuracy": 7}, good], "producer": "job", "sequence": 0}
    assert ray.get(broadcaster.broadcast.remote(**numbered))["accepted"] == 2
    again = ray.get(broadcaster.broadcast.remote(**numbered))
    assert (again["accepted"], again["duplicates"]) == (0, 3)
    assert ray.get(broadcaster.high_water.remote(model="raw", producer="job"))["high_water"] == 3
    with pytest.raises(ValueError, match="sequence must continue: the next sequence is 3, got 9"):
        ray.get(broadcaster.broadcast.remote(events=[good], producer="job", sequence=9))


class Collector:
    """Keeps what it sees in a file that the test reads."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_event(self, event: MetricsEvent) -> None:
        if event.accuracy == 0.125:
            raise RuntimeError("an observer's own failure")
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(f"{event.model_name} {event.accuracy}\n")


def test_an_observer_sees_accepted_events_and_its_failures_are_its_own(shared_system: System, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    shared_system.register(Collector(str(seen)), name="collector")
    for accuracy in (0.25, 0.125, 7.0, 0.5):
        shared_system.metrics.log({"accuracy": accuracy}, model="observed")
    shared_system.metrics.flush()
    until(lambda: seen.exists() and "observed 0.5" in seen.read_text())
    assert seen.read_text() == "observed 0.25\nobserved 0.5\n"
    shared_system.unregister(name="collector")
    shared_system.metrics.log({"accuracy": 0.75}, model="observed")
    shared_system.metrics.flush()
    assert "0.75" not in seen.read_text()

"""Ray Serve with a real system: windows per version, hits by feedback, a rolling update, and what is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Sources that are edited while the tests run are no other build.
os.environ.setdefault("VISUTILITY_BUILD", "test-real-serve")

import ray

import actors
from actors import wire
from actors.detection.logged import read_log
from actors.detection.stored import detector_parts
from actors.integrations.feedback import joiner
from actors.integrations.serve import feedback, monitored
from actors.storage import StoreReader
from tests.integrations.test_real_sources import port, until

pytest.importorskip("fastapi")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
serve: Any = pytest.importorskip("ray.serve")
PORT = port()


class Events:
    """What the store counts of the model, by version and metric: values, each with its n. An observer might miss some."""

    def __init__(self, url: str) -> None:
        self.url = url

    def of(self, version: str, metric: str) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        with contextlib.closing(StoreReader(self.url)) as store:
            for part in detector_parts(store):
                with part.read() as connection:
                    for row in read_log(connection, "mail"):
                        found += rows_of(wire.unpack(row.payload, stored=True), row.skip, version, metric)
        return found

    def n(self, version: str, metric: str) -> float:
        return sum(n for _, n in self.of(version, metric))


def rows_of(batch: wire.Batch, skip: int, version: str, metric: str) -> Iterator[tuple[float, float]]:
    column, weights = batch.columns.get(metric), batch.weights
    if column is None or weights is None:
        return
    for row in range(skip, batch.rows):
        which = 0 if batch.which is None else int(batch.which[row])
        if batch.versions[which] == version and (column.present is None or column.present[row]):
            yield float(column.values[row]), float(weights.values[row])


@pytest.fixture
def system(tmp_path: Path) -> Iterator[actors.System]:
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=150 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    yield actors.start({"storage": f"sqlite:///{tmp_path}/store"})
    serve.shutdown()
    ray.shutdown()


def deployment(version: str, label: str, pids: Path) -> Any:
    @serve.deployment(num_replicas=2, name="Mail")
    @monitored(
        model="mail",
        version=version,
        window_s=0.5,
        score=lambda answer: answer["score"],
        predicted=lambda request, answer: (request["id"], answer["label"]),
    )
    class Mail:
        def __init__(self) -> None:
            (pids / str(os.getpid())).touch()

        async def __call__(self, request: Any) -> dict[str, Any]:
            if not isinstance(request, dict):  # by HTTP
                request = await request.json()
            if request["id"] == "broken":
                raise ValueError("a request that no model can answer")
            return {"label": label, "score": 0.25, "version": version}

    bound: Any = Mail
    return bound.bind()


def test_two_versions_are_side_by_side_in_a_rolling_update_and_feedback_finds_the_one_that_predicted(
    system: actors.System, tmp_path: Path
) -> None:
    events = Events(f"sqlite:///{tmp_path}/store")
    handle = serve.run(deployment("v1", "spam", tmp_path), name="mail", route_prefix="/")
    for number in range(20):
        assert handle.remote({"id": f"a{number}"}).result()["version"] == "v1"
    with pytest.raises(Exception, match="no model can answer"):
        handle.remote({"id": "broken"}).result()
    until(lambda: events.n("v1", "latency_ms") == 21, "21 requests are logged, each once")
    until(lambda: events.n("v1", "score_mean") == 20, "20 scores")
    assert sum(rate * n for rate, n in events.of("v1", "error_rate")) == pytest.approx(1.0)
    assert {mean for mean, _ in events.of("v1", "score_mean")} == {0.25}

    answers: list[str] = []
    problems: list[Exception] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(handle.remote({"id": f"b{len(answers)}"}).result()["version"])
            except Exception as problem:  # noqa: BLE001
                problems.append(problem)
            over.wait(0.01)

    asking = threading.Thread(target=ask)
    asking.start()
    serve.run(deployment("v2", "ham", tmp_path), name="mail", route_prefix="/")
    until(lambda: events.n("v2", "latency_ms") > 20, "the second version is logged")
    over.set()
    asking.join()
    assert problems == []
    assert {"v1", "v2"} == set(answers)

    for number in range(20):
        feedback(f"a{number}", "spam" if number < 15 else "ham", model="mail")
    for number, version in enumerate(answers):
        if version == "v2":
            feedback(f"b{number}", "ham", model="mail")
    until(lambda: events.n("v1", "accuracy") >= 20, "truths of v1 are joined")
    assert events.n("v1", "accuracy") == 20
    assert sum(hits * n for hits, n in events.of("v1", "accuracy")) == pytest.approx(15)
    until(lambda: events.n("v2", "accuracy") > 0, "truths of v2 are joined")
    assert {hits for hits, _ in events.of("v2", "accuracy")} == {1.0}


def test_requests_are_answered_while_the_system_a_replica_and_the_joining_actor_are_killed(
    system: actors.System, tmp_path: Path
) -> None:
    events = Events(f"sqlite:///{tmp_path}/store")
    handle = serve.run(deployment("v1", "spam", tmp_path), name="mail", route_prefix="/")
    assert handle.remote({"id": "first"}).result()["label"] == "spam"
    feedback("first", "spam", model="mail")
    until(lambda: events.n("v1", "accuracy") == 1, "the first truth is joined")

    ray.kill(joiner("mail"), no_restart=False)
    feedback("late", "spam", model="mail")
    broadcaster = next(pid for name, pid in pids_of(system) if "broadcaster" in name)
    os.kill(broadcaster, 9)
    for number in range(50):
        assert handle.remote({"id": f"c{number}"}).result()["label"] == "spam"
    until(lambda: events.n("v1", "latency_ms") == 51, "the windows of the outage are logged, each once")

    os.kill(int(next(path.name for path in tmp_path.iterdir() if path.name.isdigit())), 9)
    url = f"http://127.0.0.1:{PORT}/"
    body = json.dumps({"id": "http"}).encode()
    until(lambda: b"spam" in urllib.request.urlopen(url, body, timeout=10).read(), "HTTP is answered by the other replica")
    until(lambda: events.n("v1", "latency_ms") > 51, "and logged")


def pids_of(system: actors.System) -> list[tuple[str, int]]:
    return [(name, actor["pid"]) for name, actor in system.status()["actors"].items() if actor["pid"] is not None]

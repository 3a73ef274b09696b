"""Scenarios on several nodes of one machine; each runs in a process of its own (`tests.cluster.alone`)."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import actors
from actors.metrics.buffer import Counts
from actors.system import System
from tests.cluster.waiting import eventually
from tests.known import some
from tests.rays import start_alone
from tests.speed import slow

_LAUNCHED = yaml.safe_load((Path(__file__).parents[3] / "cluster.yaml").read_text())
# As in cluster.yaml: a node that is gone is noticed within 2 s.
HEALTH = json.loads(some(re.search("--system-config='(.*)'", " ".join(_LAUNCHED["head_start_ray_commands"])))[1])
MODELS = [f"model-{number}" for number in range(6)]


@contextmanager
def cluster_of(workers: int, **head: Any) -> Iterator[Cluster]:
    """A head without CPUs of its own, as in cluster.yaml, and worker nodes with two each."""
    with start_alone():
        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": HEALTH, "include_dashboard": False, **head}
        )
        for _ in range(workers):
            made.add_node(num_cpus=2)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def nodes_of(system: System, prefix: str) -> dict[str, str]:
    alive = {name: each for name, each in system.status()["actors"].items() if name.startswith(prefix) and each["alive"]}
    return {name: some(each["node"]) for name, each in alive.items()}


def events_of(system: System) -> dict[str, int]:
    return {model: told["events"] for model, told in models_of(system).items()}


def models_of(system: System) -> dict[str, Any]:
    """Return the models of a status that has counts: one of a busy machine says that the store did not answer in time."""
    found: dict[str, Any] = eventually(lambda: system.status()["models"], "the store answers in time")
    return found


@ray.remote(num_cpus=0)
def a_job(model: str, events: int) -> Counts:
    """What a training job does, on whatever node it runs."""
    system = actors.connect()
    for _ in range(events):
        system.metrics.log({"accuracy": 0.93}, model=model, version="v1")
    return system.metrics.flush(timeout_s=slow(60))


def on_every_node(model: str, events: int) -> int:
    """Run one job on each node; give the events that were acknowledged."""
    running = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            running.append(a_job.options(scheduling_strategy=there).remote(model, events))
    told = ray.get(running, timeout=slow(90))
    assert all(each["pending"] == each["dropped"] == 0 for each in told), told
    return sum(each["accepted"] for each in told)


def loss(params: dict[str, float]) -> float:
    time.sleep(0.4)
    return params["x"] ** 2


def run_trials_on(system: System, wanted: set[str]) -> None:
    """Run studies until trials have been on all `wanted` nodes: on a loaded machine the first may be over too soon."""
    seen: set[str] = set()
    for seed in range(6):
        study = system.tuner.run(loss, {"x": [-1.0, 1.0]}, trials=8, seed=seed, max_concurrent=4)
        assert {trial.state for trial in study.trials} == {"COMPLETED"}
        seen |= {some(trial.node) for trial in study.trials}
        if wanted <= seen:
            return
    raise AssertionError(f"trials ran on {seen}, never on {wanted - seen}")


class Producer(threading.Thread):
    """Logs one event of each model again and again, and flushes: what a service does while nodes come and go."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._system = system
        self._over = threading.Event()
        self.logged = 0
        self.longest_s = 0.0

    def run(self) -> None:
        while not self._over.is_set():
            for model in MODELS:
                self._system.metrics.log({"accuracy": 0.93}, model=model, version="v1")
                self.logged += 1
            began = time.monotonic()
            self._system.metrics.flush(timeout_s=slow(30))
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.02)

    def end(self) -> Counts:
        self._over.set()
        self.join()
        return self._system.metrics.flush(timeout_s=slow(60))


def postgresql(url: str) -> dict[str, Any]:
    """Spread, use, lose and add nodes; then lose the head, and carry on on a new cluster with the same store."""
    told: dict[str, Any] = {}
    with cluster_of(2) as cluster:
        system = actors.start({"storage": url, "detectors": {"max_processes": 12}})
        logged = sum(on_every_node(model, 10) for model in MODELS)
        assert logged == len(MODELS) * 3 * 10
        assert sum(events_of(system).values()) == logged
        homes = nodes_of(system, "detector:")
        assert len(homes) == len(MODELS)
        workers = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU")}
        assert {list(homes.values()).count(node) for node in workers} == {3}, ("the nodes with CPUs take turns", homes, workers)
        assert len({nodes_of(system, name)[name] for name in actors.cluster.deployment.CORE}) == 2
        run_trials_on(system, workers)
        assert system.status()["pinned_to"] is None

        # A worker node ends without notice while a producer logs to all models.
        producer = Producer(system)
        producer.start()
        time.sleep(1)
        lost = next(node for node in cluster.worker_nodes if node.node_id in homes.values())
        cluster.remove_node(lost, allow_graceful=False)
        moved = eventually(
            lambda: (
                (found := nodes_of(system, "detector:")) and len(found) == len(MODELS) and lost.node_id not in found.values()
            ),
            "the detectors of the lost node live on others",
        )
        assert moved
        added = cluster.add_node(num_cpus=2)
        flushed = producer.end()
        assert flushed["pending"] == flushed["dropped"] == flushed["rejected"] == 0, flushed
        logged += producer.logged
        assert sum(events_of(system).values()) == logged, "what was acknowledged is counted, and counted once"
        told |= {"logged_meanwhile": producer.logged, "longest_flush_s": round(producer.longest_s, 2)}

        run_trials_on(system, {added.node_id})
        drift(system, "drifted")
        system.retrains.trigger("model-0", reason="so that there is something to remember")
        system.retrains.silence("model-1", duration="2h", comment="for the next cluster to know")
        before = remembered(system)
        assert all(before.values()), before
        assert before["models"]["drifted"]["open_episodes"]

        # The head ends without notice. The actors on its worker nodes live on alongside those of the next cluster.
        ray.shutdown()
        cluster.remove_node(some(cluster.head_node), allow_graceful=False)
        with cluster_of(1):
            began = time.monotonic()
            system = actors.start({"storage": url, "detectors": {"max_processes": 12}})
            told["carried_on_after_s"] = round(time.monotonic() - began, 2)
            for what, now in remembered(system).items():
                assert now == before[what], f"a new cluster on the same store knows all {what}: {now} {before[what]}"
            assert a_count(system, "model-0") == before["models"]["model-0"]["events"] + 1
            system.stop()
    return told


def drift(system: System, model: str) -> None:
    """Log until the model has drifted, and the dispatcher knows."""
    for level in (0.93, 0.6):
        noise = np.random.default_rng(7).normal(level, 0.01, 500)
        system.metrics.log_batch({"accuracy": noise}, model=model, version="v1")
    assert system.metrics.flush(timeout_s=slow(60))["pending"] == 0
    assert eventually(lambda: not system.status()["models"][model]["undelivered"], "the request of its episode is recorded")


def remembered(system: System) -> dict[str, Any]:
    """Return what a system has to know on whatever cluster, as long as it has the store."""
    studies = [system.tuner.study(told["name"]) for told in system.tuner.studies()]
    return {
        "models": models_of(system),  # counts, baselines, open episodes
        "history": [(row["id"], row["state"]) for row in system.retrains.history()],
        "silences": [(each["id"], each["comment"]) for each in system.retrains.silences()],
        "cooldowns": sorted(system.retrains.cooldowns()),
        "trials": [(trial.id, trial.params, trial.value) for study in studies for trial in study.trials],
    }


def a_count(system: System, model: str) -> int:
    system.metrics.log({"accuracy": 0.93}, model=model, version="v1")
    assert system.metrics.flush(timeout_s=slow(30))["pending"] == 0
    return events_of(system)[model]


def sqlite(folder: str) -> dict[str, Any]:
    """On several nodes a SQLite store holds the stateful actors at its node; status says so, a relative path is refused."""
    from actors.storage import StoreError

    with cluster_of(2):
        try:
            actors.start({"storage": "sqlite:///./relative"})
        except StoreError as error:
            refused = str(error)
        assert "absolute path" in refused
        assert actors.cluster.deployment.names("visutility") == []
        system = actors.start({"storage": f"sqlite:///{folder}/store"})
        logged = on_every_node("model-0", 5) + on_every_node("model-1", 5)
        assert sum(events_of(system).values()) == logged
        seen = system.status()
        here = ray.get_runtime_context().get_node_id()
        assert seen["pinned_to"] == here
        stateful = {name: each["node"] for name, each in seen["actors"].items()}
        assert set(stateful.values()) == {here}, stateful
        workers = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU")}
        run_trials_on(system, workers)  # trials are not pinned
        status_elsewhere = ray.remote(num_cpus=0)(lambda: events_of(actors.connect())["model-0"])
        there = NodeAffinitySchedulingStrategy(next(iter(workers)), soft=False)
        assert ray.get(status_elsewhere.options(scheduling_strategy=there).remote(), timeout=slow(120)) == 15
        system.stop()
    return {"refused": refused}


def unreachable(url: str) -> dict[str, Any]:
    """A store that this node reaches and another does not: a clear error, and nothing is left behind."""
    from actors.storage import StoreError

    with cluster_of(1) as cluster:
        system = actors.start({"storage": url})
        system.stop()
        # The PostgreSQL client of this node looks for the database where nobody listens.
        apart = cluster.add_node(num_cpus=1, env_vars={"PGHOSTADDR": "127.0.0.2"})
        try:
            actors.start({"storage": url})
        except StoreError as error:
            said = str(error)
        assert actors.cluster.deployment.names("visutility") == []
        assert actors.cluster.card.read("visutility") is None
    return {"said": said, "apart": apart.node_id}

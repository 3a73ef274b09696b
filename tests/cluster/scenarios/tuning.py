"""A study on several nodes of one machine, which come and go; runs in a process of its own (`tests.cluster.alone`)."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from actors.cluster import deployment
from actors.storage import Store
from actors.tuning.client import Tuning
from tests.cluster.scenarios.nodes import cluster_of
from tests.cluster.waiting import eventually
from tests.speed import slow

NAMESPACE = "tuning-nodes"
TRIALS = 500


def come_and_go(folder: str) -> dict[str, Any]:
    """Run a study on two nodes, take one away, add two; tells where trials ran and what became of them."""
    with cluster_of(1) as cluster:
        Store(f"sqlite:///{folder}/store").close()  # only a start makes one
        for name in ("runner", "tuner"):
            handle = deployment.spawn(name, namespace=NAMESPACE, storage=f"sqlite:///{folder}/store")
            ray.get(handle.hello.remote(), timeout=slow(60))
        leaving = cluster.add_node(num_cpus=2)
        tuning = Tuning(NAMESPACE)

        enough = Path(folder) / "enough"

        def objective(params: dict[str, Any]) -> float:
            for _ in range(20):  # a second, so that there are trials left when the last node has come
                time.sleep(0.0 if enough.exists() else 0.05)
            return float(params["x"])

        def nodes() -> set[str]:
            return {trial.node for trial in tuning.study("nodes").trials if trial.state == "COMPLETED" and trial.node}

        tuning.submit(objective, {"x": [0.0, 1.0]}, trials=TRIALS, seed=1, name="nodes")
        eventually(lambda: len(nodes()) == 2, "trials on two nodes")
        cluster.remove_node(leaving, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        cluster.add_node(num_cpus=2)
        eventually(lambda: len(nodes()) == 4, "trials on the nodes that came")
        enough.touch()
        study = tuning.wait("nodes", timeout_s=slow(90))
        expected = tuning.run(lambda params: float(params["x"]), {"x": [0.0, 1.0]}, trials=TRIALS, seed=1)
        return {
            "counts": study.counts(),
            "equal": [trial.params for trial in study.trials] == [trial.params for trial in expected.trials],
            "lost with the node": sum(trial.attempts - 1 for trial in study.trials),
            "per node": sorted(Counter(trial.node for trial in study.trials).values()),
        }

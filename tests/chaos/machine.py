"""The Ray under test: a local one, or a head and two nodes on this machine, each killable and freezable as a whole."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

import ray
from ray.cluster_utils import Cluster

from tests.chaos import processes
from tests.rays import start_alone

# Tuned health checks: a killed node is noticed in about a second, a frozen one in four (the defaults take 12 s and 65 s).
_HEALTH: Final = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
_STORE_BYTES: Final = 80 * 2**20
_CPUS: Final = 2


class Machine:
    """Starts and ends Ray; knows the processes of each node."""

    def __init__(self, *, nodes: int, setup_hook: str | None) -> None:
        """Start a Ray with `nodes` nodes besides the head; this process becomes a driver on the head.

        `setup_hook`: a function, `module.name`, that every worker process calls first.
        """
        environment = {} if setup_hook is None else {"worker_process_setup_hook": setup_hook}
        shared: dict[str, Any] = {
            "runtime_env": environment,
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        os.environ.pop("RAY_ADDRESS", None)
        self._cluster: Any = None
        self.nodes: list[Any] = []
        with start_alone():
            self._start(nodes, shared)

    def _start(self, nodes: int, shared: dict[str, Any]) -> None:
        if nodes == 0:
            ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=_STORE_BYTES, **shared)
            self.address = str(ray.get_runtime_context().gcs_address)
            return
        head = {"num_cpus": _CPUS, "object_store_memory": _STORE_BYTES, "include_dashboard": False, "_system_config": _HEALTH}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        ray.init(address=self.address, **shared)
        for _ in range(nodes):
            self.add()

    def add(self, *, wait: bool = True) -> None:
        """Add a node."""
        self.nodes.append(self._cluster.add_node(wait=wait, num_cpus=_CPUS, object_store_memory=_STORE_BYTES))

    def remove(self, node: Any) -> None:
        """Clean up after a killed node."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def raylets(self) -> list[int]:
        """Return the processes whose children are the workers."""
        if self._cluster is None:
            return _raylet(ray._private.worker.global_worker.node)
        return [pid for node in [self._cluster.head_node, *self.nodes] for pid in _raylet(node)]

    def processes_of(self, node: Any) -> tuple[list[int], list[int]]:
        """Return a node's own processes, and its workers."""
        raylet = _raylet(node)
        own = [info.process.pid for infos in node.all_processes.values() for info in infos]
        return own, [pid for pid in descendants_of(raylet) if pid not in own]

    def workers(self) -> list[int]:
        """Return every worker process that is no actor: idle ones and those that run a task.

        A node's agents bear the same kind of title; without one of them its raylet ends, which is the kill of a node.
        """
        titles = {pid: processes.title(pid) for pid in descendants_of(self.raylets())}
        return [pid for pid, text in titles.items() if text.startswith("ray::") and not _is_other(text)]

    def close(self) -> None:
        """End it all."""
        ray.shutdown()
        if self._cluster is not None:
            self._cluster.shutdown()


def descendants_of(raylets: list[int]) -> list[int]:
    """Return the workers of these raylets."""
    return processes.descendants(raylets)


def _raylet(node: Any) -> list[int]:
    return [info.process.pid for name, infos in node.all_processes.items() if name == "raylet" for info in infos]


def _is_other(text: str) -> bool:
    actors = ("MetricBroadcaster", "DriftDetector", "RetrainDispatcher", "Runner", "Tuner")
    return any(name in text for name in (*actors, "Agent"))

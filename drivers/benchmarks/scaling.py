"""The sections of `bench scaling`: a simulated cluster, the work put on it, and the processor time that each process spent."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from ray.cluster_utils import Cluster

import actors
from actors.system import System

Say = Callable[[str], None]
Row = dict[str, Any]
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seconds: float = 3.0
    laps: int = 3
    producers: tuple[int, ...] = (1, 2, 4, 8)
    batch_sizes: tuple[int, ...] = (1, 10, 100, 1_000, 5_000, 20_000)
    models: tuple[int, ...] = (10, 100, 1_000, 5_000)
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    requests: int = 2_000
    trials: int = 2_000

    @classmethod
    def quick(cls) -> Plan:
        """Give a short one."""
        return cls(2.0, 1, (1, 4), (1, 100, 5_000), (10, 1_000), (1, 4), 500, 500)


class Stage:
    """A simulated cluster of one head and some worker nodes; each system on it gets a namespace and a store of its own."""

    def __init__(self, cluster: Cluster, folder: Path, storage: str | None) -> None:
        self.cluster = cluster
        self._folder = folder
        self._storage = storage

    @contextmanager
    def system(self, **settings: Any) -> Iterator[System]:
        """Start a system, end it afterwards. On PostgreSQL all share one store, one after the other."""
        name = f"scaling-{uuid.uuid4().hex[:8]}"
        storage = self._storage or f"sqlite:///{self._folder}/{name}"
        started = actors.start({"storage": storage, **settings}, namespace=name)
        try:
            yield started
        finally:
            started.stop()

    def grow_to(self, nodes: int) -> None:
        """Add worker nodes until there are so many."""
        while len(self.cluster.worker_nodes) < nodes:
            self.cluster.add_node(num_cpus=2)


@contextmanager
def simulated(storage: str | None) -> Iterator[Stage]:
    """Begin a Ray of several nodes on this machine, with one worker node at first."""
    logging.getLogger("actors").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="visutility-scaling-"))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield Stage(cluster, folder, storage)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(folder, ignore_errors=True)


# --- work


@ray.remote(num_cpus=0)
def produce(namespace: str, models: list[str], size: int, seconds: float) -> dict[str, Any]:
    """Log batches of `size` events to `models` in turn for `seconds`; give what was acknowledged in how long."""
    system = actors.connect(namespace=namespace, on_full="wait", buffer_bytes=16 * 2**20)
    values = np.clip(np.random.default_rng(os.getpid()).normal(0.93, 0.01, (3, size)), 0, 1)
    columns = dict(zip(("accuracy", "precision", "recall"), values, strict=True))
    for model in models:  # its detector is made before the clock starts
        system.metrics.log_batch({name: column[:1] for name, column in columns.items()}, model=model, version="1")
    system.metrics.flush(timeout_s=60)
    began, calls = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        for model in models:
            system.metrics.log_batch(columns, model=model, version="1")
            calls += 1
    told = system.metrics.flush(timeout_s=120)
    took_s = time.monotonic() - began
    system.close()
    return {
        "events": int(told["accepted"]) - len(models),
        "calls": calls,
        "seconds": took_s,
        "lost": told["pending"] + told["dropped"],
    }


def cpu_s(system: System) -> dict[str, float]:
    """Give the processor seconds that each process has spent so far; all detectors' together."""
    spent: dict[str, float] = {}
    for name, told in system.status()["actors"].items():
        fields = Path(f"/proc/{told['pid']}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        role = name.partition(":")[0].rstrip("s") if ":" in name else name
        spent[role] = spent.get(role, 0.0) + (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
    return spent


def spent_since(system: System, before: dict[str, float]) -> dict[str, float]:
    """Give the processor seconds of each role since `before`."""
    return {role: now - before.get(role, 0.0) for role, now in cpu_s(system).items()}


def _logging(system: System, producers_: int, models: list[str], size: int, seconds: float) -> Row:
    """Put producers on it, and give the rate, and the microseconds of processor time per event and per batch."""
    share = [models[index::producers_] or models for index in range(producers_)]
    ray.get([produce.remote(system.namespace, each, 1, 0.2) for each in share])  # their workers are warm now
    before = cpu_s(system)
    told = ray.get([produce.remote(system.namespace, each, size, seconds) for each in share])
    spent = spent_since(system, before)
    events, calls = sum(each["events"] for each in told), sum(each["calls"] for each in told)
    if any(each["lost"] for each in told):
        raise RuntimeError(f"not everything was acknowledged: {told}")
    return {
        "events": events,
        "calls": calls,
        "events_s": sum(each["events"] / each["seconds"] for each in told),
        "batches_s": sum(each["calls"] / each["seconds"] for each in told),
        "broadcaster_s": spent["broadcaster"],
        "detector_s": spent["detector"],
    }


def _median(laps: list[Row], key: str) -> float:
    return float(np.median([lap[key] for lap in laps]))


def _ingest_row(head: Row, laps: list[Row]) -> Row:
    """Give a table's row. `ends_at`: the batches and events a second at which the one broadcaster would fill a core."""
    per_batch_us = float(np.median([lap["broadcaster_s"] / lap["calls"] * 1e6 for lap in laps]))
    per_event_us = float(np.median([lap["detector_s"] / lap["events"] * 1e6 for lap in laps]))
    size = laps[0]["events"] / laps[0]["calls"]
    return head | {
        "events/s": _median(laps, "events_s"),
        "batches/s": _median(laps, "batches_s"),
        "broadcaster us/batch": per_batch_us,
        "detector us/event": per_event_us,
        "broadcaster ends at batches/s": 1e6 / max(per_batch_us, 1e-3),
        "... events/s": size * 1e6 / max(per_batch_us, 1e-3),
        "one detector ends at events/s": 1e6 / max(per_event_us, 1e-6),
    }


# --- sections


def producers(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """More producers, 5,000 events a batch, 4 models."""
    rows = []
    models_ = [f"m{n}" for n in range(4)]
    for count in plan.producers:
        say(f"producers: {count}")
        with stage.system() as system:
            laps = [_logging(system, count, models_, 5_000, plan.seconds) for _ in range(plan.laps)]
        rows.append(_ingest_row({"producers": count}, laps))
    return rows


def batches(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Larger batches, 2 producers, 4 models."""
    rows = []
    models_ = [f"m{n}" for n in range(4)]
    for size in plan.batch_sizes:
        say(f"batch size: {size}")
        with stage.system() as system:
            laps = [_logging(system, 2, models_, size, plan.seconds) for _ in range(plan.laps)]
        rows.append(_ingest_row({"batch": size}, laps))
    return rows


def models(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """More models in 8 detector processes: one event of each model, round after round."""
    rows = []
    for count in plan.models:
        say(f"models: {count}")
        names = [f"m{n}" for n in range(count)]
        with stage.system(detectors={"max_processes": 8, "max_models": count}) as system:
            began = time.monotonic()
            _round(system, names)
            first_s = time.monotonic() - began
            before = cpu_s(system)
            rounds: list[float] = []
            # Long enough for a clock of 10 ms ticks.
            while len(rounds) < plan.laps or sum(rounds) < plan.seconds:
                began = time.monotonic()
                _round(system, names)
                rounds.append(time.monotonic() - began)
            spent = spent_since(system, before)
            began = time.monotonic()
            known = len(system.status()["models"])
            status_s = time.monotonic() - began
        if known != count:
            raise RuntimeError(f"status knows {known} models of {count}")
        each = count * len(rounds)
        rows.append({
            "models": count,
            "first round s": first_s,
            "a round s": float(np.median(rounds)),
            "broadcaster us/event": spent["broadcaster"] / each * 1e6,
            "detectors us/event": spent["detector"] / each * 1e6,
            "status s": status_s,
        })  # fmt: skip
    return rows


def _round(system: System, names: list[str]) -> None:
    for name in names:
        system.metrics.log({"accuracy": 0.93}, model=name, version="1")
    told = system.metrics.flush(timeout_s=300)
    if told["pending"] or told["dropped"]:
        raise RuntimeError(f"not everything was acknowledged: {told}")


def nodes(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """More nodes, each with a producer: the same work, 1,000 events a batch."""
    rows = []
    for count in plan.nodes:
        say(f"nodes: {count}")
        stage.grow_to(count)
        began = time.monotonic()
        with stage.system() as system:
            start_s = time.monotonic() - began
            models_ = [f"m{n}" for n in range(max(4, count))]
            laps = [_logging(system, count, models_, 1_000, plan.seconds) for _ in range(plan.laps)]
            alone = _waits(system)
        row = _ingest_row({"nodes": count, "start s": start_s}, laps)
        rows.append(row | {"one event, flushed: p50 ms": alone[0], "p99 ms": alone[1]})
    return rows


def _waits(system: System) -> tuple[float, float]:
    waits = []
    for _ in range(200):
        began = time.monotonic()
        system.metrics.log({"accuracy": 0.93}, model="m0", version="1")
        system.metrics.flush(timeout_s=30)
        waits.append((time.monotonic() - began) * 1e3)
    return float(np.median(waits)), float(np.quantile(waits, 0.99))


def requests(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Drift everywhere at once: one retrain request of each of many models, up to so many of them at a time."""
    rows = []
    for at_once in (1, 32, 256):
        say(f"requests: {plan.requests}, {at_once} at once")
        with stage.system(defaults={"dry_run": True}) as system:
            dispatcher = ray.get_actor("dispatcher", namespace=system.namespace)
            before, began = cpu_s(system), time.monotonic()
            waiting: list[Any] = []
            for number in range(plan.requests):
                waiting.append(dispatcher.request.remote(
                    episode=f"e-{at_once}-{number}", model=f"m{number}", version="1", metric="accuracy",
                    observed_drift=4.2, triggered_at=time.time(), explanation={"statistic": 4.2},
                ))  # fmt: skip
                if len(waiting) >= at_once:
                    done, waiting = ray.wait(waiting, num_returns=1)
                    ray.get(done)
            ray.get(waiting)
            took_s = time.monotonic() - began
            spent = spent_since(system, before)["dispatcher"]
        each_us = spent / plan.requests * 1e6
        rows.append({
            "requests at once": at_once,
            "recorded/s": plan.requests / took_s,
            "dispatcher us/request": each_us,
            "one dispatcher ends at requests/s": 1e6 / max(each_us, 1e-3),
        })  # fmt: skip
    return rows


def idle(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Stand by: watchdog, ticks, exported metrics, with more and more detector processes and models."""
    rows = []
    for models_ in plan.models[:3]:
        processes = min(16, models_)
        say(f"idle: {models_} models in {processes} processes")
        with stage.system(detectors={"max_processes": processes, "max_models": models_}) as system:
            _round(system, [f"m{n}" for n in range(models_)])
            time.sleep(2.0)
            seconds = max(plan.seconds, 5.0)
            before = cpu_s(system)
            time.sleep(seconds)
            spent = spent_since(system, before)
        rows.append({
            "models": models_,
            "processes": processes,
            **{f"{role}: % of a core": used / seconds * 100 for role, used in sorted(spent.items())},
        })  # fmt: skip
    return rows


def trials(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Trials that do nothing, on more and more nodes of two CPUs: the tuner's own cost per trial."""
    rows = []
    for count in plan.nodes:
        say(f"trials: {count} nodes")
        stage.grow_to(count)
        with stage.system() as system:
            # So long a first study that every worker is there.
            system.tuner.run(_sleep, {"x": [0.0, 1.0]}, trials=8 * count, seed=0, max_concurrent=2 * count)
            before, began = cpu_s(system), time.monotonic()
            study = system.tuner.run(_nothing, {"x": [0.0, 1.0]}, trials=plan.trials, seed=1, max_concurrent=2 * count)
            took_s = time.monotonic() - began
            spent = spent_since(system, before)["tuner"]
            used = len({trial.node for trial in study.trials})  # read from the system, so before it ends
        each_us = spent / plan.trials * 1e6
        rows.append({
            "at once": 2 * count,
            "nodes used": used,
            "trials/s": plan.trials / took_s,
            "tuner us/trial": each_us,
            "one tuner ends at trials/s": 1e6 / max(each_us, 1e-3),
        })  # fmt: skip
    return rows


def _nothing(params: dict[str, float]) -> float:
    return params["x"]


def _sleep(params: dict[str, float]) -> float:
    time.sleep(0.5)
    return params["x"]

"""The sections of `bench scaling`: a simulated cluster, the work put on it, and the processor time that each process spent.

A row of a table holds what was set (numbers) and what was measured (a list: one number a lap).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
_POOL: Final = 20_000  # events, or 17 batches where that is more: what a producer logs again and again
# Of the time, as deploy/visutility.yaml has it: a budget in events would be false alarms by the hundred a second here.
_BUDGET: Final = {"false_alarm_every": "90d"}
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run."""

    seconds: float = 3.0
    laps: int = 3
    producers: tuple[int, ...] = (1, 2, 4, 8)
    callers: tuple[int, ...] = (1, 16, 128)
    batch_sizes: tuple[int, ...] = (1, 10, 100, 1_000, 5_000, 20_000)
    models: tuple[int, ...] = (10, 100, 1_000, 5_000)
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    requests: int = 2_000
    trials: int = 2_000

    @classmethod
    def quick(cls) -> Plan:
        """Return a short one."""
        return cls(2.0, 1, (1, 4), (1, 16), (1, 100, 5_000), (10, 1_000), (1, 4), 500, 500)


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
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


# --- work


@ray.remote(num_cpus=0)
def produce(namespace: str, models: list[str], size: int, seconds: float) -> dict[str, Any]:
    """Log batches of `size` events to `models` in turn for `seconds`; return the acknowledged events and the seconds."""
    system = actors.connect(namespace=namespace, on_full="wait", buffer_bytes=4 * 2**20)
    # The same numbers in every lap: what a detector costs depends on what it sees.
    values = np.clip(np.random.default_rng(size).normal(0.93, 0.01, (max(17, _POOL // size), 3, size)), 0, 1)
    pool = [dict(zip(("accuracy", "precision", "recall"), each, strict=True)) for each in values]
    columns = pool[0]
    for model in models:  # its detector is made before the clock starts
        system.metrics.log_batch({name: column[:1] for name, column in columns.items()}, model=model, version="1")
    system.metrics.flush(timeout_s=60)
    began, calls = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        for model in models:
            system.metrics.log_batch(pool[calls % len(pool)], model=model, version="1")
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


@ray.remote(num_cpus=0)
def flush_alone(namespace: str, callers_: int, seconds: float) -> list[float]:
    """Run so many producers, each of which logs one event and waits for its acknowledgement; return all waits."""

    def call(number: int) -> list[float]:
        waits = []
        with actors.connect(namespace=namespace) as system:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                began = time.monotonic()
                system.metrics.log({"accuracy": 0.93}, model=f"m{number % 4}", version="1")
                told = system.metrics.flush(timeout_s=60)
                waits.append(time.monotonic() - began)
        if told["pending"] or told["dropped"]:
            raise RuntimeError(f"not everything was acknowledged: {told}")
        return waits

    with ThreadPoolExecutor(callers_) as threads:
        return [wait for waits in threads.map(call, range(callers_)) for wait in waits]


def cpu_s(system: System) -> dict[str, float]:
    """Return the processor seconds that each process has spent so far; all detectors' together."""
    spent: dict[str, float] = {}
    for name, told in system.status()["actors"].items():
        fields = Path(f"/proc/{told['pid']}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        role = name.partition(":")[0].rstrip("s") if ":" in name else name
        spent[role] = spent.get(role, 0.0) + (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
    return spent


def spent_since(system: System, before: dict[str, float]) -> dict[str, float]:
    """Return the processor seconds of each role since `before`."""
    return {role: now - before.get(role, 0.0) for role, now in cpu_s(system).items()}


def _logging(system: System, producers_: int, models: list[str], size: int, seconds: float) -> dict[str, float]:
    """Load it with producers; return the rate and the microseconds of processor time per event and per batch."""
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


def _ingest_row(head: Row, laps: list[dict[str, float]]) -> Row:
    """Return a table's row. `ends at`: the batches and events a second at which the one broadcaster would fill a core."""
    size = laps[0]["events"] / laps[0]["calls"]
    # A process that spent less than one tick of the kernel's clock (10 ms) in a lap is said to have spent one.
    per_batch_us = [max(lap["broadcaster_s"], 0.01) / lap["calls"] * 1e6 for lap in laps]
    per_event_us = [max(lap["detector_s"], 0.01) / lap["events"] * 1e6 for lap in laps]
    return head | {
        "events/s": [lap["events_s"] for lap in laps],
        "batches/s": [lap["batches_s"] for lap in laps],
        "broadcaster us/batch": per_batch_us,
        "detector us/event": per_event_us,
        "broadcaster ends at events/s": size * 1e6 / float(np.median(per_batch_us)),
        "one detector ends at events/s": 1e6 / float(np.median(per_event_us)),
    }


# --- sections


def producers(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """More producers, 5,000 events a batch, 4 models."""
    return [_ingest(stage, plan, say, {"producers": count}, at_once=count, size=5_000) for count in plan.producers]


def batches(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Larger batches, 2 producers, 4 models."""
    return [_ingest(stage, plan, say, {"batch": size}, at_once=2, size=size) for size in plan.batch_sizes]


def _ingest(stage: Stage, plan: Plan, say: Say, head: Row, *, at_once: int, size: int) -> Row:
    say(", ".join(f"{what}: {number:,}" for what, number in head.items()))
    with stage.system(defaults=_BUDGET) as system:
        laps = [_logging(system, at_once, [f"m{n}" for n in range(4)], size, plan.seconds) for _ in range(plan.laps)]
    return _ingest_row(head, laps)


def callers(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """More producers that each wait for the acknowledgement of every event: each event is a call of its own."""
    rows = []
    for count in plan.callers:
        say(f"callers: {count}")
        processes = min(count, 4)
        with stage.system(defaults=_BUDGET) as system:
            laps = []
            for seconds in (0.5, *[plan.seconds] * plan.laps):
                before = cpu_s(system)
                told = [flush_alone.remote(system.namespace, count // processes, seconds) for _ in range(processes)]
                waits = np.concatenate(ray.get(told))
                spent = spent_since(system, before)
                costs = {role: spent[role] / len(waits) * 1e6 for role in ("broadcaster", "detector")}
                laps.append(costs | {"calls_s": len(waits) / seconds, "wait_ms": float(np.median(waits)) * 1e3})
        laps = laps[1:]  # the first made the detectors and the callers' processes
        each_us = [lap["broadcaster"] for lap in laps]
        rows.append(
            {
                "producers": count,
                "events/s": [lap["calls_s"] for lap in laps],
                "one event, flushed: p50 ms": [lap["wait_ms"] for lap in laps],
                "broadcaster us/event": each_us,
                "detectors us/event": [lap["detector"] for lap in laps],
                "broadcaster ends at events/s": 1e6 / float(np.median(each_us)),
            }
        )
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
            laps = [_rounds(system, names, plan.seconds) for _ in range(plan.laps)]
            began = time.monotonic()
            known = len(system.status()["models"])
            status_s = time.monotonic() - began
        if known != count:
            raise RuntimeError(f"status knows {known} models of {count}")
        rows.append(
            {
                "models": count,
                "first round s": first_s,
                "a round s": [lap["round_s"] for lap in laps],
                "broadcaster us/event": [lap["broadcaster_us"] for lap in laps],
                "detectors us/event": [lap["detector_us"] for lap in laps],
                "status s": status_s,
            }
        )
    return rows


def _rounds(system: System, names: list[str], seconds: float) -> dict[str, float]:
    """Log one event of each model repeatedly for `seconds`; return the median round and the cost of an event."""
    before = cpu_s(system)
    rounds: list[float] = []
    while sum(rounds) < seconds:
        began = time.monotonic()
        _round(system, names)
        rounds.append(time.monotonic() - began)
    spent, events = spent_since(system, before), len(names) * len(rounds)
    each_us = {f"{role}_us": spent[role] / events * 1e6 for role in ("broadcaster", "detector")}
    return {"round_s": float(np.median(rounds)), **each_us}


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
        with stage.system(defaults=_BUDGET) as system:
            start_s = time.monotonic() - began
            models_ = [f"m{n}" for n in range(max(4, count))]
            laps = [_logging(system, count, models_, 1_000, plan.seconds) for _ in range(plan.laps)]
            waits = [_waits(system) for _ in range(plan.laps)]
        row = _ingest_row({"nodes": count, "start s": start_s}, laps)
        quantiles = {"p50": 0.5, "p99": 0.99}
        alone = {
            f"one event, flushed: {name} ms": [float(np.quantile(lap, q)) for lap in waits] for name, q in quantiles.items()
        }
        rows.append(row | alone)
    return rows


def _waits(system: System) -> list[float]:
    waits = []
    for _ in range(200):
        began = time.monotonic()
        system.metrics.log({"accuracy": 0.93}, model="m0", version="1")
        system.metrics.flush(timeout_s=30)
        waits.append((time.monotonic() - began) * 1e3)
    return waits


def requests(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Drift everywhere at once: one retrain request of each of many models, up to so many of them at a time."""
    rows = []
    for at_once in (1, 32, 256):
        say(f"requests: {plan.requests}, {at_once} at once")
        with stage.system(defaults={"dry_run": True}) as system:
            laps = [_requests(system, f"{at_once}-{lap}", plan.requests, at_once) for lap in range(plan.laps)]
        each_us = [lap["dispatcher_us"] for lap in laps]
        rows.append(
            {
                "requests at once": at_once,
                "recorded/s": [lap["recorded_s"] for lap in laps],
                "dispatcher us/request": each_us,
                "one dispatcher ends at requests/s": 1e6 / float(np.median(each_us)),
            }
        )
    return rows


def _requests(system: System, lap: str, count: int, at_once: int) -> dict[str, float]:
    dispatcher = ray.get_actor("dispatcher", namespace=system.namespace)
    before, began = cpu_s(system), time.monotonic()
    waiting: list[Any] = []
    for number in range(count):
        name = f"{lap}-{number}"
        asked: Any = dispatcher.request.remote(
            episode=f"e-{name}",
            model=f"m-{name}",
            version="1",
            metric="accuracy",
            observed_drift=4.2,
            triggered_at=time.time(),
            explanation={"statistic": 4.2},
        )
        waiting.append(asked)
        if len(waiting) >= at_once:
            done, waiting = ray.wait(waiting, num_returns=1)
            ray.get(done)
    ray.get(waiting)
    took_s = time.monotonic() - began
    return {"recorded_s": count / took_s, "dispatcher_us": spent_since(system, before)["dispatcher"] / count * 1e6}


def idle(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Idle: watchdog, ticks, exported metrics, with more and more detector processes and models."""
    rows = []
    for models_ in plan.models[:3]:
        processes = min(16, models_)
        say(f"idle: {models_} models in {processes} processes")
        with stage.system(detectors={"max_processes": processes, "max_models": models_}) as system:
            _round(system, [f"m{n}" for n in range(models_)])
            time.sleep(2.0)
            laps = [_standing_by(system, max(plan.seconds, 5.0)) for _ in range(plan.laps)]
        shares = {f"{role}: % of a core": [lap[role] for lap in laps] for role in sorted(laps[0])}
        rows.append({"models": models_, "processes": processes, **shares})
    return rows


def _standing_by(system: System, seconds: float) -> dict[str, float]:
    before = cpu_s(system)
    time.sleep(seconds)
    return {role: used / seconds * 100 for role, used in spent_since(system, before).items()}


def trials(stage: Stage, plan: Plan, say: Say) -> list[Row]:
    """Trials that do nothing, on more and more nodes of two CPUs: the tuner's own cost per trial."""
    rows = []
    for count in plan.nodes:
        say(f"trials: {count} nodes")
        stage.grow_to(count)
        with stage.system() as system:
            # So long a first study that every worker is there.
            system.tuner.run(_sleep, {"x": [0.0, 1.0]}, trials=8 * count, seed=0, max_concurrent=2 * count)
            laps = [_trials(system, plan.trials, 2 * count, seed=lap) for lap in range(plan.laps)]
        each_us = [lap["tuner_us"] for lap in laps]
        rows.append(
            {
                "at once": 2 * count,
                "nodes used": min(int(lap["nodes"]) for lap in laps),
                "trials/s": [lap["trials_s"] for lap in laps],
                "tuner us/trial": each_us,
                "one tuner ends at trials/s": 1e6 / float(np.median(each_us)),
            }
        )
    return rows


def _trials(system: System, count: int, at_once: int, *, seed: int) -> dict[str, float]:
    before, began = cpu_s(system), time.monotonic()
    study = system.tuner.run(_nothing, {"x": [0.0, 1.0]}, trials=count, seed=seed, max_concurrent=at_once)
    took_s = time.monotonic() - began
    spent_s = spent_since(system, before)["tuner"]
    nodes_used = len({trial.node for trial in study.trials})  # read from the system, so before it ends
    return {"trials_s": count / took_s, "tuner_us": spent_s / count * 1e6, "nodes": nodes_used}


def _nothing(params: dict[str, float]) -> float:
    return params["x"]


def _sleep(params: dict[str, float]) -> float:
    time.sleep(0.5)
    return params["x"]

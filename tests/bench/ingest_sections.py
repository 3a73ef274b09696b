"""The sections of `python -m tests.bench ingest`: each starts a system on the benchmark's Ray, measures, and stops it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

import actors
from actors.metrics.client import Metrics
from actors.system import System
from tests.bench import ingest_peers as peers

Found = dict[str, Any]
_POOL: Final = 32  # different columns that are logged in turn, so that nobody sees the same batch again at once


@contextmanager
def bench_ray() -> Iterator[None]:
    """Have a private Ray of two CPUs for as long as the bench runs."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def a_system(storage: str | None = None, **sections: Any) -> Iterator[System]:
    """Start a system with a store of its own; both are gone afterwards."""
    folder = tempfile.mkdtemp(prefix="visutility-bench-")
    url = storage or f"sqlite:///{folder}/store"
    system = actors.start({"storage": url, **sections}, namespace=f"bench-{uuid.uuid4().hex[:8]}")
    try:
        yield system
    finally:
        system.stop()
        shutil.rmtree(folder, ignore_errors=True)


def spread(values: list[float]) -> Found:
    """Return the median and the range."""
    return {"median": float(np.median(values)), "low": min(values), "high": max(values), "n": len(values)}


def percentiles(values: list[float]) -> Found:
    """Return p50 and p99."""
    return {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)), "n": len(values)}


# --- throughput ------------------------------------------------------------------------------------------------


def throughput(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Events a second through log_batch to the last acknowledgement, compared with MLflow and river."""
    found: Found = {}
    # A model with so many events is given a budget in days: at the default of 10,000 events it would alarm falsely
    # many times a second, as asked. That is measured too.
    for budget, sizes in (("90d", (100, 5_000, 20_000)), (10_000, (5_000,))):
        with a_system(defaults={"false_alarm_every": budget}) as system:
            for size in sizes:
                rates = _rates(system, size, 4, laps=laps, seconds=seconds)
                name = f"batches of {size}" + ("" if budget == "90d" else ", a false alarm every 10,000 events")
                found[name] = spread(rates)
                say(f"{name}: {found[name]['median']:,.0f} events/s")
    if peers.have("mlflow"):
        found["mlflow"] = spread([peers.mlflow_events_per_s(999) for _ in range(laps)])
        found["over_mlflow"] = found["batches of 5000"]["median"] / found["mlflow"]["median"]
    if peers.have("river"):
        found["river"] = spread([peers.river_events_per_s(200_000) for _ in range(laps)])
        found["over_river"] = found["batches of 5000"]["median"] / found["river"]["median"]
    return found


def _rates(system: System, size: int, models: int, *, laps: int, seconds: float, producers: int = 1) -> list[float]:
    """Log for about `seconds` a lap; the first, which makes the processes and warms the detectors up, does not count."""
    random = np.random.default_rng(size)
    pool = [{name: np.clip(random.normal(0.9, 0.01, size), 0, 1) for name in peers.NAMES} for _ in range(_POOL)]
    clients = [Metrics(system.namespace, on_full="wait", buffer_bytes=64 * 2**20) for _ in range(producers)]
    names = [f"{size}-{models}-{i}" for i in range(models)]

    def lap(batches: int) -> float:
        started = time.perf_counter()
        for n in range(batches):
            stamps = time.time() + np.arange(size) * 1e-6
            clients[n % producers].log_batch(
                pool[int(random.integers(_POOL))], model=names[n % models], version="v1", timestamps=stamps
            )
        for client in clients:
            counts = client.flush(300)
            if counts["pending"] or counts["dropped"] or counts["rejected"]:
                raise RuntimeError(f"not everything was counted: {counts}")
        return batches * size / (time.perf_counter() - started)

    try:
        lap(max(models, 4000 // size * models, 8))
        rate = lap(max(models, 40))
        batches = max(models, int(rate * seconds / size))
        return [lap(batches) for _ in range(laps)]
    finally:
        for client in clients:
            client.close()


# --- the caller ------------------------------------------------------------------------------------------------


def caller(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Microseconds of one `log` in the caller's thread, logging as fast as it can, compared with MLflow's asynchronous call."""
    del seconds
    took: list[list[float]] = []
    with a_system() as system:
        for _ in range(laps):
            metrics = Metrics(system.namespace)
            metrics.log({"accuracy": 0.9, "precision": 0.9, "recall": 0.9}, model="m", version="v1")
            metrics.flush(60)
            lap = []
            for _ in range(30_000):
                event = {"accuracy": 0.9, "precision": 0.9, "recall": 0.9}
                started = time.perf_counter_ns()
                metrics.log(event, model="m", version="v1")
                lap.append((time.perf_counter_ns() - started) / 1000)
            took.append(lap)
            metrics.flush(60)
            metrics.close()
    found: Found = {
        "p50_us": spread([float(np.percentile(lap, 50)) for lap in took]),
        "p99_us": spread([float(np.percentile(lap, 99)) for lap in took]),
    }
    say(f"log: {found['p50_us']['median']:.1f} us")
    if peers.have("mlflow"):
        found["mlflow_us"] = spread([float(np.median(peers.mlflow_async_call_us(300))) for _ in range(min(laps, 3))])
        found["over_mlflow"] = found["mlflow_us"]["median"] / found["p50_us"]["median"]
    return found


# --- from event to order ---------------------------------------------------------------------------------------


def order(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Milliseconds from one event, logged and flushed, to its retrain order in a waiting consumer's hands."""
    del seconds
    trials = 20 * laps
    watch = {"accuracy": {"detector": "sliding-window", "direction": "down"}}
    got: dict[str, float] = {}
    took: list[float] = []
    arrived = threading.Event()
    # Few processes, so that a new model (each order needs one: the cooldown) needs no new process.
    with a_system(defaults={"watch": watch}, detectors={"max_processes": 2}) as system:
        ended = threading.Event()

        def consume() -> None:
            while not ended.is_set():
                for each in system.retrains.stream(timeout_s=1.0):
                    got[each.event.model_name] = time.perf_counter()
                    arrived.set()
                    each.done()

        consumer = threading.Thread(target=consume)
        consumer.start()
        baseline = 0.9 + 0.01 * np.sin(np.arange(60.0))
        try:
            for trial in range(trials + 3):
                model = f"m{trial}"
                system.metrics.log_batch({"accuracy": baseline}, model=model, version="v1")
                system.metrics.flush(60)
                time.sleep(0.1)  # the system is idle again
                arrived.clear()
                started = time.perf_counter()
                system.metrics.log({"accuracy": 0.1}, model=model, version="v1")
                system.metrics.flush(60)
                if not arrived.wait(30):
                    raise RuntimeError(f"no order for {model} within 30 s")
                if trial >= 3:
                    took.append((got[model] - started) * 1000)
        finally:
            ended.set()
            consumer.join()
        found = percentiles(took) | {"idle_call_ms": spread(_idle_calls_ms(system, trials))}
    idle_ms = found["idle_call_ms"]["median"]
    say(f"event to order: {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms; a bare call of an idle actor: {idle_ms:.1f} ms")
    return found


def _idle_calls_ms(system: System, calls: int) -> list[float]:
    """Time bare calls of an actor after a pause: the peer of an order, which passes four such hops."""
    import ray

    broadcaster: Any = ray.get_actor("broadcaster", namespace=system.namespace)
    took = []
    for _ in range(calls):
        time.sleep(0.1)
        started = time.perf_counter()
        ray.get(broadcaster.hello.remote())
        took.append((time.perf_counter() - started) * 1000)
    return took


# --- many models -----------------------------------------------------------------------------------------------


def models(laps: int, seconds: float, say: Callable[[str], None], count: int = 10_000) -> Found:
    """Seconds of a round of one event for each of 10,000 models in 4 processes, and their memory there."""
    del seconds
    random = np.random.default_rng(0)
    with a_system(detectors={"max_processes": 4, "max_models": count}) as system:
        metrics = Metrics(system.namespace, on_full="wait", buffer_bytes=256 * 2**20)
        names = [f"m{i}" for i in range(count)]

        def around(some: list[str]) -> float:
            started = time.perf_counter()
            for name, value in zip(some, random.normal(0.9, 0.01, len(some)).tolist(), strict=True):
                metrics.log({"accuracy": min(value, 1.0)}, model=name, version="v1")
            counts = metrics.flush(600)
            if counts["pending"] or counts["dropped"]:
                raise RuntimeError(f"not everything was counted: {counts}")
            return time.perf_counter() - started

        around(names[:4])
        before = _detector_bytes(system)
        first = around(names)
        rounds = [around(names) for _ in range(laps)]
        after = _detector_bytes(system)
        metrics.close()
    found: Found = {
        "models": count,
        "first_round_s": first,
        "round_s": spread(rounds),
        "kb_a_model": (after - before) / count / 1024,
    }
    say(f"{count} models: {found['round_s']['median']:.2f} s a round, {found['kb_a_model']:.1f} KB a model")
    return found


def _detector_bytes(system: System) -> int:
    """Return the memory of the detector processes (proportional set size)."""
    pids = [actor["pid"] for name, actor in system.status()["actors"].items() if name.startswith("detector") and actor["pid"]]
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


# --- start, and absence ----------------------------------------------------------------------------------------


def start(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Seconds from `start` to the first acknowledgement, on a Ray that runs."""
    del seconds
    took = []
    for _ in range(laps):
        started = time.perf_counter()
        with a_system() as system:
            system.metrics.log({"accuracy": 0.9}, model="m", version="v1")
            if system.metrics.flush(60)["accepted"] != 1:
                raise RuntimeError("the first event was not acknowledged within 60 s")
            took.append(time.perf_counter() - started)
            system.metrics.close()
    found = spread(took)
    say(f"start to first acknowledgement: {found['median']:.2f} s")
    return found


def away(laps: int, seconds: float, say: Callable[[str], None], bound: int = 16 * 2**20) -> Found:
    """Memory of the caller while the system is unavailable and it logs on at full speed, long after its buffer is full."""
    del laps
    metrics = Metrics(f"nobody-{uuid.uuid4().hex[:8]}", buffer_bytes=bound)
    metrics.log({"accuracy": 0.9}, model="m", version="v1")
    values = np.random.default_rng(0).uniform(0.8, 1.0, 2000).tolist()
    before = _own_bytes()
    peak = logged = 0
    deadline = time.perf_counter() + 3 * seconds
    while time.perf_counter() < deadline:
        for value in values:
            metrics.log({"accuracy": value, "precision": value, "recall": value, "loss": value}, model="m", version="v1")
        logged += 2000
        peak = max(peak, _own_bytes() - before)
    counts = metrics.counts()
    found = {"bound_mb": bound / 2**20, "grown_mb": peak / 2**20, "logged": logged + 1, **counts}
    found["all_counted"] = counts["dropped"] + counts["pending"] == logged + 1
    say(f"away: {found['grown_mb']:.0f} MB of {found['bound_mb']:.0f}, {counts['dropped']} dropped of {logged}")
    return found


def _own_bytes() -> int:
    for line in Path(f"/proc/{os.getpid()}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


# --- how it grows ----------------------------------------------------------------------------------------------


def growth(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Events a second over the batch size, the number of models and the number of producers."""
    found: Found = {"batch size": {}, "models": {}, "producers": {}}
    laps = min(laps, 3)
    with a_system(defaults={"false_alarm_every": "90d"}, detectors={"max_processes": 4, "max_models": 20_000}) as system:
        for size in (1, 10, 100, 1_000, 10_000, 100_000):
            found["batch size"][size] = spread(_rates(system, size, 4, laps=laps, seconds=seconds / 2))
            say(f"batches of {size}: {found['batch size'][size]['median']:,.0f} events/s")
        for count in (1, 10, 100, 1_000, 10_000):
            found["models"][count] = spread(_rates(system, 1_000, count, laps=laps, seconds=seconds / 2))
            say(f"{count} models: {found['models'][count]['median']:,.0f} events/s")
        for producers in (1, 2, 4, 8):
            found["producers"][producers] = spread(
                _rates(system, 1_001, 4, laps=laps, seconds=seconds / 2, producers=producers)
            )
            say(f"{producers} producers: {found['producers'][producers]['median']:,.0f} events/s")
    return found


def plot(found: Found, path: Path) -> None:
    """Draw how the throughput grows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        x = [int(each) for each in points]
        y = [each["median"] for each in points.values()]
        error = [
            [each["median"] - each["low"] for each in points.values()],
            [each["high"] - each["median"] for each in points.values()],
        ]
        axis.errorbar(x, y, yerr=error, marker="o", capsize=3)
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.set_xticks(x, [f"{each:,}" for each in x], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("events/s, committed")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)

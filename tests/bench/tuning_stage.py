"""Where the tuner is measured: a Ray of its own with the tuner and its runner, and objectives that leave traces."""

from __future__ import annotations

import heapq
import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

from actors.cluster import deployment
from actors.storage import Store
from actors.tuning.client import Tuning
from actors.tuning.study import Study

NAMESPACE: Final = "bench-tuning"
SPACE: Final = {"x": [0.0, 1.0]}
# Logical ones: trials that sleep may share a processor, and eight at once is what the makespans ask for.
CPUS: Final = 8


class Stage:
    """The tuner under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/store"
        Store(self.storage).close()  # only a start makes one
        for name in ("runner", "tuner"):
            self._hello(deployment.spawn(name, namespace=NAMESPACE, storage=self.storage))
        self.tuning = Tuning(NAMESPACE)

    def run(self, objective: Callable[..., float], trials: int, **settings: Any) -> tuple[Study, float]:
        """Run a study over SPACE; return it and the seconds from the call to its return, trials read back."""
        began_s = time.perf_counter()
        study = self.tuning.run(objective, settings.pop("space", SPACE), trials=trials, progress=False, **settings)
        return study, time.perf_counter() - began_s

    def warm(self, workers: int, executor: str = "inline") -> None:
        """Have Ray start as many worker processes as will be needed, so that no lap pays for them."""
        self.run(_nap, workers, max_concurrent=workers, resources={"cpu": 1}, executor=executor)

    def kill(self, name: str) -> None:
        """End the process of an actor as `kill -9` does."""
        os.kill(self._hello(deployment.find(name, NAMESPACE))["pid"], signal.SIGKILL)

    def _hello(self, handle: Any) -> dict[str, Any]:
        answer: dict[str, Any] = ray.get(handle.hello.remote(), timeout=60)
        return answer


@contextmanager
def stage() -> Iterator[Stage]:
    """Begin a Ray and the tuner; end both."""
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        namespace=NAMESPACE,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="bench-tuning-") as folder:
            yield Stage(Path(folder))
            deployment.end_actors(NAMESPACE)
    finally:
        ray.shutdown()


def nothing(params: dict[str, Any]) -> float:
    """Return at once."""
    return float(params["x"])


def _nap(params: dict[str, Any]) -> float:
    time.sleep(0.3)
    return float(params["x"])


def sleeping(durations_s: Sequence[float]) -> Callable[..., float]:
    """Sleep as long as the trial's place says."""

    def objective(params: dict[str, Any], trial: Any) -> float:
        time.sleep(durations_s[trial.id])
        return float(params["x"])

    return objective


def exponential(count: int, mean_s: float, seed: int = 1) -> list[float]:
    """Draw durations, the same in every run."""
    drawn: list[float] = np.random.default_rng(seed).exponential(mean_s, count).tolist()
    return drawn


def ideal_s(durations_s: Sequence[float], workers: int) -> float:
    """Return the makespan of a scheduler that costs nothing and hands trials out in their order."""
    free = [0.0] * workers
    for duration_s in durations_s:
        heapq.heappush(free, heapq.heappop(free) + duration_s)
    return max(free)


class Trace:
    """A file to which objectives write a line per execution: trial and process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def objective(self, seconds: float) -> Callable[..., float]:
        """Make an objective that takes `seconds` and writes its line before it ends."""
        path = str(self.path)

        def traced(params: dict[str, Any], trial: Any) -> float:
            time.sleep(seconds)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{trial.id} {os.getpid()}\n".encode())
            os.close(descriptor)
            return float(params["x"])

        return traced

    def executions(self) -> list[tuple[int, int]]:
        """Return (trial, process) of every execution so far."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="ascii").splitlines()
        return [(int(trial), int(pid)) for trial, pid in (line.split() for line in lines)]

    def times(self) -> Counter[int]:
        """Count the executions of each trial."""
        return Counter(trial for trial, _ in self.executions())

    def wait_for(self, executions: int, timeout_s: float = 120.0) -> None:
        """Wait until so many trials have run; TimeoutError."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.executions()) < executions:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{executions} executions have not been reached in {timeout_s:g} s")
            time.sleep(0.005)

"""How long until the eighth of eight cold workers runs: `python -m tests.bench.tuning_cold tuner | ray` prints the seconds.

Each run has a Ray of its own that has started no worker yet, so that a lap pays for every process, as a first study does.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray

from actors.cluster import deployment
from actors.storage import Store
from actors.tuning.client import Tuning

WORKERS: Final = 8
_TRIALS: Final = 64
_NAMESPACE: Final = "bench-cold"
_WITHIN_S: Final = 60.0
_SETTLE_S: Final = 2.0  # until the actors' processes have finished their start


def main() -> int:
    """Measure once and print the seconds."""
    (who,) = sys.argv[1:]
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _system_config={"prestart_worker_first_driver": False},
    )
    with tempfile.TemporaryDirectory(prefix="bench-cold-") as folder:
        storage = f"sqlite:///{folder}/store"
        Store(storage).close()  # only a start makes one
        for name in ("runner", "tuner"):  # in both: they are there before either begins
            ray.get(deployment.spawn(name, namespace=_NAMESPACE, storage=storage).hello.remote(), timeout=_WITHIN_S)
        time.sleep(_SETTLE_S)
        path = Path(folder) / "starts"
        objective = _noting(str(path))
        began_s = time.time()
        if who == "tuner":
            Tuning(_NAMESPACE).submit(objective, {"x": [0.0, 1.0]}, trials=_TRIALS, name="cold", max_concurrent=WORKERS)
        else:
            task: Any = ray.remote(objective)
            references = [task.remote({}) for _ in range(WORKERS)]
        print(_eighth_s(path) - began_s)
        if who == "tuner":
            Tuning(_NAMESPACE).stop("cold")
        else:
            ray.wait(references, num_returns=WORKERS, timeout=_WITHIN_S)
        deployment.end_actors(_NAMESPACE)
    ray.shutdown()
    return 0


def _noting(path: str) -> Callable[[dict[str, Any]], float]:
    """Make an objective that writes down when it begins, and runs until all others have begun."""

    def noting(_params: dict[str, Any]) -> float:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{time.time()}\n".encode())
        os.close(file)
        time.sleep(8.0)
        return 0.0

    return noting


def _eighth_s(path: Path) -> float:
    deadline_s = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline_s:
        starts = [float(line) for line in path.read_text(encoding="ascii").split()] if path.exists() else []
        if len(starts) >= WORKERS:
            return starts[WORKERS - 1]
        time.sleep(0.01)
    raise TimeoutError(f"{WORKERS} workers have not begun in {_WITHIN_S:g} s")


if __name__ == "__main__":
    sys.exit(main())

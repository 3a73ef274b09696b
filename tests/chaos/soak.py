"""The soak: a steady load for a long time; memory, descriptors, threads and disk must be flat once all is warm.

The first third of the time warms up: caches, allocators, retention. Then the medians of the second and the last third are
compared, which neither a peak nor a saw-tooth fools.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from actors.cluster import deployment
from tests.chaos.stage import Figure, Stage, stage

_MODELS: Final = 12
_ROWS: Final = 500
_ROUND_S: Final = 0.5
_STUDY_S: Final = 20.0
_SAMPLE_S: Final = 1.0
# A row of the retention is a batch, two a second for each model: the logs are full after a fifth of the time, before anything
# is compared. What grows afterwards grows for ever.
_BATCHES_A_MINUTE: Final = 24
_LEAST_BATCHES: Final = 60
# What the last third may have over the second: allocators and page caches breathe.
_SHARE: Final = 0.06
_LEAST_MB: Final = 4.0
_LEAST_HANDLES: Final = 3
_DISK_SHARE: Final = 0.15
_MB: Final = 2**20

Samples = dict[str, list[float]]
CONTROL: Final = "leak"


def soak(minutes: float, controls: Sequence[str] = ()) -> list[Figure]:
    """Load a system for so many minutes; return what grew."""
    document = {
        "detectors": {"max_processes": 4},
        "defaults": {"cooldown": "5s", "handler": {"kind": "channel", "lease": "10s"}},
        "retention": {"rows": int(max(_BATCHES_A_MINUTE * minutes, _LEAST_BATCHES))},
    }
    with stage(document, controls) as set_up:
        stop = threading.Event()
        load = [threading.Thread(target=each, args=(set_up, stop), daemon=True) for each in (_log, _take, _search)]
        for thread in load:
            thread.start()
        samples = _watched(set_up, time.monotonic() + 60 * minutes)
        stop.set()
        for thread in load:
            thread.join(timeout=60)
    return [_figure(name, found) for name, found in sorted(samples.items())]


def _log(set_up: Stage, stop: threading.Event) -> None:
    """Log columns for every model, versions that change, values that drift now and then."""
    random = np.random.default_rng(1)
    rounds = 0
    while not stop.wait(_ROUND_S):
        rounds += 1
        level = 0.9 if rounds // 60 % 2 == 0 else 0.6
        for model in range(_MODELS):
            accuracy = np.clip(random.normal(level, 0.01, _ROWS), 0, 1)
            set_up.system.metrics.log_batch({"accuracy": accuracy}, model=f"soak/{model}", version=f"v{rounds // 120}")


def _take(set_up: Stage, stop: threading.Event) -> None:
    """Take every order and finish it at once."""
    while not stop.is_set():
        with contextlib.suppress(Exception):  # the system is being stopped
            for order in set_up.system.retrains.stream(timeout_s=1.0):
                order.done()


def _search(set_up: Stage, stop: threading.Event) -> None:
    """Run a small study again and again, and delete it."""
    rounds = 0
    while not stop.wait(_STUDY_S):
        rounds += 1
        with contextlib.suppress(Exception):  # the system is being stopped
            space = {"x": [0.0, 1.0]}
            set_up.system.tuner.run(_objective, space, trials=200, name=f"soak-{rounds}", max_concurrent=1, progress=False)
            set_up.system.tuner.delete(f"soak-{rounds}")


def _objective(params: dict[str, Any]) -> float:
    return float(params["x"])


def _watched(set_up: Stage, end_s: float) -> Samples:
    samples: Samples = defaultdict(list)
    while time.monotonic() < end_s:
        time.sleep(_SAMPLE_S)
        pids = {"this process": os.getpid()}
        for name in deployment.names(set_up.system.namespace):
            handle = deployment.find(name, set_up.system.namespace)
            if handle is not None:
                pids[name.partition(":")[0]] = int(deployment.record(handle)["pid"])
        for name, pid in pids.items():
            with contextlib.suppress(OSError):
                folder = Path(f"/proc/{pid}")
                samples[f"{name}: memory, MB"].append(_rss_mb(folder))
                samples[f"{name}: descriptors"].append(float(len(os.listdir(folder / "fd"))))  # noqa: PTH208  quick
                samples[f"{name}: threads"].append(float(len(os.listdir(folder / "task"))))  # noqa: PTH208
        with contextlib.suppress(OSError, SQLAlchemyError):
            samples["store: disk, MB"].append(sum(each.stat().st_size for each in set_up.store.iterdir()) / _MB)
    return samples


def _rss_mb(folder: Path) -> float:
    pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


def _figure(name: str, found: list[float]) -> Figure:
    third = len(found) // 3
    if third < 5:
        return Figure(name, f"only {len(found)} samples", "5 a third", holds=False)
    middle, last = statistics.median(found[third : 2 * third]), statistics.median(found[2 * third :])
    if name.endswith("memory, MB"):
        allowed = max(_SHARE * middle, _LEAST_MB)
    elif "disk" in name:
        allowed = max(_DISK_SHARE * middle, _LEAST_MB)
    else:
        allowed = _LEAST_HANDLES
    control = CONTROL if name.startswith("detector") and "memory" in name else None
    return Figure(name, f"{middle:.1f} -> {last:.1f}", f"+{allowed:.1f} at most", last - middle <= allowed, control)

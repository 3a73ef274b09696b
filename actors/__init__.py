"""VisuTility Orchestrator: watches the metrics that jobs log, finds drift, has models retrained, tunes hyper-parameters.

    training / serving job -- log --> MetricBroadcaster --> DriftDetector --> RetrainDispatcher --> handler
                                              `--> observers                          |
    Tuner -- leases trials --> Ray worker tasks <------- a retrain may start a tuning run

The processes, one file each: `broadcaster`, `detector`, `dispatcher`, `tuner`, `runner`. What they ask is logic without Ray
or clock: `drift/`, `episodes`, `retraining/`, `tuning/`, `wire`, `config`. What they keep: `storage/`. What a job holds:
`system`, `client`, `retrains`. How the processes come and go: `deployment`, `card`, `watchdog`, `connection`.

    import actors
    system = actors.start()          # or actors.connect() in a job
    system.metrics.log({"accuracy": 0.93}, model="object-detector", version="v1.2.0")

Importing this package imports no Ray: the pure parts serve without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actors.events import MetricObserver, MetricsEvent, RetrainEvent, RetrainHandler

if TYPE_CHECKING:
    from actors.system import System

__all__ = ["MetricObserver", "MetricsEvent", "RetrainEvent", "RetrainHandler", "connect", "start"]


def start(
    source: str | Path | Mapping[str, Any] | None = None, *, address: str | None = None, namespace: str | None = None
) -> System:
    """Start a system or attach to the one that runs; see `actors.system.start`."""
    from actors import system  # noqa: PLC0415 Ray is imported only by those who need it

    return system.start(source, address=address, namespace=namespace)


def connect(
    *,
    address: str | None = None,
    namespace: str = "visutility",
    on_full: Literal["drop", "wait"] = "drop",
    buffer_bytes: int = 64 * 2**20,
) -> System:
    """Join a running system from any process on its cluster; see `actors.system.connect`."""
    from actors import system  # noqa: PLC0415

    return system.connect(address=address, namespace=namespace, on_full=on_full, buffer_bytes=buffer_bytes)

"""VisuTility Orchestrator: watches the metrics that jobs log, finds drift, has models retrained, tunes hyper-parameters.

    training / serving job -- log --> MetricBroadcaster --> DriftDetector --> RetrainDispatcher --> handler
                                              `--> observers                          |
    Tuner -- leases trials --> Ray worker tasks <------- a retrain may start a tuning run

Each actor has a package: `metrics`, `detection`, `retraining`, `tuning`. In each, `client` is the caller's side, one file is
the actor, `state` its knowledge, `tables` its storage, and `rules` decide without Ray, clock or database. Below them:
`cluster`, `config`, `storage`, `drift` (the statistics), `wire`. Above them: `system`, `status`, `telemetry`.

    import actors
    system = actors.start()          # or actors.connect() in a job
    system.metrics.log({"accuracy": 0.93}, model="object-detector", version="v1.2.0")

Importing this package does not import Ray: the pure parts work without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from actors.errors import (
    ConflictError,
    NoSystemError,
    NotConnectedError,
    UnknownNameError,
    VisuTilityError,
    WrongTypeError,
    WrongValueError,
)
from actors.events import MetricObserver, MetricsEvent, RetrainEvent, RetrainHandler

if TYPE_CHECKING:
    from actors.drift import Alarm
    from actors.metrics.client import Metrics
    from actors.notify.notification import Notification, Notifier, ReceiverError
    from actors.replies import Status
    from actors.retraining.client import RetrainOrder, Retrains
    from actors.system import System
    from actors.tuning.client import Tuning
    from actors.tuning.study import Study
    from actors.tuning.trial import Trial

__all__ = [
    "Alarm",
    "ConflictError",
    "MetricObserver",
    "Metrics",
    "MetricsEvent",
    "NoSystemError",
    "NotConnectedError",
    "Notification",
    "Notifier",
    "ReceiverError",
    "RetrainEvent",
    "RetrainHandler",
    "RetrainOrder",
    "Retrains",
    "Status",
    "Study",
    "System",
    "Trial",
    "Tuning",
    "UnknownNameError",
    "VisuTilityError",
    "WrongTypeError",
    "WrongValueError",
    "connect",
    "start",
]

# A name that needs Ray, a database or numpy is imported at its first use.
_LAZY: Final = {
    "Alarm": "actors.drift",
    "Metrics": "actors.metrics.client",
    "Notification": "actors.notify.notification",
    "Notifier": "actors.notify.notification",
    "ReceiverError": "actors.notify.notification",
    "RetrainOrder": "actors.retraining.client",
    "Retrains": "actors.retraining.client",
    "Status": "actors.replies",
    "Study": "actors.tuning.study",
    "System": "actors.system",
    "Trial": "actors.tuning.trial",
    "Tuning": "actors.tuning.client",
}


def __getattr__(name: str) -> Any:
    """Return a public type from its module."""
    if name not in _LAZY:
        raise AttributeError(f"module 'actors' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def start(
    source: str | Path | Mapping[str, Any] | None = None, *, address: str | None = None, namespace: str | None = None
) -> System:
    """Start a system or attach to a running one; see `actors.system.start`."""
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

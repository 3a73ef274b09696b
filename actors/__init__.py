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
    from actors.config import Settings
    from actors.drift import Alarm
    from actors.metrics.buffer import Counts
    from actors.metrics.client import Metrics
    from actors.metrics.versions import Versions
    from actors.notify.notification import Notification, Notifier, ReceiverError, Told
    from actors.replies import (
        ActorStatus,
        ActRow,
        Admitted,
        AttemptRow,
        EndingRecorded,
        EpisodeJudged,
        Happening,
        OrderRow,
        OrderShown,
        QueueRow,
        Reload,
        SilenceRow,
        Status,
        StudyListing,
        VersionChanged,
        VersionShown,
    )
    from actors.retraining.client import RetrainOrder, Retrains
    from actors.system import System
    from actors.tuning.client import Tuning
    from actors.tuning.progress import Progress
    from actors.tuning.rules.plan import StudyOptions
    from actors.tuning.study import Study
    from actors.tuning.trial import Trial

__all__ = [
    "ActRow",
    "ActorStatus",
    "Admitted",
    "Alarm",
    "AttemptRow",
    "ConflictError",
    "Counts",
    "EndingRecorded",
    "EpisodeJudged",
    "Happening",
    "MetricObserver",
    "Metrics",
    "MetricsEvent",
    "NoSystemError",
    "NotConnectedError",
    "Notification",
    "Notifier",
    "OrderRow",
    "OrderShown",
    "Progress",
    "QueueRow",
    "ReceiverError",
    "Reload",
    "RetrainEvent",
    "RetrainHandler",
    "RetrainOrder",
    "Retrains",
    "Settings",
    "SilenceRow",
    "Status",
    "Study",
    "StudyListing",
    "StudyOptions",
    "System",
    "Told",
    "Trial",
    "Tuning",
    "UnknownNameError",
    "VersionChanged",
    "VersionShown",
    "Versions",
    "VisuTilityError",
    "WrongTypeError",
    "WrongValueError",
    "connect",
    "start",
]

# A name that needs Ray, a database or numpy is imported at its first use.
_LAZY: Final = {
    "ActRow": "actors.replies",
    "ActorStatus": "actors.replies",
    "Admitted": "actors.replies",
    "Alarm": "actors.drift",
    "AttemptRow": "actors.replies",
    "Counts": "actors.metrics.buffer",
    "EndingRecorded": "actors.replies",
    "EpisodeJudged": "actors.replies",
    "Happening": "actors.replies",
    "Metrics": "actors.metrics.client",
    "Notification": "actors.notify.notification",
    "Notifier": "actors.notify.notification",
    "OrderRow": "actors.replies",
    "OrderShown": "actors.replies",
    "Progress": "actors.tuning.progress",
    "QueueRow": "actors.replies",
    "ReceiverError": "actors.notify.notification",
    "Reload": "actors.replies",
    "RetrainOrder": "actors.retraining.client",
    "Retrains": "actors.retraining.client",
    "Settings": "actors.config",
    "SilenceRow": "actors.replies",
    "Status": "actors.replies",
    "Study": "actors.tuning.study",
    "StudyListing": "actors.replies",
    "StudyOptions": "actors.tuning.rules.plan",
    "System": "actors.system",
    "Told": "actors.notify.notification",
    "Trial": "actors.tuning.trial",
    "Tuning": "actors.tuning.client",
    "VersionChanged": "actors.replies",
    "VersionShown": "actors.replies",
    "Versions": "actors.metrics.versions",
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
    from actors import system  # Ray is imported only by those who need it

    return system.start(source, address=address, namespace=namespace)


def connect(
    *,
    address: str | None = None,
    namespace: str = "visutility",
    on_full: Literal["drop", "wait"] = "drop",
    buffer_bytes: int = 64 * 2**20,
) -> System:
    """Join a running system from any process on its cluster; see `actors.system.connect`."""
    from actors import system  # as above

    return system.connect(address=address, namespace=namespace, on_full=on_full, buffer_bytes=buffer_bytes)

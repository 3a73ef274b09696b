"""Unit tests that play kill -9 share a process with those they killed: these must do nothing more."""

from __future__ import annotations

from actors.cluster.store_thread import StoreThread
from actors.detection.detector import DriftDetector
from actors.metrics.broadcaster import MetricBroadcaster
from actors.retraining.dispatcher import RetrainDispatcher

Killable = MetricBroadcaster | DriftDetector | RetrainDispatcher


def bury(actor: Killable) -> None:
    """Let an actor touch the store no more: it could open it once again, and succeed its own successor."""
    if isinstance(actor, RetrainDispatcher) and actor._loop_task is not None:
        actor._loop_task.cancel()
    _store_thread(actor)._thread.shutdown(wait=True, cancel_futures=True)


def _store_thread(actor: Killable) -> StoreThread:  # type: ignore[type-arg]  # of any state
    if isinstance(actor, MetricBroadcaster):
        return actor._store
    return actor._thread._thread if isinstance(actor, RetrainDispatcher) else actor._thread

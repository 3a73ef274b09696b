"""The public values and protocols: logged events, retrain orders, observers and handlers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Extra = float | str


@dataclass(frozen=True, slots=True)
class MetricsEvent:
    """Metrics that a job computed for one model at one time.

    `timestamp` is the event's own time in seconds since the epoch. `accuracy`, `precision` and `recall` are between 0 and 1;
    each may be None. The event has at least one number, among these or among `extras`, whose values are numbers or strings. `n`
    is the number of predictions behind the event, None if unknown.
    """

    model_name: str
    model_version: str
    timestamp: float
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)
    n: float | None = None


@dataclass(frozen=True, slots=True)
class RetrainEvent:
    """A request for a retrain: one per drift episode.

    `id` is the order's id, the same on every delivery. `observed_drift` is the size of the drift in deviations of the
    baseline, `triggered_at` seconds since the epoch, `episode` the episode's id (empty for a manual trigger), `explanation`
    the numbers behind the decision.
    """

    id: str
    model_name: str
    model_version: str
    metric: str
    observed_drift: float
    triggered_at: float
    episode: str
    explanation: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class MetricObserver(Protocol):
    """An object that gets every accepted event."""

    def on_event(self, event: MetricsEvent) -> None:
        """Process one event; the system logs and counts exceptions, which affect no other observer."""


@runtime_checkable
class RetrainHandler(Protocol):
    """An object that launches retrains."""

    def on_retrain(self, event: RetrainEvent) -> None:
        """Launch the retrain of `event`; raise an exception if the launch fails, and the system retries."""

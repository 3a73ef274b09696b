"""The public values: what is logged, what is asked for, and who may listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Extra = float | str


@dataclass(frozen=True, slots=True)
class MetricsEvent:
    """Metrics that a job computed for one model at one time.

    `timestamp` is the event's own time in seconds since the epoch. `accuracy`, `precision` and `recall` lie in [0, 1]; each
    may be None. At least one number is there, among them or among `extras`, whose values are numbers or strings. `n` is the
    number of predictions behind the event, None where nobody has said it.
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
    """A retrain that is asked for: one per drift episode.

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
    """Anything that wants to see every event that was accepted."""

    def on_event(self, event: MetricsEvent) -> None:
        """Take one event; an exception is logged and counted, and stops nobody else."""


@runtime_checkable
class RetrainHandler(Protocol):
    """Anything that launches a retrain."""

    def on_retrain(self, event: RetrainEvent) -> None:
        """Launch the retrain of `event`; raise where it could not be launched, and it is tried again."""

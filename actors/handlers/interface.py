"""What the dispatcher asks of a way to launch retrains, and what it gives one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from actors.events import RetrainEvent
from actors.peers import Peers
from actors.retraining.delivery import Outcome
from actors.retraining.orders import Order


class Handler(Protocol):
    """Launches orders in one way. Neither method blocks the loop it is awaited on; an exception counts as Retry.

    The attempt, `order.attempts`, is on record before `launch` is called. `launch` may be called again for the same order
    after its outcome was lost: it looks for what an earlier call has launched before it launches anything.
    """

    async def launch(self, order: Order) -> Outcome:
        """Begin the attempt that is on record, and say what came of it."""

    async def follow(self, order: Order) -> Outcome:
        """Say what has become of an attempt that was begun, perhaps by a predecessor of this process.

        Launched: it goes on. Retry with `after_s=0`: nobody knows, and sending again is how to find out.
        """


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a handler may use: the other actors, the environment (for secrets and `${NAME}`), the namespace."""

    namespace: str
    peers: Peers
    environment: Mapping[str, str]


def event_of(order: Order) -> RetrainEvent:
    """Give the public value of an order; what a study found stands in its explanation under `tuning`."""
    return RetrainEvent(**event_fields(order))


def event_fields(order: Order) -> dict[str, Any]:
    """Give the same as plain values, for the wire."""
    asked = order.request
    explanation = dict(asked.explanation)
    if order.tuning is not None:
        explanation["tuning"] = dict(order.tuning)
    return {
        "id": order.id,
        "model_name": asked.model,
        "model_version": asked.version,
        "metric": asked.metric,
        "observed_drift": float("nan") if asked.observed_drift is None else asked.observed_drift,
        "triggered_at": asked.triggered_at,
        "episode": asked.episode,
        "explanation": explanation,
    }

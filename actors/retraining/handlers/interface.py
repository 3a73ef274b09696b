"""The interface between the dispatcher and the handlers that launch retrains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from actors.cluster.peers import Peers
from actors.events import RetrainEvent
from actors.replies import EventFields
from actors.retraining.rules.delivery import Outcome
from actors.retraining.rules.orders import Order

T = TypeVar("T")


class Handler(Protocol):
    """Launches orders in one way. No method blocks the loop it is awaited on; an exception counts as Retry.

    The attempt, `order.attempts`, is on record before `launch` is called. `launch` may be called for an order whose earlier
    attempt has launched something, and nobody knows: it looks before it launches, or the receiver tells by the order's id.
    """

    async def launch(self, order: Order) -> Outcome:
        """Begin the attempt that is on record, and say what came of it."""

    async def follow(self, order: Order) -> Outcome:
        """Return what has become of an attempt that was begun, perhaps by a predecessor of this process.

        Launched: it continues, or its state is unknown now. Retry with `after_s=0`: nothing of it is left, or nobody knows and
        sending again does no harm.
        """

    async def stop(self, order: Order) -> bool:
        """End an attempt that has run for too long; return whether nothing of it runs any more. Called until it is so."""

    async def forget(self, order: Order) -> None:
        """Clean up after an attempt whose outcome is recorded; a failure here only leaves garbage."""


class ParametersInForce(Protocol):
    """Looks the parameters of a model up in the record of its orders."""

    def __call__(self, model: str, names: Collection[str], /) -> Awaitable[Mapping[str, Any] | None]:
        """Return what the model's last completed order was trained with, where a study found exactly `names`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The context of a handler besides its own settings.

    `environment` holds secrets and the values of `${NAME}`; `threads` are for calls that block.
    """

    namespace: str
    peers: Peers
    environment: Mapping[str, str]
    threads: Executor
    parameters_in_force: ParametersInForce

    async def in_thread(self, act: Callable[[], T], *, timeout_s: float) -> T:
        """Run `act` in a thread; TimeoutError after `timeout_s`, while the thread goes on for as long as it hangs."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(self.threads, act)


def event_of(order: Order) -> RetrainEvent:
    """Return the public value of an order."""
    return RetrainEvent(**event_fields(order))


def event_fields(order: Order) -> EventFields:
    """Return the same as plain values, for the wire; the result of a study is in `explanation` under `tuning`.

    A person's order has seen no drift: its `observed_drift` is 0.0.
    """
    asked = order.request
    explanation = dict(asked.explanation)
    if order.tuning is not None:
        explanation["tuning"] = dict(order.tuning)
    return {
        "id": order.id,
        "model_name": asked.model,
        "model_version": asked.version,
        "metric": asked.metric,
        "observed_drift": 0.0 if asked.observed_drift is None else asked.observed_drift,
        "triggered_at": asked.triggered_at,
        "episode": asked.episode,
        "explanation": explanation,
    }

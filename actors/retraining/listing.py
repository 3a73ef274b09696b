"""Orders and decisions as replies show them."""

from __future__ import annotations

from collections.abc import Sequence

from actors.replies import ActRow, AttemptRow, OrderRow, OrderShown, OrderState
from actors.retraining.rules.orders import Order


def row_of(order: Order, acts: Sequence[ActRow] = ()) -> OrderRow:
    """Return an order or decision as people see it, with what they have done with it."""
    asked, promise, verdict = order.request, order.promise, order.verdict
    return {
        "id": order.id,
        "model": asked.model,
        "version": asked.version,
        "metric": asked.metric,
        "cause": asked.cause,
        "episode": asked.episode,
        "observed_drift": asked.observed_drift,
        "lost": asked.lost,
        "price": asked.price,
        "state": order.state,
        "reason": order.reason,
        "handler": order.handler,
        "requested_at": order.requested_at,
        "dispatched_at": order.dispatched_at,
        "finished_at": order.finished_at,
        "attempts": order.attempts,
        "new_version": order.new_version,
        "promise": None if promise is None else promise.value,
        "promise_n": None if promise is None else promise.n,
        "promise_source": None if promise is None else promise.source,
        "verdict": None if verdict is None else verdict.word,
        "saved": None if verdict is None else verdict.saved,
        "saved_error": None if verdict is None else verdict.standard_error,
        "consumer": order.consumer,
        "acts": list(acts),
    }


def shown_of(order: Order, attempts: list[AttemptRow], acts: Sequence[ActRow] = ()) -> OrderShown:
    """Return one order with all that is known of it."""
    return {
        **row_of(order, acts),
        "status": "ok",
        "explanation": dict(order.request.explanation),
        "tuning": None if order.tuning is None else dict(order.tuning),
        "attempt_log": attempts,
    }


def state_of(order: Order) -> OrderState:
    """Return how an order stands, as the detector that asked for it sees it."""
    return {
        "order": order.id,
        "state": order.state,
        "reason": order.reason,
        "new_version": order.new_version,
        "promise": None if order.promise is None else order.promise.value,
        "promise_n": None if order.promise is None else order.promise.n,
        "verdict": None if order.verdict is None else order.verdict.word,
    }

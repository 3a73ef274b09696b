"""Reads retrain orders from a store, whether a system runs or not, as the dispatcher tells them."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from actors.retraining import tables
from actors.retraining.rules.orders import STATES, Order
from actors.storage import StoreReader

MAX_HISTORY: Final = 10_000  # rows of one reply


def as_row(order: Order) -> dict[str, Any]:
    """Return what `history` says of an order, as plain values."""
    asked = order.request
    return {
        "id": order.id,
        "model": asked.model,
        "version": asked.version,
        "metric": asked.metric,
        "episode": asked.episode,
        "observed_drift": asked.observed_drift,
        "state": order.state,
        "reason": order.reason,
        "handler": order.handler,
        "requested_at": order.requested_at,
        "dispatched_at": order.dispatched_at,
        "finished_at": order.finished_at,
        "attempts": order.attempts,
        "new_version": order.new_version,
        "consumer": order.consumer,
    }


def as_whole(order: Order, attempts: list[tables.Attempt]) -> dict[str, Any]:
    """Return what `show` says of an order: its row, its explanation and its attempts."""
    explanation = dict(order.request.explanation)
    return as_row(order) | {"explanation": explanation, "tuning": order.tuning, "attempt_log": attempts}


def check_history(limit: int, state: str | None) -> None:
    """Raise ValueError where `history` cannot be asked for so many, or for such a state."""
    if not 1 <= limit <= MAX_HISTORY:
        raise ValueError(f"limit must be from 1 to {MAX_HISTORY}, got {limit}")
    if state is not None and state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, got {state!r}")


def read_history(
    storage: str, model: str | None = None, *, limit: int = 1000, state: str | None = None
) -> list[dict[str, Any]]:
    """Return the newest `limit` orders and decisions of the store at the URL `storage`, oldest first."""
    check_history(limit, state)
    with contextlib.closing(StoreReader(storage)) as store, store.part(tables.DISPATCHER).read() as connection:
        return [as_row(order) for order in tables.read_history(connection, model=model, limit=limit, state=state)]


def read_order(storage: str, id_: str) -> dict[str, Any]:
    """Return one order of the store, with its explanation and attempts; KeyError: no such order."""
    with contextlib.closing(StoreReader(storage)) as store, store.part(tables.DISPATCHER).read() as connection:
        return as_whole(tables.known_order(connection, id_), tables.read_attempts(connection, id_))

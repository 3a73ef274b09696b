"""An order as a row of a table, and back."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from sqlalchemy import Row

from actors.clock import Instant
from actors.plain import Values
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Promise
from actors.retraining.rules.orders import Order, Request, Verdict


def plain(value: object) -> Any:
    """Return `value` as JSON can hold it: numpy as lists and numbers, numbers that are not finite as None."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def values_of(order: Order) -> Values:
    """Return an order as the columns that hold it."""
    asked = order.request
    return {
        "id": order.id,
        "model": asked.model,
        "version": asked.version,
        "metric": asked.metric,
        "observed_drift": asked.observed_drift,
        "triggered_at": asked.triggered_at,
        "episode": asked.episode,
        "explanation": json.dumps(plain(dict(asked.explanation))),
        "manual": order.manual,
        "cause": asked.cause,
        "ordinal": asked.ordinal,
        "lost": asked.lost,
        "price": asked.price,
        "receiver": receiver_of(order),
        "front": order.front,
        "started_wall_s": None if order.started is None else order.started.wall_s,
        "started_boot_s": None if order.started is None else order.started.boot_s,
        "started_boot_id": None if order.started is None else order.started.boot_id,
        "promise": None if order.promise is None else order.promise.value,
        "promise_n": None if order.promise is None else order.promise.n,
        "promise_source": None if order.promise is None else order.promise.source,
        "verdict": None if order.verdict is None else order.verdict.word,
        "verdict_saved": None if order.verdict is None else order.verdict.saved,
        "verdict_error": None if order.verdict is None else order.verdict.standard_error,
        "verdict_at": None if order.verdict is None else order.verdict.at,
        "state": order.state,
        "reason": order.reason,
        "handler": order.handler,
        "handler_settings": json.dumps(plain(dict(order.handler_settings))),
        "requested_at": order.requested_at,
        "dispatched_at": order.dispatched_at,
        "finished_at": order.finished_at,
        "attempts": order.attempts,
        "failures": order.failures,
        "rounds": order.rounds,
        "launched": order.launched,
        **countdown_values("wait", order.wait),
        "consumer": order.consumer,
        "overtaken_by": order.overtaken_by,
        "new_version": order.new_version,
        "tuning": None if order.tuning is None else json.dumps(plain(dict(order.tuning))),
    }


def order_of(row: Row[Any]) -> Order:
    """Return the order that a row holds."""
    return Order(
        id=row.id,
        request=Request(
            model=row.model,
            version=row.version,
            metric=row.metric,
            observed_drift=row.observed_drift,
            triggered_at=row.triggered_at,
            episode=row.episode,
            explanation=json.loads(row.explanation),
            cause=row.cause,
            ordinal=row.ordinal,
            lost=row.lost,
            price=row.price,
        ),
        state=row.state,
        reason=row.reason,
        handler=row.handler,
        handler_settings=json.loads(row.handler_settings),
        requested_at=row.requested_at,
        dispatched_at=row.dispatched_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        failures=row.failures,
        rounds=row.rounds,
        launched=bool(row.launched),
        wait=None if row.wait_boot_id is None else countdown_of(row, "wait"),
        consumer=row.consumer,
        overtaken_by=row.overtaken_by,
        new_version=row.new_version,
        tuning=None if row.tuning is None else json.loads(row.tuning),
        promise=None if row.promise is None else Promise(row.promise, row.promise_n, row.promise_source),
        verdict=(None if row.verdict is None else Verdict(row.verdict, row.verdict_saved, row.verdict_error, row.verdict_at)),
        started=None if row.started_boot_id is None else Instant(row.started_wall_s, row.started_boot_s, row.started_boot_id),
        front=row.front,
    )


def receiver_of(order: Order) -> str:
    """Name what an order's attempts go to: one that hangs holds up its own orders only.

    >>> receiver_of(order)  # of a webhook
    'webhook https://train.example:8443'
    """
    said = order.handler_settings
    if "defaults" in said:  # recorded by a build before 0.2, as a whole configuration
        return order.handler
    match order.handler:
        case "webhook":
            parts = urlsplit(str(said.get("url", "")))
            # Without user and password, which a URL may hold; a reference like ${HOOK} stays what it is.
            return (
                f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else f"webhook {said.get('url')}"
            )
        case "ray_job":
            return f"ray_job {said.get('address') or ''}".strip()
        case _:
            return order.handler


def countdown_of(row: Row[Any], prefix: str) -> Countdown:
    """Return the countdown in a row's columns `prefix_...`."""
    found = row._mapping
    since = Instant(found[f"{prefix}_wall_s"], found[f"{prefix}_boot_s"], found[f"{prefix}_boot_id"])
    return Countdown(since, found[f"{prefix}_left_s"])


def countdown_values(prefix: str, countdown: Countdown | None) -> Values:
    """Return the columns `prefix_...` that hold a countdown."""
    return {
        f"{prefix}_wall_s": None if countdown is None else countdown.since.wall_s,
        f"{prefix}_boot_s": None if countdown is None else countdown.since.boot_s,
        f"{prefix}_boot_id": None if countdown is None else countdown.since.boot_id,
        f"{prefix}_left_s": None if countdown is None else countdown.left_s,
    }

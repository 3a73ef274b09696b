"""What an order's state, or what a person has done with it, tells people."""

from __future__ import annotations

from typing import Final

from actors.clock import Instant
from actors.people import Signature
from actors.replies import Happening, HappeningKind, Severity, happening
from actors.retraining.rules import orders
from actors.retraining.rules.gate import Silence
from actors.retraining.rules.orders import Order

_STATES: Final[dict[str, tuple[HappeningKind, Severity]]] = {
    orders.RUNNING: ("order_launched", "info"),
    orders.DONE: ("order_done", "info"),
    orders.FAILED: ("order_failed", "warning"),
    orders.DEAD: ("order_dead", "critical"),
}
_ACTS: Final[dict[str, HappeningKind]] = {"triggered": "triggered", "retried": "retried", "dismissed": "dismissed"}


def to_order(order: Order) -> Happening | None:
    """Return what the state of an order tells: the same record in each round, however often its row is written."""
    if order.state not in _STATES:
        return None
    kind, severity = _STATES[order.state]
    started = order.requested_at if order.started is None else order.started.wall_s
    at = order.finished_at if order.finished_at is not None and kind != "order_launched" else order.dispatched_at or started
    asked = order.request
    return happening(
        kind,
        f"{order.id}:{order.rounds}",
        at,
        severity,
        model=order.model,
        version=asked.version,
        metric=asked.metric,
        subject=order.id,
        data={
            "reason": order.reason,
            "cause": asked.cause,
            "episode": asked.episode,
            "handler": order.handler,
            "new_version": order.new_version,
        },
    )


def gave_up(order: Order, in_a_row: int, now: Instant) -> Happening:
    """Return that a model asks no more, since so many of its retrains in a row came to nothing."""
    key = f"{order.id}:{order.rounds}"
    data = {"in_a_row": in_a_row, "episode": order.request.episode}
    return happening("gave_up", key, now.wall_s, "critical", model=order.model, subject=order.id, data=data)


def judged(order: Order, verdict: orders.Verdict, now: Instant) -> Happening:
    """Return whether a retrain paid."""
    severity: Severity = "warning" if verdict.word == orders.DID_NOT_PAY else "info"
    data = {"verdict": verdict.word, "saved": verdict.saved, "standard_error": verdict.standard_error}
    return happening(
        "verdict",
        order.id,
        now.wall_s,
        severity,
        model=order.model,
        version=order.new_version or order.request.version,
        metric=order.request.metric,
        subject=order.id,
        data=data,
    )


def acted(order: str, model: str | None, act: str, signed: Signature, now: Instant) -> Happening | None:
    """Return what a person has done with an order; None for what only the order's own history shows."""
    kind = _ACTS.get(act)
    if kind is None:
        return None
    key = f"{order}:{now.wall_s!r}"
    return happening(kind, key, now.wall_s, model=model, subject=order, by=signed.by, comment=signed.comment)


def silenced(silence: Silence, now: Instant) -> Happening:
    """Return that a person has silenced models."""
    data = {"pattern": silence.pattern, "label": str(silence.selector), "duration_s": silence.countdown.left_s}
    comment = silence.comment or None
    return happening("silenced", silence.id, now.wall_s, subject=silence.id, by=silence.by, comment=comment, data=data)

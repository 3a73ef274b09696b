"""Who holds an order of the channel: one live lease at a time, and a fencing token that only the newest holder has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.clock import Instant
from actors.retraining.rules import orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Jitter, Retry


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a consumer may be silent.

    The first lease is short: the call that carried the order may have outlived its caller, and then nobody would renew.
    """

    first_s: float = 10.0
    renewed_s: float = 30.0


def handed_over(order: orders.Order, consumer: str, now: Instant, terms: LeaseTerms) -> orders.Order:
    """Hand a pending order to `consumer`; its `attempts` is the token from now on."""
    return orders.begun(order, now, lease=Countdown(now, terms.first_s), consumer=consumer)


def prolonged(order: orders.Order, unserved_s: float) -> orders.Order:
    """Let time in which no renewal could be taken, because the dispatcher or its store was unavailable, not count."""
    if order.wait is None:
        return order
    return replace(order, wait=replace(order.wait, left_s=order.wait.left_s + unserved_s))


def holds(order: orders.Order, token: int) -> bool:
    """Return whether `token` is the newest one of an order that has not ended.

    A holder whose lease ran out still counts until the order is handed to somebody else: its work is as good.
    """
    return order.is_active and order.attempts == token


def lapsed(order: orders.Order, now: Instant, backoff: Backoff, jitter: Jitter) -> orders.Order | None:
    """Take an order back whose lease has run out; None while it holds. It can be handed over again at once."""
    if order.state != orders.RUNNING or order.wait is None or not order.wait.is_over(now):
        return None
    return orders.settled(order, Retry(f"the lease of {order.consumer} ran out", after_s=0), now, backoff, jitter)

"""The orders of the channel in the store: who holds which one, until when, and how it ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from sqlalchemy import Connection

from actors.clock import Instant
from actors.retraining import queue_tables, tables
from actors.retraining.commits import Commits, Handed
from actors.retraining.rules import lease, orders, queue
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Done, Failed, Retry
from actors.retraining.rules.orders import Order

# Several rounds of the dispatcher: a longer pause between them is an outage.
_SERVED_S: Final = 5.0


class Said(NamedTuple):
    """Whether an ending is on record: "recorded" (also when it is repeated), or "stale" and why."""

    status: Literal["recorded", "stale"]
    reason: str


class Leases:
    """Hands orders to consumers, one live lease an order, each with a token that only the newest holder has."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._swept: Instant | None = None  # when leases were last looked through

    def start(self, connection: Connection, now: Instant) -> None:
        """Take over from a predecessor, in its transaction: every consumer that lives gets a whole lease to be heard again.

        Nobody knows for how long renewals went unheard.
        """
        for order in tables.running_orders(connection, channel=True):
            renewed_s = self._commits.plan_of(order.model).lease_terms.renewed_s
            tables.put(connection, replace(order, wait=Countdown(now, renewed_s)))
        self._swept = now

    def take(self, consumer: str, model: str | None, now: Instant) -> Handed | None:
        """Hand the next order of the channel (of `model`, or of any) to `consumer`; None where there is none."""
        with self._commits.read() as connection:
            if self._offered(connection, model, now) is None:
                return None
        with self._commits.write() as connection:
            found = self._offered(connection, model, now)
            return None if found is None else self._commits.hand_over(connection, found, consumer, now)

    def _offered(self, connection: Connection, model: str | None, now: Instant) -> Order | None:
        room = self._commits.room(connection, now)
        if room is None:
            return next(iter(queue_tables.due_orders(connection, now, channel=True, model=model, limit=1)), None)
        if room == 0:
            return None
        waiting = queue_tables.waiting_orders(connection, now, channel=True, model=model)
        chosen = queue.next_up(waiting, queue_tables.read_load(connection, now).started, 1)
        return tables.read_order(connection, chosen[0].id) if chosen else None

    def renew(self, id_: str, token: int, now: Instant) -> float | None:
        """Renew a lease and return its seconds; None where the token is not the newest, or the order has ended."""
        with self._commits.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or not lease.holds(order, token):
                return None
            renewed_s = self._commits.plan_of(order.model).lease_terms.renewed_s
            # A lease that ran out and was not handed on is taken up again: nobody else has the order.
            tables.put(connection, replace(order, state=orders.RUNNING, wait=Countdown(now, renewed_s)))
            return renewed_s

    def finish(self, id_: str, token: int | None, ending: Done | Failed, now: Instant) -> Said:
        """Record how a retrain ended, by its consumer or, without a token, by a person. KeyError: no such order."""
        with self._commits.write() as connection:
            order = tables.known_order(connection, id_)
            if not order.is_active:
                again = orders.said_again(order, ending)
                if again is None or (token is not None and token != order.attempts):
                    version = f" as version {order.new_version!r}" if order.new_version else ""
                    return Said("stale", f"the order is {order.state} already{version}")
                if again != order:
                    tables.put(connection, again)
                return Said("recorded", f"the order was {order.state} already")
            if token is not None and not lease.holds(order, token):
                return Said("stale", f"attempt {order.attempts} was given to another consumer")
            self._commits.settle(connection, order, ending, now)
            return Said("recorded", "")

    def release(self, id_: str, token: int, reason: str, now: Instant) -> Said:
        """Take an order back from its consumer, who cannot retrain; after a pause it goes to the next one."""
        with self._commits.write() as connection:
            order = tables.known_order(connection, id_)
            if order.state != orders.RUNNING or not lease.holds(order, token):
                return Said("stale", f"the order is {order.state}, attempt {order.attempts}")
            self._commits.settle(connection, order, Retry(f"given back by {order.consumer}: {reason}"), now)
            return Said("recorded", "")

    def overdue(self, now: Instant) -> list[Order]:
        """End every order that its consumer has had for longer than `orders.timeout`; its token counts no more."""
        timeout_s = self._commits.limits.timeout_s
        if timeout_s is None:
            return []
        with self._commits.read() as connection:
            late = [each for each in tables.running_orders(connection, channel=True) if orders.ran_s(each, now) >= timeout_s]
        if not late:
            return []
        with self._commits.write() as connection:
            return [self._commits.settle(connection, order, orders.timed_out(timeout_s), now) for order in late]

    def rest(self, now: Instant) -> None:
        """Note that leases were looked after until now, where it is known that there are none."""
        self._swept = now

    def lapse(self, now: Instant) -> list[Order]:
        """Take back every order whose lease has run out, and return them; to be called every second or so.

        Where it was not, renewals could not be heard either (a frozen process, a store that was unavailable), and the leases
        are prolonged by that time.
        """
        unserved_s = now.boot_s - self._swept.boot_s if self._swept is not None else 0.0
        with self._commits.read() as connection:
            held = tables.running_orders(connection, channel=True)
        changed: list[Order] = []
        if held and unserved_s > _SERVED_S:
            changed = [lease.prolonged(order, unserved_s) for order in held]
        elif any(order.wait is not None and order.wait.is_over(now) for order in held):
            backoff, jitter = self._commits.backoff, self._commits.jitter
            changed = [after for order in held if (after := lease.lapsed(order, now, backoff, jitter)) is not None]
        if changed:
            # Between the read and here nothing can have changed: all that writes goes through the one thread that is here.
            with self._commits.write() as connection:
                for order in changed:
                    tables.put(connection, order)
                    if order.state == orders.DEAD:
                        self._commits.lose_patience(connection, order, now)
                    if order.state != orders.RUNNING:
                        tables.end_attempt(connection, order, Retry.__name__.lower(), order.reason, now)
        self._swept = now
        return [order for order in changed if order.state != orders.RUNNING]

"""What the dispatcher knows and decides about retrain orders; every change is one fenced transaction.

The rules are in `rules/`; here they meet the store: `admissions` answers requests, `leases` hands orders of the channel to
consumers, `record` answers questions, and the rest is here. Methods are called from one thread, take the instant they happen
at, and return values; StaleEpochError and the database's errors pass through, and then nothing has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from actors.clock import EVENT_TIME, Instant
from actors.retraining import tables
from actors.retraining.admissions import Admission, Admissions, admission_of
from actors.retraining.commits import Commits, Plan
from actors.retraining.leases import Leases
from actors.retraining.record import Record
from actors.retraining.rules import gate, orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Jitter, Outcome
from actors.retraining.rules.gate import Silence
from actors.retraining.rules.orders import Order
from actors.storage import Fence

CHANNEL: Final = tables.CHANNEL
# Attempts that are begun in one round; more wait for the next.
_MOST_DUE: Final = 256


class RetrainingState:
    """Orders, cooldowns, silences and leases of one system, kept in the store."""

    def __init__(
        self, fence: Fence, store_id: str, *, plan_of: Callable[[str], Plan], backoff: Backoff, jitter: Jitter
    ) -> None:
        self.commits = Commits(fence, store_id, plan_of=plan_of, backoff=backoff, jitter=jitter)
        self.admissions = Admissions(self.commits)
        self.leases = Leases(self.commits)
        self.record = Record(self.commits)

    def start(self, now: Instant) -> None:
        """Take over from a predecessor: countdowns of another boot carry on under this one."""
        events = self.commits.events
        with self.commits.write() as connection:
            if events is not None:  # as far as it had come: an arming from now on must not lie in the past
                for cooldown in tables.read_cooldowns(connection).values():
                    if cooldown.countdown.since.boot_id == EVENT_TIME:
                        events.advance_to(cooldown.countdown.since.wall_s)
            tables.rebase_countdowns(connection, now, self.commits.pace(now))
            tables.put_sighting(connection, now)
            self.leases.start(connection, now)

    # --- delivery by the dispatcher

    def due(self, now: Instant) -> list[Order]:
        """Return the pending orders that a handler other than the channel should launch now."""
        with self.commits.read() as connection:
            return tables.due_orders(connection, now, channel=False, limit=_MOST_DUE)

    def begin(self, id_: str, now: Instant) -> Order | None:
        """Put the next attempt on record, before anything is launched; None where the order is not due any more."""
        with self.commits.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or order.handler == CHANNEL or not order.is_due(now):
                return None
            # Each attempt is a launch of its own: the cooldown counts from the last one that may have had an effect.
            begun = replace(orders.begun(order, now), launched=False)
            tables.put(connection, begun)
            tables.put_attempt(connection, begun, now)
            return begun

    def settle(self, id_: str, attempt: int, outcome: Outcome, now: Instant) -> Order | None:
        """Record what came of an attempt, and re-arm the cooldown after the effect; None where it is not the present one."""
        with self.commits.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or order.state != orders.RUNNING or order.attempts != attempt:
                return None
            return self.commits.settle(connection, order, outcome, now)

    def reassign(self) -> None:
        """Hand every pending order to the handler that the configuration names now."""
        with self.commits.write() as connection:
            for order in tables.active_orders(connection):
                plan = self.commits.plan_of(order.model)
                waits = order.state == orders.PENDING and order.tuning is None
                if waits and (plan.handler, plan.handler_settings) != (order.handler, order.handler_settings):
                    tables.put(
                        connection, replace(order, handler=plan.handler, handler_settings=plan.handler_settings, wait=None)
                    )

    # --- what else changes an order

    def overtaken(self, model: str, version: str, now: Instant, over: Sequence[str] | None = None) -> Order | None:
        """Note a new version of a model, which came after `over`; give the order that expired by it, if one did."""
        with self.commits.write() as connection:
            order = tables.active_order(connection, model)
            if order is None:
                return None
            after = orders.overtaken(order, version, now, over)
            if after != order:
                tables.put(connection, after)
            return after if after.state == orders.EXPIRED else None

    def retry(self, id_: str, now: Instant) -> Admission:
        """Put a failed, dead or expired order back, at a person's word. KeyError, ValueError for any other."""
        with self.commits.write() as connection:
            order = tables.known_order(connection, id_)
            if order.is_active:
                return Admission("pending", id_, f"the order is {order.state} already")
            again = orders.put_back(order, f"put back by hand; it was {order.state}: {order.reason}")
            active = tables.active_order(connection, order.model)
            if active is not None:
                return Admission("skipped", None, f"order {active.id} of this model is not finished", gate.ASK_AGAIN_S)
            plan = self.commits.plan_of(order.model)
            if order.tuning is None:
                again = replace(again, handler=plan.handler, handler_settings=plan.handler_settings)
            tables.put(connection, again)
            self.commits.arm(connection, again, plan, now)
            return admission_of(again)

    # --- silences

    def silence(self, pattern: str, duration_s: float, comment: str, key: str, now: Instant) -> str:
        """Silence the models that `pattern` matches; the same silence for the same `key`."""
        id_ = f"{self.commits.store_id}-q-{uuid.uuid5(uuid.NAMESPACE_OID, key).hex[:16]}"
        with self.commits.write() as connection:
            tables.put_silence(connection, Silence(id_, pattern, Countdown(self.commits.pace(now), duration_s), comment), now)
        return id_

    def unsilence(self, id_: str, now: Instant) -> None:
        """End a silence. KeyError where there is none of that id."""
        with self.commits.write() as connection:
            if not tables.expire_silence(connection, id_, now):
                raise KeyError(f"silence must be the id of a known silence, got {id_!r}")

    def keep_house(self, now: Instant, *, keep_rows: int, keep_s: float) -> None:
        """Put this instant on record, and delete what is too old or too much."""
        with self.commits.write() as connection:
            tables.put_sighting(connection, now)
            tables.prune(connection, keep_rows=keep_rows, older_than_s=now.wall_s - keep_s)
            tables.prune_silences(connection, self.commits.pace(now), older_than_s=now.wall_s - keep_s)

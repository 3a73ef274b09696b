"""What every change of the retraining state shares: the fenced transaction, the model's plan, the cooldown's clock.

`state.py` and `leases.py` decide with it; nothing else writes the dispatcher's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from sqlalchemy import Connection

from actors.clock import EventClock, Instant
from actors.retraining import model_tables, queue_tables, tables
from actors.retraining.promotions import PromotionPlan
from actors.retraining.rules import happened, lease, orders, queue
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Jitter, Launched, Outcome
from actors.retraining.rules.gate import Cooldown
from actors.retraining.rules.lease import LeaseTerms
from actors.retraining.rules.orders import Order
from actors.retraining.rules.queue import Limits
from actors.storage import Fence

# Where a lease is longer than this, the first one is not: see LeaseTerms.
_FIRST_LEASE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The retrain settings of one model. `handler_settings` creates the handler."""

    cooldown_s: float
    dry_run: bool
    handler: str
    handler_settings: Mapping[str, object]
    lease_s: float
    metric: str = "accuracy"  # what a promise is about
    max_age_s: float | None = None
    give_up: int | None = None
    promotion: PromotionPlan = field(default_factory=PromotionPlan)
    in_registry: PromotionPlan = field(default_factory=PromotionPlan)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def lease_terms(self) -> LeaseTerms:
        """How long a consumer of the channel may be silent."""
        return LeaseTerms(first_s=min(_FIRST_LEASE_S, self.lease_s), renewed_s=self.lease_s)


class Handed(NamedTuple):
    """An order in a consumer's hands, and the seconds until its first renewal is due."""

    order: Order
    lease_s: float


class Commits:
    """Opens the transactions, and holds what each of them needs besides its own arguments."""

    def __init__(
        self, fence: Fence, store_id: str, *, plan_of: Callable[[str], Plan], backoff: Backoff, jitter: Jitter
    ) -> None:
        self._fence = fence
        self.store_id = store_id
        self.plan_of = plan_of
        self.backoff = backoff
        self.jitter = jitter
        # What cooldowns and silences run on in place of the wall's clock, where the system runs on event time.
        self.events: EventClock | None = None
        self.limits = Limits()
        # How often a model was removed: see `orders.age_key`. StoreError while it is being removed.
        self.lives_of: Callable[[str], int] = lambda _model: 0

    def write(self) -> AbstractContextManager[Connection]:
        """Open a fenced transaction; StaleEpochError where a successor has taken over."""
        return self._fence.write()

    def read(self) -> AbstractContextManager[Connection]:
        """Open a snapshot for reading."""
        return self._fence.part.read()

    def give_back(self) -> bool:
        """Return freed pages to the file system, in one short step; True if there are more."""
        return self._fence.part.give_back()

    def pace(self, now: Instant) -> Instant:
        """Return this moment by the clock that cooldowns and silences run on."""
        return now if self.events is None else self.events.now()

    def arm(self, connection: Connection, order: Order, plan: Plan, now: Instant) -> None:
        """Start the cooldown of the order's model."""
        model_tables.put_cooldowns(connection, {order.model: Cooldown(order.id, Countdown(self.pace(now), plan.cooldown_s))})

    def settle(self, connection: Connection, order: Order, outcome: Outcome, now: Instant) -> Order:
        """Record what the present attempt of a running order came to; re-arm the cooldown after the effect."""
        after = orders.settled(order, outcome, now, self.backoff, self.jitter)
        if not order.launched:
            # Time has passed since the claim armed it, and an attempt that failed may have launched something after all.
            self.arm(connection, order, self.plan_of(order.model), now)
        tables.put(connection, after)
        if after.state in {orders.FAILED, orders.DEAD}:
            self.lose_patience(connection, order, now)
        if not isinstance(outcome, Launched):
            tables.end_attempt(connection, after, type(outcome).__name__.lower(), getattr(outcome, "reason", ""), now)
        return after

    def lose_patience(self, connection: Connection, order: Order, now: Instant) -> None:
        """Count one more retrain of a model that came to nothing; where that is the last one, people are told."""
        model_tables.lose_patience(connection, order.model)
        limit = self.plan_of(order.model).give_up
        in_a_row = model_tables.read_patience_of(connection, [order.model])[order.model]
        if limit is not None and in_a_row == limit:
            tables.tell(connection, happened.gave_up(order, in_a_row, now))

    def room(self, connection: Connection, now: Instant) -> int | None:
        """Return how many orders may start now; None: any number."""
        return queue.room(self.limits, queue_tables.read_load(connection, now)) if self.limits.queues else None

    def count_start(self, connection: Connection) -> None:
        """Count a start, where starts are limited."""
        if self.limits.queues:
            queue_tables.count_start(connection)

    def hand_over(self, connection: Connection, order: Order, consumer: str, now: Instant) -> Handed:
        """Hand a pending order of the channel to `consumer`, under a first, short lease."""
        plan = self.plan_of(order.model)
        taken = replace(lease.handed_over(order, consumer, now, plan.lease_terms), launched=True)
        if not order.launched:
            self.arm(connection, order, plan, now)
        tables.put(connection, taken)
        tables.put_attempt(connection, taken, now)
        self.count_start(connection)
        return Handed(taken, plan.lease_terms.first_s)

"""Which of the waiting orders goes next, where the orders of all models share limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

# Every nth start goes to the oldest order, so that no order starves however much others lose.
OLDEST_EVERY: Final = 4
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many orders may run at once, how many may start in an hour, and how long one may run; None: without limit."""

    max_running: int | None = None
    max_per_hour: int | None = None
    timeout_s: float | None = None

    @property
    def queues(self) -> bool:
        """Return whether orders can have to wait for others at all."""
        return self.max_running is not None or self.max_per_hour is not None


class Load(NamedTuple):
    """How many orders run, how many were started in the last hour, and how many ever (under limits)."""

    running: int
    started_last_hour: int
    started: int


class Waiting(NamedTuple):
    """The fields of an order that the queue uses."""

    id: str
    lost: float | None = None
    price: float | None = None
    front: int = 0

    @property
    def worth(self) -> float:
        """Errors lost over the price; an order without a price counts as one that has just reached it."""
        return self.lost / self.price if self.lost is not None and self.price else 1.0


def room(limits: Limits, load: Load) -> int | None:
    """Return how many orders may start now; None: any number."""
    left = [
        limit - used
        for limit, used in ((limits.max_running, load.running), (limits.max_per_hour, load.started_last_hour))
        if limit is not None
    ]
    return max(min(left), 0) if left else None


def why(limits: Limits, load: Load) -> str:
    """Say why an order waits that is due."""
    reasons = []
    if limits.max_running is not None and load.running >= limits.max_running:
        reasons.append(f"{load.running} orders run, max_running is {limits.max_running}")
    if limits.max_per_hour is not None and load.started_last_hour >= limits.max_per_hour:
        reasons.append(f"{load.started_last_hour} orders were started in the last hour, max_per_hour is {limits.max_per_hour}")
    return " and ".join(reasons) or "next in line"


def next_up(waiting: Sequence[Waiting], started: int, count: int) -> list[Waiting]:
    """Return the `count` orders that go next, in their order, after `started` starts; `waiting` stands oldest first.

    First what a person has moved to the front, then what has lost most over its price, then the oldest. Every fourth start
    goes to the oldest order instead.

    >>> [each.id for each in next_up([Waiting("old"), Waiting("dear", 500.0, 100.0)], started=0, count=2)]
    ['dear', 'old']
    """
    ranked = sorted(waiting, key=lambda each: (-each.front, -each.worth))  # stable: of two equals the older goes first
    by_age = list(waiting)
    chosen: dict[str, Waiting] = {}
    for number in range(started, started + count):
        line = by_age if number % OLDEST_EVERY == OLDEST_EVERY - 1 else ranked
        found = next((each for each in line if each.id not in chosen), None)
        if found is None:
            break
        chosen[found.id] = found
    return list(chosen.values())

"""Decides, after a retrain, whether it has paid: whether the errors that it saved reach its price.

The old version is credited with the losses of the stretch that asked for the retrain, less z standard errors; the new version
is charged with what it loses against the same promise. So both are measured by one yardstick, and a new version that lowers
its own promise gains nothing by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

Verdict = Literal["paid", "did not pay"]

# A retrain that has not saved its price by then will not: later savings are due to the world, not to the retrain.
LONGEST_S = 90 * 86_400.0
_VARIANCE_MIN = 0.01  # of one row, as in actors.drift.Shortfall: a rate of 0 or 1 is not free of noise


class PaybackRecord(TypedDict):
    """What `Payback.memory` returns: plain values, as the store takes them."""

    order: str
    promised: float
    lost_per_row: float
    price: float
    z: float
    since: float
    rows: int
    hits: int


class Savings(NamedTuple):
    """Errors that the retrain has saved so far, with their standard error; `least` is z standard errors below."""

    saved: float
    standard_error: float
    least: float


@dataclass(slots=True)
class Payback:
    """What one retrain, `order`, has saved since its version went live.

    Args:
        order: the order's id.
        promised: the promise of the version that was replaced.
        lost_per_row: what that version lost of it in each row, beyond chance: `lost / rows` of the stretch that asked.
        price: the errors that the retrain was worth.
        z: standard errors that are put down to chance.
        since: when the new version went live, in seconds of event time.

    >>> payback = Payback("a-r-1", promised=0.9, lost_per_row=0.08, price=30.0, z=2.0, since=0.0)
    >>> payback.add(hits=900, n=1000)
    >>> round(payback.savings().least), payback.verdict(now_s=3600.0)
    (61, 'paid')
    """

    order: str
    promised: float
    lost_per_row: float
    price: float
    z: float
    since: float
    rows: int = 0
    hits: int = 0

    def add(self, *, hits: int, n: int) -> None:
        """Take one window of the new version: `hits` of its `n` rows were right."""
        self.hits += hits
        self.rows += n

    def savings(self) -> Savings:
        """Return what has been saved so far; zeros before the first window."""
        if not self.rows:
            return Savings(0.0, 0.0, 0.0)
        rate = self.hits / self.rows
        error = math.sqrt(max(rate * (1.0 - rate), _VARIANCE_MIN) * self.rows)
        saved = self.lost_per_row * self.rows - (self.promised * self.rows - self.hits)
        return Savings(saved, error, saved - self.z * error)

    def verdict(self, now_s: float) -> Verdict | None:
        """Return the verdict that is due at `now_s` (event time); None while it is open.

        It is "paid" as soon as the least that was saved reaches the price, and "did not pay" after LONGEST_S. The next
        order of the model ends it too: see `closed`.
        """
        if self.savings().least >= self.price:
            return "paid"
        return "did not pay" if now_s - self.since >= LONGEST_S else None

    def closed(self) -> Verdict:
        """Return the verdict when the next order comes: what has not paid by then did not pay."""
        return "paid" if self.savings().least >= self.price else "did not pay"

    def memory(self) -> PaybackRecord:
        """Return everything that `of_memory` needs."""
        return {
            "order": self.order,
            "promised": self.promised,
            "lost_per_row": self.lost_per_row,
            "price": self.price,
            "z": self.z,
            "since": self.since,
            "rows": self.rows,
            "hits": self.hits,
        }

    @classmethod
    def of_memory(cls, record: PaybackRecord) -> Payback:
        """Return the payback that `memory` was taken of."""
        return cls(**record)

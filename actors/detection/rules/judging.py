"""Decides when a retrain is judged, did it pay or not, and keeps the one that is judged.

Pure. One retrain at a time is judged, from the first event of its version on, until its savings reach its price, the next
order comes, or too much time has passed (`verdict.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from actors.detection.rules.verdict import Payback, PaybackRecord, Verdict
from actors.replies import ShortfallNumbers


@dataclass(frozen=True, slots=True)
class Judged:
    """What an order's retrain has come to."""

    order: str
    verdict: Verdict
    saved: float
    standard_error: float
    at: float


class AwaitedRecord(TypedDict):
    """A retrain that is judged from the first event of its version on."""

    version: str
    order: str
    numbers: ShortfallNumbers


class Judging:
    """The retrain of one model that is being judged, or waits for its version.

    Example:
        judging = Judging()
        judging.begin("order-1", numbers, at=0.0)
        judging.take(hits=900, n=1000, at=60.0)  # [Judged(...)] once it has paid
    """

    def __init__(self, payback: PaybackRecord | None = None, awaited: AwaitedRecord | None = None) -> None:
        """Begin with nothing to judge, or from `memory`."""
        self._payback = None if payback is None else Payback.of_memory(payback)
        self._awaited = awaited

    @property
    def is_judging(self) -> bool:
        """Whether a retrain is being judged."""
        return self._payback is not None

    def begin(self, order: str, numbers: ShortfallNumbers, at: float) -> None:
        """Judge the retrain of this order from now on; `numbers` are those of the shortfall that asked for it."""
        self._awaited = None
        lost_per_row = numbers["lost"] / numbers["stretch_rows"]
        self._payback = Payback(order, numbers["promised"], lost_per_row, numbers["price"], numbers["z"], at)

    def await_version(self, version: str, order: str, numbers: ShortfallNumbers) -> None:
        """Judge the retrain of this order from the moment at which its version goes live."""
        self._awaited = {"version": version, "order": order, "numbers": numbers}

    def went_live(self, version: str, at: float) -> None:
        """Learn that a version has gone live."""
        awaited = self._awaited
        if awaited is not None and awaited["version"] == version:
            self.begin(awaited["order"], awaited["numbers"], at)

    def take(self, *, hits: int, n: int, at: float) -> list[Judged]:
        """Take what the live version got right, and return the verdict if there is one now."""
        if self._payback is None:
            return []
        self._payback.add(hits=hits, n=n)
        return self.due(at)

    def due(self, at: float) -> list[Judged]:
        """Return the verdict if there is one by now."""
        verdict = None if self._payback is None else self._payback.verdict(at)
        return [] if verdict is None else self._close(verdict, at)

    def ordered(self, at: float) -> list[Judged]:
        """Learn that the model has got its next order: what has not paid by now did not pay."""
        self._awaited = None
        return [] if self._payback is None else self._close(self._payback.closed(), at)

    def _close(self, verdict: Verdict, at: float) -> list[Judged]:
        payback, self._payback = self._payback, None
        if payback is None:
            return []
        savings = payback.savings()
        return [Judged(payback.order, verdict, savings.saved, savings.standard_error, at)]

    def memory(self) -> tuple[PaybackRecord | None, AwaitedRecord | None]:
        """Return what the constructor takes."""
        return None if self._payback is None else self._payback.memory(), self._awaited

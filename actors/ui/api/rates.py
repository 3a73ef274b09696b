"""How fast one caller may post events: a bucket of ten seconds' worth that fills evenly."""

from __future__ import annotations

from typing import Final

from actors.recent import Recent

BURST_S: Final = 10.0
_CALLERS: Final = 10_000


class Rates:
    """A bucket for each caller; one call may overdraw it, and the next waits until it has filled again.

    >>> rates = Rates(10)
    >>> rates.wait_s("job", 0.0), rates.wait_s("job", 0.0)
    (0.0, 0.0)
    >>> rates.spend("job", 150, 0.0)
    >>> rates.wait_s("job", 0.0), rates.wait_s("job", 6.0)
    (5.0, 0.0)
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = per_s * BURST_S
        self._left: Recent[str, tuple[float, float]] = Recent(_CALLERS)

    def wait_s(self, caller: str, now_s: float) -> float:
        """Return the seconds until this caller may post again, 0 where it may now."""
        left = self._now(caller, now_s)
        return max(0.0, -left / self._per_s)

    def spend(self, caller: str, events: int, now_s: float) -> None:
        """Take what a call has cost."""
        self._left[caller] = self._now(caller, now_s) - max(1, events), now_s
        self._left.trim()

    def _now(self, caller: str, now_s: float) -> float:
        left, at = self._left[caller] if caller in self._left else (self._most, now_s)  # noqa: SIM401  no dict
        return min(self._most, left + (now_s - at) * self._per_s)

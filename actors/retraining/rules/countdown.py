"""How long something still lasts, by a clock that nobody can step."""

from __future__ import annotations

from dataclasses import dataclass

from actors.clock import Instant


@dataclass(frozen=True, slots=True)
class Countdown:
    """A span of time that never ends too early, whatever the wall clock does.

    Time counts as passed only where the clock since boot saw it pass: within the boot of `since`. What passed while the
    machine was off, or on another machine, is unknown and does not count, so after a reboot or a failover to another node a
    countdown may last longer than configured, by at most the time since the last recorded time (`rebased`), never shorter.
    """

    since: Instant
    left_s: float

    def remaining_s(self, now: Instant) -> float:
        """Return the seconds left at `now`; 0.0 once it has ended."""
        return max(self.left_s - _known_s(self.since, now), 0.0)

    def is_over(self, now: Instant) -> bool:
        """Return whether nothing is left."""
        return self.remaining_s(now) <= 0.0

    def rebased(self, now: Instant, seen: Instant | None) -> Countdown:
        """Carry on under the boot of `now`.

        `seen` is the last instant that a process of the former boot put on record; what ran until then counts.
        """
        if self.since.boot_id == now.boot_id:
            return self
        known_s = 0.0 if seen is None else _known_s(self.since, seen)
        return Countdown(now, max(self.left_s - known_s, 0.0))


def _known_s(start: Instant, end: Instant) -> float:
    return max(end.boot_s - start.boot_s, 0.0) if start.boot_id == end.boot_id else 0.0

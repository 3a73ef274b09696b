"""The only reader of clocks: an instant as this machine sees it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by two clocks: the wall's, which may be stepped, and the machine's since boot, which may not.

    `boot_s` of two instants can be compared only where `boot_id` is the same.
    """

    wall_s: float
    boot_s: float
    boot_id: str

    def seconds_since(self, earlier: Instant) -> float:
        """Elapsed seconds: by the boot clock where both instants share a boot, else by the wall; never negative."""
        if self.boot_id == earlier.boot_id:
            return max(self.boot_s - earlier.boot_s, 0.0)
        return max(self.wall_s - earlier.wall_s, 0.0)


class Clock(Protocol):
    """Says what time it is; injected everywhere, so that a replay can run on event time."""

    def now(self) -> Instant:
        """Return this moment."""


class SystemClock:
    """Wall time and time since boot (suspended time included) of this machine."""

    def now(self) -> Instant:
        """Return this moment."""
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot_id())


EVENT_TIME: Final = "event-time"  # replaces the boot id if time passes with the events


def event_instant(at_s: float) -> Instant:
    """Return the moment of an event as logic takes it: one clock, that of the events' own timestamps."""
    return Instant(at_s, at_s, EVENT_TIME)


class EventClock:
    """Stands where it was put: the clock of a replay, moved on by the events' own timestamps."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> Instant:
        """Return this moment."""
        return event_instant(self._now_s)

    def advance_to(self, now_s: float) -> None:
        """Move on to `now_s`; a late event does not turn the clock back."""
        self._now_s = max(self._now_s, now_s)


@cache
def boot_id() -> str:
    """Name this boot of this machine; a container without the kernel's file gets a name for this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return uuid.uuid4().hex

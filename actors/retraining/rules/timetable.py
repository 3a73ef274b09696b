"""When the orders of a queue start, played on a clock that the caller moves on: the queue of a rehearsal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from actors.retraining.rules import queue
from actors.retraining.rules.queue import HOUR_S, Limits, Load, Waiting


class _Asked(NamedTuple):
    waiting: Waiting
    takes_s: float
    begin: Callable[[float], None]


class Timetable:
    """Starts orders like the dispatcher's queue, each at the moment when a slot becomes free.

    >>> started = []
    >>> table = Timetable(Limits(max_running=1))
    >>> for name in ("a", "b"):
    ...     table.ask(Waiting(name), at_s=0.0, takes_s=60.0, begin=lambda at_s, name=name: started.append((name, at_s)))
    >>> table.advance(100.0)
    >>> started
    [('a', 0.0), ('b', 60.0)]
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[str, _Asked] = {}  # oldest first
        self._ends: list[float] = []  # of what runs
        self._starts: list[float] = []  # within the last hour
        self._started = 0  # ever
        self._now_s = float("-inf")

    def ask(self, waiting: Waiting, *, at_s: float, takes_s: float, begin: Callable[[float], None]) -> None:
        """Put an order into the queue at `at_s`; `begin(start_s)` is called when it starts, then it runs for `takes_s`."""
        self.advance(at_s)
        self._waiting[waiting.id] = _Asked(waiting, takes_s, begin)
        self._start_what_fits()

    def drop(self, id_: str) -> None:
        """Take an order out that has expired; one that has started keeps its place until it ends."""
        self._waiting.pop(id_, None)

    def advance(self, to_s: float) -> None:
        """Move the clock on: start every order that gets a slot until then, at its moment. The clock never goes back."""
        while True:
            self._start_what_fits()
            # Only these free a slot.
            moments = [*self._ends, *(start + HOUR_S for start in self._starts)]
            later = [each for each in moments if self._now_s < each <= to_s]
            if not later or not self._waiting:
                break
            self._now_s = min(later)
        self._now_s = max(self._now_s, to_s)

    def _start_what_fits(self) -> None:
        self._ends = [each for each in self._ends if each > self._now_s]
        self._starts = [each for each in self._starts if self._now_s - each < HOUR_S]
        while self._waiting:
            room = queue.room(self._limits, Load(len(self._ends), len(self._starts), self._started))
            if room == 0:
                return
            (chosen,) = queue.next_up([each.waiting for each in self._waiting.values()], self._started, 1)
            asked = self._waiting.pop(chosen.id)
            self._started += 1
            self._starts.append(self._now_s)
            if asked.takes_s > 0:
                self._ends.append(self._now_s + asked.takes_s)
            asked.begin(self._now_s)

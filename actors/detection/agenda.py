"""When each model next has something to do by time alone, so that a thousand silent models cost nothing each second."""

from __future__ import annotations

import heapq


class Agenda:
    """The earliest time at which each name may be due; who takes a name looks again whether it is.

    A time may be too early, never too late: what moves it on, as each new event does, need not be written down.

    >>> agenda = Agenda()
    >>> agenda.put("a", 5.0)
    >>> agenda.put("b", 3.0)
    >>> agenda.put("a", 9.0)
    >>> agenda.take(4.0), agenda.next_at, agenda.take(5.0)
    (['b'], 5.0, ['a'])
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}

    def put(self, name: str, at: float) -> None:
        """Look at `name` at time `at` at the latest."""
        known = self._at.get(name)
        if known is None or at < known:
            self._at[name] = at
            heapq.heappush(self._heap, (at, name))

    def take(self, now: float) -> list[str]:
        """Take out the names whose time has come, the earliest first."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._at.get(name) == at:
                del self._at[name]
                taken.append(name)
        return taken

    @property
    def next_at(self) -> float | None:
        """The earliest time at which a name may be due; None: nothing waits."""
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        """Forget all names."""
        self._heap.clear()
        self._at.clear()

"""Holds attempts back from a receiver that is not heard, so that it costs the others no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# So many attempts in a row without an answer open the circuit.
_MISSES: Final = 4
_FIRST_PAUSE_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 300.0
# Attempts under way at once: a quarter of this is plenty for one receiver, and several that hang leave places for the others.
MAX_AT_ONCE: Final = 64
_PER_RECEIVER: Final = 8
_MAX_RECEIVERS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    misses: int = 0
    pause_s: float = _FIRST_PAUSE_S
    closed_at_s: float = 0.0  # from then on one attempt may try again


class Circuits:
    """Says for each receiver whether an attempt may begin now. An order that is held back has not failed: it waits.

    While a receiver is heard, up to 8 attempts may be under way at it. After 4 in a row without any answer, one at a time may
    try, with a pause in between that doubles from 10 s to 5 minutes; the first answer ends that.
    """

    def __init__(self) -> None:
        self._silent: dict[str, _Known] = {}

    def allows(self, receiver: str, under_way: int, now_s: float) -> bool:
        """Return whether another attempt may begin at `receiver`, where `under_way` are in progress."""
        known = self._silent.get(receiver)
        if known is None or known.misses < _MISSES:
            return under_way < _PER_RECEIVER
        return under_way == 0 and now_s >= known.closed_at_s

    def heard(self, receiver: str) -> None:
        """Note that a receiver has answered, whatever it said."""
        self._silent.pop(receiver, None)

    def silent(self, receiver: str, now_s: float) -> bool:
        """Note an attempt without any answer; return whether it opened the circuit."""
        known = self._silent.pop(receiver, _Known())
        misses = known.misses + 1
        if misses > _MISSES:
            known = replace(known, pause_s=min(known.pause_s * 2, _LONGEST_PAUSE_S))
        if len(self._silent) >= _MAX_RECEIVERS:
            del self._silent[next(iter(self._silent))]  # the one that has been silent least lately; it is only asked more often
        self._silent[receiver] = replace(known, misses=misses, closed_at_s=now_s + known.pause_s)
        return misses == _MISSES

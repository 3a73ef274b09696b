"""The interface of a source: a function from a position to the rows after it and the new position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

# A place is plain JSON, and means something to its source alone; None: nothing has been read yet.
Place = Any


class SourceError(RuntimeError):
    """A source cannot be read now; the text says why, and holds no secret."""


class Row(NamedTuple):
    """One event as a source has it."""

    model: str
    version: str
    at_s: float
    metrics: Mapping[str, float]
    n: float | None = None


class Promised(NamedTuple):
    """The promise of a version's accuracy, on a hold-out of `n` rows."""

    model: str
    version: str
    value: float
    n: float


class Announced(NamedTuple):
    """A version that a registry has; `live`: its alias points there."""

    model: str
    version: str
    live: bool
    by: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a source after a position.

    `refused` counts what was there and is no event, and `problem` says why for the first. `has_more`: ask again at once.
    `is_whole`: the source looks at everything each time, so without a problem there is none any more.
    """

    rows: Sequence[Row]
    place: Place
    promises: Sequence[Promised] = ()
    announced: Sequence[Announced] = ()
    refused: int = 0
    problem: str | None = None
    has_more: bool = False
    is_whole: bool = False


@dataclass(slots=True)
class Refusals:
    """Counts rows that are no events, and keeps the first reason."""

    count: int = 0
    problem: str | None = field(default=None)

    def add(self, problem: str) -> None:
        """Count one more."""
        self.count += 1
        self.problem = self.problem or problem


class Source(Protocol):
    """Reads; it keeps nothing, changes nothing, and may be made anew between two calls.

    Example:
        class Coin:
            def read(self, place, now_s):
                tossed = (place or 0) + 1
                return Answer([Row("coin", "1", now_s, {"accuracy": 0.5})], tossed)
    """

    def read(self, place: Place, now_s: float) -> Answer:
        """Return what comes after `place`; SourceError, or any other exception, where it cannot be read now."""

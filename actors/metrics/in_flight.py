"""Bounds what callers wait for in the broadcaster at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, TypedDict

_MAX_BYTES: Final = 256 * 2**20
_MAX_BATCHES: Final = 200_000
# Each call carries some batches. Ray lets ACTOR_OPTIONS' number into the actor at once: what is left is for `hello`.
MAX_CALLS: Final = 2_000


class InFlightCounts(TypedDict):
    """What the broadcaster has taken in and not answered yet."""

    bytes: int
    batches: int
    calls: int


class InFlight:
    """Counts what is in flight.

    if in_flight.has_room(size, len(batches)):
        with in_flight.taken(size, len(batches)):
            replies = await forward(batches)
    """

    def __init__(self) -> None:
        self._bytes = self._batches = self._calls = 0

    def has_room(self, size: int, batches: int) -> bool:
        """Whether one more call, of `batches` that hold `size` bytes, stays within the bounds."""
        return self._bytes + size <= _MAX_BYTES and self._batches + batches <= _MAX_BATCHES and self._calls < MAX_CALLS

    @contextlib.contextmanager
    def taken(self, size: int, batches: int) -> Iterator[None]:
        """Count one call while the block runs."""
        self._bytes, self._batches, self._calls = self._bytes + size, self._batches + batches, self._calls + 1
        try:
            yield
        finally:
            self._bytes, self._batches, self._calls = self._bytes - size, self._batches - batches, self._calls - 1

    def counts(self) -> InFlightCounts:
        """Return what is in flight now."""
        return {"bytes": self._bytes, "batches": self._batches, "calls": self._calls}

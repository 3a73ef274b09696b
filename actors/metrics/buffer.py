"""The events that are logged but not acknowledged: bounded, counted, in order. Safe to use from several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypedDict

from actors import wire
from actors.metrics import sealing
from actors.metrics.sealing import Packed
from actors.metrics.sender import BATCH_BYTES, Settled
from actors.plain import Json

logger = logging.getLogger(__name__)

OnFull = Literal["drop", "wait"]
# model, version, time, metrics, n, whether this process has stamped the time, and what it counts for in `Buffer.bytes`.
Logged = tuple[str, str, float, Json, float | None, bool, int]

# What one buffered event costs this process besides its metrics: a tuple, a dict, a time (measured with tracemalloc).
EVENT_BYTES: Final = 400
METRIC_BYTES: Final = 72
# A batch of rows: enough to share the costs of a call, few enough to be packed in some milliseconds.
_SEAL_ROWS: Final = 5_000


class Counts(TypedDict):
    """Events since a client was made, by what became of them; `bad_values` counts values, of events that were accepted."""

    accepted: int
    duplicate: int
    rejected: int
    dropped: int
    bad_values: int
    pending: int


class Buffer:
    """Holds at most so many bytes; what does not fit is dropped and counted, or waits.

    The fields are public for `Metrics.log`, which puts events in under `lock` without a call more than it needs.
    """

    def __init__(self, limit: int, on_full: OnFull, rouse: Callable[[], None]) -> None:
        """`rouse` has the background thread look at what is new."""
        self.lock = threading.Lock()
        self.limit = limit
        self.bytes = 0  # of rows and batches here, and of batches that are numbered and not acknowledged
        self.rows: list[Logged] = []
        self.logged = 0
        self._on_full = on_full
        self._rouse = rouse
        self._room = threading.Condition(self.lock)
        self._packed: list[tuple[str, Packed]] = []  # by `add_packed`, and the rows that were logged before
        self._accepted = self._duplicate = self._rejected = self._dropped = self._bad_values = 0
        self._has_warned = False

    # --- the caller's thread

    def has_room(self, size: int, events: int) -> bool:
        """Free space in the buffer if possible, while holding the lock; False: the events were dropped and counted."""
        if self.bytes + size <= self.limit:
            return True
        if self._on_full == "wait" and size <= self.limit:
            self._rouse()
            while self.bytes + size > self.limit:
                self._room.wait(0.5)
                self._rouse()
            return True
        self._dropped += events
        if not self._has_warned:
            self._has_warned = True
            logger.warning("the buffer of %d bytes is full: events are dropped and counted", self.limit)
        return False

    def add_packed(self, model: str, packed: Packed) -> None:
        """Take a batch; the rows that were logged before it go before it."""
        size = len(packed.payload) + BATCH_BYTES
        with self.lock:
            if any(row[0] == model for row in self.rows):
                rows, row_bytes = self._taken_rows()
                sealed = seal(rows)
                self.bytes += _size(sealed) - row_bytes
                self._packed += sealed
            self.logged += packed.rows
            if self.has_room(size, packed.rows):
                self.bytes += size
                self._packed.append((model, packed))

    def counts(self) -> Counts:
        """Return how many events there are of each outcome."""
        with self.lock:
            return {
                "accepted": self._accepted,
                "duplicate": self._duplicate,
                "rejected": self._rejected,
                "dropped": self._dropped,
                "bad_values": self._bad_values,
                "pending": self.logged - self._settled,
            }

    def wait(self, target: int, timeout_s: float) -> bool:
        """Wait until `target` of the logged events are settled, or something is, at most `timeout_s`; tell whether they are."""
        with self._room:
            if self._settled < target:
                self._room.wait(timeout_s)
            return self._settled >= target

    # --- the background thread

    @property
    def owes(self) -> bool:
        """Whether an event has been logged that is not settled."""
        with self.lock:
            return self.logged != self._settled

    def take(self) -> list[tuple[str, Packed]]:
        """Take everything that was logged, as batches by model, in order."""
        with self.lock:
            sealed, self._packed = self._packed, []
            rows, row_bytes = self._taken_rows()
        if rows:  # packed without the lock: nobody who logs waits for it
            packed = seal(rows)
            with self.lock:
                self.bytes += _size(packed) - row_bytes
            sealed += packed  # whatever `add_packed` took has the earlier rows of its model before it
        return sealed

    def settle(self, settled: Settled) -> None:
        """Count events that are done with, and free what they took."""
        with self._room:
            self._accepted += settled.accepted
            self._duplicate += settled.duplicate
            self._rejected += settled.rejected
            self._bad_values += settled.bad_values
            self.bytes -= settled.size
            self._room.notify_all()

    @property
    def _settled(self) -> int:
        return self._accepted + self._duplicate + self._rejected + self._dropped

    def _taken_rows(self) -> tuple[list[Logged], int]:
        rows, self.rows = self.rows, []
        return rows, sum(row[-1] for row in rows)


def seal(rows: Sequence[Logged]) -> list[tuple[str, Packed]]:
    """Pack rows by model, in their order; a new batch begins where the times are no longer this process's, or are again."""
    by_model: dict[str, list[tuple[bool, list[wire.Row]]]] = {}
    for model, version, time, metrics, n, is_stamped, _ in rows:
        parts = by_model.setdefault(model, [])
        if not parts or parts[-1][0] is not is_stamped or len(parts[-1][1]) == _SEAL_ROWS:
            parts.append((is_stamped, []))
        parts[-1][1].append((version, time, metrics, n))
    return [
        (model, packed._replace(is_stamped=is_stamped))
        for model, parts in by_model.items()
        for is_stamped, part in parts
        for packed in sealing.packed_rows(part)
    ]


def _size(batches: Sequence[tuple[str, Packed]]) -> int:
    return sum(len(packed.payload) + BATCH_BYTES for _, packed in batches)

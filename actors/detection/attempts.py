"""Which batches are being tried, on record: one that ends its process, or fails in it, is recognised when it comes again.

The store keeps the counts, so they survive any kill and any number of failing producers. Only the first batch of a producer in
a process's life is put on record before it is tried: what ended the last life is resent first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from actors import failpoints
from actors.detection import tables
from actors.detection.model import Ingest, Work
from actors.recent import Recent
from actors.storage import Fence

# A batch that has ended its process so often, or failed in it, is set aside: its sequence must not block the model for ever.
CRASHES: Final = 3

Key = tuple[str, str]  # model and producer


class Attempts:
    """The records of one process's batches. It remembers at most `limit` producers."""

    def __init__(self, fence: Fence, limit: int) -> None:
        self._fence = fence
        # Whose first batch in this process's life has come through.
        self._proven: Recent[Key, None] = Recent(limit)
        # Whose batch is on record as being tried, its sequence, and how often it had been tried before. None of them may be
        # forgotten: its batch would count as tried once more.
        self._noted: dict[Key, tuple[int, int]] = {}

    def note(self, works: Sequence[Work], marks: Recent[Key, int]) -> int:
        """Put batches of producers not heard of before on record; return how often one of them had been tried.

        A batch that comes before its turn by `marks`, the high-water marks, is not tried, and must not take the place of the
        one that is. Of several works none is put on record where one had been tried: they are not tried together.
        """
        fresh: dict[Key, int] = {}
        for work in works:
            if isinstance(work, Ingest) and work.producer is not None and work.sequence <= marks[work.key]:
                fresh.setdefault(work.key, work.sequence)
        fresh = {key: sequence for key, sequence in fresh.items() if key not in self._proven and key not in self._noted}
        if fresh and len(works) > 1:
            with self._fence.part.read() as connection:
                tries = max(tables.load_attempts(connection, fresh).values())
            if tries:
                return tries
        if fresh:
            self._write(fresh)
            failpoints.reach("detector.after_attempt")
        return max((self._noted[w.key][1] for w in works if isinstance(w, Ingest) and self._is_noted(w)), default=0)

    def noted(self, works: Iterable[Work]) -> list[Key]:
        """Return those of the batches that are on record: they come through with the commit of these works."""
        return list({work.key: None for work in works if isinstance(work, Ingest) and self._is_noted(work)})

    def failed(self, work: Ingest) -> int:
        """Count a batch that failed without ending its process; return how often it has been tried now.

        Its next try is put on record like a first one.
        """
        if not self._is_noted(work):  # a later batch of a producer that was heard of before
            self._write({work.key: work.sequence})
        tries = self._noted.pop(work.key)[1] + 1
        self._proven.discard(work.key)
        return tries

    def came_through(self, keys: Iterable[Key]) -> None:
        """Learn that these are settled, and off the record."""
        for key in keys:
            self._noted.pop(key, None)
            self._proven[key] = None
        self._proven.trim()

    def _is_noted(self, work: Ingest) -> bool:
        noted = self._noted.get(work.key)
        return noted is not None and noted[0] == work.sequence

    def _write(self, batches: Mapping[Key, int]) -> None:
        with self._fence.write() as connection:
            before = tables.load_attempts(connection, batches)
            tables.write_attempts(connection, {key: (sequence, before[key] + 1) for key, sequence in batches.items()})
        self._noted.update({key: (sequence, before[key]) for key, sequence in batches.items()})

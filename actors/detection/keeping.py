"""Keeps the retention of one process's models in short steps, so that ingest waits for none of it for long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from actors.clock import Instant
from actors.detection import old_rows
from actors.detection.models import Models
from actors.detection.tables import happened
from actors.detection.weighing import Weighing
from actors.storage import Fence, happenings

_PRODUCER_S: Final = 30 * 86_400.0  # a producer that was silent for so long has no batch in flight any more


class Keeping:
    """Applies the retention: removes rows that are too old or too many. Not thread-safe: one thread uses it."""

    def __init__(self, fence: Fence, models: Models, process: str) -> None:
        self._fence = fence
        self._models = models
        self._process = process
        self._grown: set[str] = set()

    def has_grown(self, names: Iterable[str]) -> None:
        """Learn whose logs a commit has made longer."""
        self._grown.update(names)

    def grown(self) -> list[str]:
        """Return the models that have logged since the last call: their logs may be longer than the retention."""
        grown, self._grown = self._grown, set()
        return sorted(grown)

    def overlong(self, names: Sequence[str], now: Instant) -> list[str]:
        """Return those of the models whose logs are beyond the retention."""
        retention = self._models.settings.retention
        with self._fence.part.read() as connection:
            return old_rows.overlong(connection, names, before_s=now.wall_s - retention.age_s, rows=retention.rows)

    def weighing(self) -> Weighing | None:
        """Return what adds the logs up; None where no limit is in bytes."""
        retention = self._models.settings.retention
        if retention.model_bytes is None and retention.store_bytes is None:
            return None
        return Weighing(model_bytes=retention.model_bytes, store_bytes=retention.store_bytes)

    def weigh(self, weighing: Weighing, name: str, below: int | None, at_most: int) -> int | None:
        """Add up to `at_most` batches of a model, those before `below`; return where to go on, None at the end."""
        with self._fence.part.read() as connection:
            snapshot, batches = old_rows.weighed(connection, name, below=below, at_most=at_most)
        on = weighing.add(name, snapshot, batches) and len(batches) == at_most
        return batches[-1][0] if on else None

    def trim(self, name: str, now: Instant, at_most: int, upto: int = 0) -> int:
        """Trim a model's log to the retention, in one short transaction; return how many batches went.

        Up to number `upto`, they go whatever their age: see `weighing`.
        """
        retention = self._models.settings.retention
        before_s = now.wall_s - retention.age_s
        with self._fence.write() as connection:
            return old_rows.trim(connection, name, before_s=before_s, rows=retention.rows, at_most=at_most, upto=upto)

    def forget_old(self, now: Instant) -> None:
        """Forget producers, closed episodes, happenings and batches that were set aside, beyond the retention."""
        retention = self._models.settings.retention
        before_s = now.wall_s - retention.age_s
        with self._fence.write() as connection:
            gone = old_rows.forget_producers(connection, self._process, min(before_s, now.wall_s - _PRODUCER_S))
            old_rows.forget_episodes(connection, self._process, before_s)
            old_rows.forget_quarantine(connection, self._process, before_s)
            happenings.prune(connection, happened, keep_rows=retention.rows, older_than_s=before_s)
        if gone:
            self._models.forget_marks()

    def give_back(self) -> bool:
        """Return freed pages to the file system, in one short step; True if there are more."""
        return self._fence.part.give_back()

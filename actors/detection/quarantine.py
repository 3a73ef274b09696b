"""Sets aside a batch that ends or breaks its process each time: its rows count as rejected, its bytes stay for a person."""

from __future__ import annotations

import logging

from actors import wire
from actors.clock import Instant
from actors.detection.attempts import CRASHES
from actors.detection.intake import REASON, Intake
from actors.detection.model import Ingest
from actors.detection.models import Models
from actors.detection.rows import Changes
from actors.replies import Ingested, Rejection, ingested

logger = logging.getLogger(__name__)


class Quarantine:
    """Sets batches aside, as part of a commit. Not thread-safe: one thread uses it."""

    def __init__(self, models: Models, intake: Intake, epoch: int) -> None:
        self._models = models
        self._intake = intake
        self._epoch = epoch

    def set_aside(self, work: Ingest, reason: str, changes: Changes, now: Instant) -> Ingested:
        """Stage that a producer's batch goes into quarantine, because of `reason`; return the reply.

        Its rows are rejected and its sequence is consumed. A batch that came before its turn stages nothing: a gap.
        """
        high = self._models.marks[work.key]
        if work.sequence > high:
            return self._intake.gap(work.sequence, high)
        model = self._models.get_or_new(work.model)
        rows = wire.unpack(work.payload).rows
        skip = min(high - work.sequence, rows)
        changes.quarantine.append(
            {
                "model": model.name,
                "producer": str(work.producer),
                "sequence": work.sequence,
                "count": rows - skip,
                "received_at": now.wall_s,
                "reason": reason[:REASON],
                "payload": work.payload,
            }
        )
        high = max(high, work.sequence + rows)
        self._intake.note_mark(work, high, changes, now, client=None)
        changes.tried.append(work.key)
        model.quarantined += 1
        rule = f"was set aside after {CRASHES} failures: {reason}"[:REASON]
        rejection: Rejection = {"index": skip, "field": "batch", "value": rows - skip, "rule": rule}
        model.reject(rows - skip, rejection, now)
        logger.error("setting aside a batch of %s (%s, sequence %d): %s", model.name, work.producer, work.sequence, reason)
        return ingested("accepted", duplicates=skip, rejected=[rejection], high_water=high, epoch=self._epoch)

"""A model's log through other settings, bounded so that a page answers within seconds."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from actors import wire
from actors.config import ModelSettings
from actors.detection import stored
from actors.detection.logged import read_log
from actors.detection.rules import promises
from actors.detection.tables import UNREADABLE
from actors.rehearsal import Rehearsal, Summary

MAX_BATCHES: Final = 2000


def summary(connection: Connection, model: str, settings: ModelSettings) -> Summary | None:
    """Return the summary of a rehearsal over the oldest batches of the log; None where this part does not know the model."""
    if model not in stored.read_status(connection, model):
        return None
    rehearsal = Rehearsal(model, settings, baselines=stored.all_samples(connection, model))
    for row in islice(read_log(connection, model, promises=True), MAX_BATCHES):
        with contextlib.suppress(*UNREADABLE):
            if row.count == 0:
                rehearsal.promise(promises.unpacked(row.payload))
                continue
            seen = wire.recheck(row.payload, row.received_at, row.skip)
            rehearsal.take(seen.batch, seen.ok, row.skip)
    return rehearsal.outcome().summary()

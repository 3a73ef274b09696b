"""Counts what arrives: of each batch the rows that are new go into the log, and what they say to its model."""

from __future__ import annotations

import logging
from typing import Final

from actors import wire
from actors.clock import Instant
from actors.detection import effects, tables
from actors.detection.model import Ingest, Model
from actors.detection.models import Models
from actors.detection.rows import Changes, Payload
from actors.replies import Ingested, Rejection, ingested

logger = logging.getLogger(__name__)

REASON: Final = 500  # characters of a reason that are kept


class Intake:
    """Counts batches of the models of one process, as part of a commit. Not thread-safe: one thread uses it."""

    def __init__(self, models: Models, epoch: int) -> None:
        self._models = models
        self._epoch = epoch

    def take(self, work: Ingest, changes: Changes, now: Instant) -> Ingested:
        """Count a batch, stage its rows, and return the reply: accepted, refused (it cannot be read) or a gap."""
        high = 0 if work.producer is None else self._models.marks[work.key]
        sequence = high if work.producer is None else work.sequence
        if sequence > high:
            return self.gap(sequence, high)
        try:
            batch = wire.unpack(work.payload)
        except ValueError as error:
            return self._refused(work, str(error), high, now)
        model = self._models.get_or_new(work.model)
        skip = min(high - sequence, batch.rows)
        batch, payload = _clamped(work, batch, model, now)
        verdict = wire.check(batch, now.wall_s, skip)
        batch, count = verdict.batch, verdict.batch.rows - skip
        if count:
            _feed(model, batch, verdict.ok, skip, now)
            changes.log.append(
                {
                    "model": model.name,
                    "number": model.number,
                    "producer": work.producer,
                    "sequence": sequence,
                    "skip": skip,
                    "count": count,
                    "received_at": now.wall_s,
                    "payload": payload,
                }
            )
        model.events += count - verdict.rejected
        model.duplicates += skip
        model.bad_values += verdict.bad_values
        model.reject(verdict.rejected, (work.rejection or verdict.listed[-1]) if verdict.listed else None, now)
        if work.producer is not None:
            high = max(high, sequence + batch.rows)
            self.note_mark(work, high, changes, now, client=work.client)
        return self._accepted(verdict, count, skip, high)

    def gap(self, sequence: int, high: int) -> Ingested:
        """Return the reply to a batch that came before its turn."""
        reason = f"the next sequence is {high}, got {sequence}"
        return ingested("gap", high_water=high, epoch=self._epoch, reason=reason, retry_in_s=0.0)

    def note_mark(self, work: Ingest, high: int, changes: Changes, now: Instant, *, client: dict[str, int] | None) -> None:
        """Stage the high-water mark that a batch's producer has reached."""
        self._models.marks[work.key] = high
        changes.producers.append(
            {
                "model": work.model,
                "producer": str(work.producer),
                "high_water": high,
                "seen_at": now.wall_s,
                "client": None if client is None else tables.pack(client),
            }
        )

    def _refused(self, work: Ingest, rule: str, high: int, now: Instant) -> Ingested:
        known = self._models.get(work.model)
        if known is not None:  # no model begins with a bad batch
            rejection: Rejection = {"index": 0, "field": "payload", "value": len(work.payload), "rule": rule[:REASON]}
            known.reject(wire.declared_rows(work.payload), rejection, now)
        reply = ingested("refused", high_water=high, epoch=self._epoch, reason=rule)
        reply["counted"] = known is not None
        return reply

    def _accepted(self, verdict: wire.Verdict, count: int, skip: int, high: int) -> Ingested:
        reply = ingested(
            "accepted",
            accepted=count - verdict.rejected,
            duplicates=skip,
            rejected=verdict.listed,
            high_water=high,
            epoch=self._epoch,
        )
        if verdict.bad_value is not None:
            reply["bad_values"], reply["bad_value"] = verdict.bad_values, verdict.bad_value
        return reply


def _clamped(work: Ingest, batch: wire.Batch, model: Model, now: Instant) -> tuple[wire.Batch, Payload]:
    """Return the batch with the times that count, and its bytes: a sender's own clock may run ahead of ours."""
    if not work.is_stamped:
        return batch, work.payload
    batch, ahead_s = wire.clamped(batch, now.wall_s)
    if not ahead_s:
        return batch, work.payload
    model.clock_ahead = {"s": ahead_s, "at": now.wall_s}
    return batch, wire.pack(batch)  # the log is read again: with the times that count


def _feed(model: Model, batch: wire.Batch, ok: wire.Bools | None, skip: int, now: Instant) -> None:
    """Show the rows that count to everything that learns from them, and gather what it decides."""
    before = list(model.monitor.versions)
    taken = model.monitor.take(batch, ok, skip, keep=model.in_use)
    model.number += 1
    model.rows_since += batch.rows
    model.has_logged(now)
    effects.decided(model, model.retrain.take(batch, ok, skip), before, now)
    for version, metric, reason in taken.errors:
        logger.error(
            "%s %s: %s is no longer watched, because its detector cannot process it: %s", model.name, version, metric, reason
        )
    for feed in taken.feeds:
        model.effects += model.book.feed(feed, now, model.retrain.informs(feed.version))
    model.dropped += taken.dropped_versions
    # Each time the number of events has doubled is often enough to follow a rate.
    if (model.events + batch.rows).bit_length() != model.events.bit_length() and model.monitor.follow_rate():
        model.force_snapshot = True
    if model.on_event_time:  # days may pass between two ticks of the wall's clock
        model.effects += model.book.tick(now, model.pace(now), pays=model.retrain.pays)

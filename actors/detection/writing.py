"""What of a model a commit writes, so that a successor finds all that this process knows."""

from __future__ import annotations

import logging
import zlib
from typing import Final

from actors.clock import Instant
from actors.detection import effects, tables
from actors.detection.model import Model, ModelMemory
from actors.detection.rows import Changes
from actors.detection.rules import happened
from actors.detection.rules.decisions import Tell

logger = logging.getLogger(__name__)

# A snapshot every so many batches: a restart replays at most that many, and 40 KB of state cost little besides their bytes.
SNAPSHOT_BATCHES: Final = 256
SNAPSHOT_ROWS: Final = 2_000_000


def write_down(model: Model, process: str, changes: Changes, now: Instant) -> list[Tell]:
    """Stage everything of a model that a successor must find; return what people are told after the commit."""
    outgoing, told = effects.carried_out(model, process, now)
    changes.outbox += outgoing
    due = SNAPSHOT_BATCHES + zlib.crc32(model.name.encode()) % 64  # not all models of a process at once
    if model.number - model.snapshot >= due or model.rows_since >= SNAPSHOT_ROWS:
        model.force_snapshot = True
    if model.force_snapshot:
        model.snapshot = model.number
        changes.states += [
            {"model": model.name, "version": version, "metric": metric, "kind": kind, "state": state}
            for version, metric, kind, state in model.monitor.dirty_states()
        ]
    changes.log += model.rows
    changes.samples += model.samples
    changes.dropped_versions += [(model.name, version) for version in model.dropped]
    changes.judgements += model.judgements
    changes.happenings += [*model.happenings, *happened.in_records(model.book.changed(), now.wall_s)]
    model.rows, model.samples, model.dropped, model.judgements, model.happenings = [], [], [], [], []
    changes.episodes += [tables.episode_row(record) for record in model.book.changed()]
    changes.models.append(
        {
            "model": model.name,
            "process": process,
            "events": model.events,
            "duplicates": model.duplicates,
            "rejected": model.rejected,
            "number": model.number,
            "snapshot": model.snapshot,
            "last_at": now.wall_s if model.last_seen is None else model.last_seen.wall_s,
            "memory": tables.pack(_memory(model)),
        }
    )
    _warn_unwatched(model)
    return told


def written(model: Model) -> None:
    """Learn that the commit came through."""
    if model.force_snapshot:
        model.monitor.written()
        model.rows_since, model.force_snapshot = 0, False
    model.book.written()


def _memory(model: Model) -> ModelMemory:
    memory = model.monitor.memory()
    for version, held in memory["versions"].items():
        drifting = model.book.drifting(version)
        if model.book.open_of(version) is not None:
            held["state"] = "drifting"
        for metric in drifting.keys() & held["metrics"].keys():
            # What the detector learns now is the drifted level; the episode keeps the old one.
            progress = held["metrics"][metric]["progress"]
            progress["state"], progress["baseline"] = "drifting", drifting[metric]
    return {
        **memory,
        "no_data": model.no_data,
        "quarantined": model.quarantined,
        "flagged": model.book.flagged,
        "retrain": model.retrain.memory(),
        "deployed": model.deployed,
        "rejection": model.rejection,
        "bad_values": model.bad_values,
        "clock_ahead": model.clock_ahead,
        "state": model.state(),
        "ordinal": model.book.ordinal,
    }


def _warn_unwatched(model: Model) -> None:
    if model.events and not model.warned and not model.monitor.watched:
        model.warned = True
        watched = ", ".join(model.settings.watch) or "none"
        logger.warning("%s logs no watched metric (%s): it shows as unwatched", model.name, watched)

"""Reads models from a store, without a detector process: for status, history, rehearsals, chaos."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, func, select

from actors.detection.model import ModelMemory
from actors.detection.rules.record import is_shortfall
from actors.detection.tables import (
    DAMAGED,
    DETECTOR,
    UNREADABLE,
    episode_of,
    episodes,
    judgements,
    models,
    outbox,
    producers,
    quarantine,
    sample_of,
    samples,
    unpack,
)
from actors.plain import Json
from actors.replies import DamageShown, Episode, ModelStatus, SetAside, VersionProgress
from actors.storage import Part, Store
from actors.wire import Floats, messages


def detector_parts(store: Store) -> list[Part]:
    """Return every part that a detector process has written so far."""
    return [store.part(DETECTOR, slot) for slot in store.slots(DETECTOR)]


class Shown(NamedTuple):
    """What a row of a model was last read as: nobody changes it."""

    digest: int  # of its packed memory
    status: ModelStatus


def read_status(
    connection: Connection,
    model: str | None = None,
    unreadable: list[str] | None = None,
    known: dict[str, Shown] | None = None,
) -> dict[str, ModelStatus]:
    """Return {model: {"events", "duplicates", "rejected", "state", "versions", "open_episodes", ...}} as the store has it.

    `open_episodes` are those of alarms, `open_requests` what was asked for since a retrain pays. A row that cannot be read is
    left out, and named in `unreadable`. `known` is a caller's memory of the rows that it has read before: of thousands, only
    those that have changed are unpacked again.
    """
    skipped = [] if unreadable is None else unreadable
    chosen = select(models)
    held = select(episodes.c.id, episodes.c.model, episodes.c.record).where(episodes.c.open == 1)
    if model is not None:
        chosen, held = chosen.where(models.c.model == model), held.where(episodes.c.model == model)
    waiting = select(outbox.c.model, func.count()).group_by(outbox.c.model)  # what the dispatcher has not confirmed yet
    undelivered = {row[0]: row[1] for row in connection.execute(waiting)}
    hurt = read_damage(connection)
    found: dict[str, ModelStatus] = {}
    for row in connection.execute(chosen.order_by(models.c.model)):
        try:
            found[row.model] = _shown_again(row, undelivered.get(row.model, 0), hurt.get(row.model), known)
        except UNREADABLE:
            skipped.append(f"model {row.model}")
    for row in connection.execute(held.order_by(episodes.c.opened_at)):
        try:
            record = episode_of(row.record)
            is_open, is_alarm = record["closed_at"] is None, not is_shortfall(record)
        except UNREADABLE:
            skipped.append(f"episode {row.id}")
            continue
        if row.model in found and is_open:
            shown = found[row.model]
            (shown["open_episodes"] if is_alarm else shown["open_requests"]).append(row.id)
    return found


def _shown_again(row: Any, undelivered: int, damaged: DamageShown | None, known: dict[str, Shown] | None) -> ModelStatus:
    if known is None:
        return _shown(row, unpack(row.memory), undelivered, damaged)
    before, digest = known.get(row.model), hash(bytes(row.memory))
    if before is None or before.digest != digest:
        before = known[row.model] = Shown(digest, _shown(row, unpack(row.memory), undelivered, damaged))
    again = before.status.copy()
    again["events"], again["duplicates"], again["rejected"] = row.events, row.duplicates, row.rejected
    again["last_at"], again["undelivered"], again["damaged"] = row.last_at, undelivered, damaged
    again["open_episodes"], again["open_requests"] = [], []
    return again


def _shown(row: Any, memory: ModelMemory, undelivered: int, damaged: DamageShown | None) -> ModelStatus:
    versions: dict[str, VersionProgress] = {
        version: {
            "events": held["events"],
            "late": held["late"],
            "state": held["state"],
            "metrics": {metric: seen["progress"] for metric, seen in held["metrics"].items()},
        }
        for version, held in memory["versions"].items()
    }
    return {
        "events": row.events,
        "duplicates": row.duplicates,
        "rejected": row.rejected,
        "last_at": row.last_at,
        "open_episodes": [],
        "open_requests": [],
        "undelivered": undelivered,
        "damaged": damaged,
        "state": memory["state"],
        "late": sum(held["late"] for held in memory["versions"].values()),
        "quarantined": memory.get("quarantined", 0),
        "flagged": memory.get("flagged", []),
        "last_rejection": memory.get("rejection"),
        "bad_values": memory.get("bad_values", 0),
        "clock_ahead": memory.get("clock_ahead"),
        "pinned": memory.get("pinned"),
        "retrain": memory["retrain"]["shown"] if "retrain" in memory else None,
        "versions": versions,
    }


def read_judgements(connection: Connection, since_s: float) -> dict[str, dict[str, int]]:
    """Count what people say of the episodes that were opened since: {model: {"true": n, "false": n}}."""
    grouped = (
        select(judgements.c.model, judgements.c.verdict, func.count())
        .where(judgements.c.opened_at >= since_s)
        .group_by(judgements.c.model, judgements.c.verdict)
    )
    found: dict[str, dict[str, int]] = {}
    for model, verdict, count in connection.execute(grouped):
        found.setdefault(model, {"true": 0, "false": 0})[verdict] = int(count)
    return found


def read_clients(connection: Connection, since_s: float, limit: int = 1000) -> dict[str, Json]:
    """Return the counters of the clients heard of since, by producer: the newest that each of them sent along."""
    rows = connection.execute(
        select(producers.c.producer, producers.c.seen_at, producers.c.client)
        .where(producers.c.seen_at >= since_s, producers.c.client.is_not(None))
        .order_by(producers.c.seen_at.desc())
        .limit(limit)
    )
    found: dict[str, Json] = {}
    for row in rows:
        if row.producer not in found:
            try:
                counters = messages.told_client(unpack(row.client))
            except UNREADABLE:
                counters = None
            found[row.producer] = {"seen_at": row.seen_at, **(counters or {})}
    return found


def read_episode(connection: Connection, episode: str) -> Episode | None:
    """Return an episode's whole record, None if there is none."""
    found = connection.execute(select(episodes.c.record).where(episodes.c.id == episode)).scalar()
    return None if found is None else episode_of(found)


def list_episodes(connection: Connection, model: str | None = None, limit: int = 1000) -> list[Episode]:
    """Return the newest episodes' records, oldest first."""
    wanted = select(episodes.c.record).order_by(episodes.c.opened_at.desc(), episodes.c.ordinal.desc()).limit(limit)
    if model is not None:
        wanted = wanted.where(episodes.c.model == model)
    found: list[Episode] = []
    for row in connection.execute(wanted):
        with contextlib.suppress(*UNREADABLE):  # damaged: the model's process reports it
            found.append(episode_of(row.record))
    return found[::-1]


def all_samples(connection: Connection, model: str) -> dict[str, dict[str, Floats]]:
    """Return the given baselines of all versions of a model: float64[n] by version and metric."""
    found: dict[str, dict[str, Floats]] = {}
    for row in connection.execute(
        select(samples.c.version, samples.c.metric, samples.c.sample).where(samples.c.model == model)
    ):
        with contextlib.suppress(ValueError):  # damaged: the model's process reports it
            found.setdefault(row.version, {})[row.metric] = sample_of(row.sample)
    return found


def read_damage(connection: Connection) -> dict[str, DamageShown]:
    """Return, by model, the rows of the store that could not be read and were set aside within the retention."""
    wanted = (
        select(quarantine.c.model, quarantine.c.reason, quarantine.c.received_at)
        .where(quarantine.c.producer.in_(DAMAGED))
        .order_by(quarantine.c.received_at)
    )
    found: dict[str, DamageShown] = {}
    for row in connection.execute(wanted):
        rows = found[row.model]["rows"] if row.model in found else 0
        found[row.model] = {"rows": rows + 1, "last": row.reason, "at": row.received_at}
    return found


def read_quarantine(connection: Connection, limit: int = 1000) -> list[SetAside]:
    """Return the batches that were set aside, without their bytes."""
    rows = connection.execute(
        select(
            quarantine.c.model,
            quarantine.c.producer,
            quarantine.c.sequence,
            quarantine.c["count"],
            quarantine.c.received_at,
            quarantine.c.reason,
        )
        .order_by(quarantine.c.received_at)
        .limit(limit)
    )
    return [cast("SetAside", dict(row._mapping)) for row in rows]

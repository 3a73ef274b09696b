"""Compares what the store holds with what producers saw acknowledged and what handlers saw launched.

Everything is read from records: the store's tables and the ledgers of the run's processes. Nothing is asked of an actor.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from actors import wire
from actors.detection import logged
from actors.detection import stored as detector_stored
from actors.detection import tables as detector_tables
from actors.detection.stored import detector_parts
from actors.replies import ModelStatus
from actors.retraining import tables as dispatcher_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import Store
from tests.chaos import ledger
from tests.chaos.launches import LAUNCHES
from tests.chaos.ledger import Ack, AckReader
from tests.chaos.producers import ack_path
from tests.chaos.scenario import CHANNELS, HOOK, MODELS, Floats, sources_of
from tests.chaos.zombies import SOURCE as ZOMBIE

# Two machines' clocks need not agree; here it is one, and a launch is noted a moment after it was made.
CLOCK_S: Final = 0.05
_SHOWN: Final = 5


@dataclass(slots=True)
class Findings:
    """What the comparison found; `examples` are for a person."""

    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    twice: int = 0
    foreign: int = 0  # events in the log that nobody sent
    set_aside: int = 0  # batches in quarantine
    miscounted: int = 0  # models whose counters do not agree with their log
    stale: int = 0
    episodes: int = 0
    orders: int = 0
    launches: int = 0
    orders_lost: int = 0
    launched_twice: int = 0
    within_cooldown: int = 0
    attempts_again: int = 0  # orders that took more than one attempt
    examples: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep an example, if there are few yet."""
        if len(self.examples) < 4 * _SHOWN:
            self.examples.append(text)


def check(storage: str, folder: Path, sources: Sequence[int], *, cooldown_s: float) -> Findings:
    """Read everything and compare."""
    findings = Findings()
    store = Store(storage)
    try:
        acks = {source: list(AckReader(ack_path(folder, source)).more()) for source in sources}
        counters: dict[str, ModelStatus] = {}
        for part in detector_parts(store):
            with part.read() as connection:
                counters.update(detector_stored.read_status(connection))
                findings.set_aside += len(detector_stored.read_quarantine(connection))
                for model in MODELS:
                    rows = list(logged.read_log(connection, model))
                    if rows:
                        _check_log(findings, model, rows, acks, counters.get(model))
        for model in set(MODELS) - counters.keys():
            if any(MODELS[ack.model] == model for source in acks.values() for ack in source):
                findings.lost += sum(ack.rows for source in acks.values() for ack in source if MODELS[ack.model] == model)
                findings.say(f"{model}: acknowledged, and not in the store at all")
        findings.acknowledged = sum(_acknowledged(each) for each in acks.values())
        _check_orders(findings, store, folder, cooldown_s)
    finally:
        store.close()
    return findings


def _acknowledged(acks: Sequence[Ack]) -> int:
    ends: dict[int, int] = defaultdict(int)
    for ack in acks:
        ends[ack.model] = max(ends[ack.model], ack.sequence + ack.rows)
    return sum(ends.values())


# --- events


def _check_log(
    findings: Findings, model: str, rows: Sequence[Any], acks: Mapping[int, Sequence[Ack]], counter: Mapping[str, Any] | None
) -> None:
    index = MODELS.index(model)
    ids = np.concatenate([_ids(row) for row in rows])
    findings.stored += len(ids)
    twice = len(ids) - len(np.unique(ids))
    findings.twice += twice
    if twice:
        findings.say(f"{model}: {twice} events are counted more than once")
    found = sources_of(np.unique(ids))
    for source, numbers in found.items():
        if source not in acks:
            findings.foreign += len(numbers)
            if source != ZOMBIE:
                findings.say(f"{model}: {len(numbers)} events of source {source}, who is not known")
    for source, own in acks.items():
        end = max((ack.sequence + ack.rows for ack in own if ack.model == index), default=0)
        numbers = found.get(source, np.empty(0, dtype=np.int64))
        missing = end - int((numbers < end).sum())
        findings.lost += missing
        if missing:
            findings.say(f"{model}: {missing} of {end} events that source {source} saw acknowledged are not in the log")
        # Beyond what was acknowledged there may be a tail, but no hole: the sequence is contiguous.
        if len(numbers) and int(numbers.max()) + 1 != len(numbers) and not missing:
            findings.lost += int(numbers.max()) + 1 - len(numbers)
            findings.say(f"{model}: the events of source {source} have a hole beyond those that were acknowledged")
    _check_epochs(findings, model, rows, acks)
    if counter is None or counter["events"] != len(ids) or _versions(counter) != len(ids):
        findings.miscounted += 1
        told = None if counter is None else (counter["events"], _versions(counter))
        findings.say(f"{model}: the log has {len(ids)} events, its counters say {told}")


def _ids(row: Any) -> Floats:
    batch = wire.unpack(row.payload, stored=True)
    values: Floats = batch.columns["id"].values[row.skip :]
    return values


def _versions(counter: Mapping[str, Any]) -> int:
    return sum(int(version["events"]) for version in counter["versions"].values())


def _check_epochs(findings: Findings, model: str, rows: Sequence[Any], by_source: Mapping[int, Sequence[Ack]]) -> None:
    """Count commits of an epoch that come after one of a later epoch in the order of the log.

    Only an acknowledgement of events that this very call counted says which epoch committed them.
    """
    index = MODELS.index(model)
    epochs: dict[tuple[str, int], int] = {}
    for source, own in by_source.items():
        for ack in own:
            if ack.model == index and ack.epoch and ack.accepted and not ack.duplicates:
                epochs[f"chaos-{source}", ack.sequence] = ack.epoch
    latest = 0
    for row in rows:
        epoch = epochs.get((row.producer, row.sequence))
        if epoch is None:
            continue
        if epoch < latest:
            findings.stale += 1
            findings.say(f"{model}: batch {row.number} was committed by epoch {epoch} after one of epoch {latest}")
        latest = max(latest, epoch)


# --- orders


def _check_orders(findings: Findings, store: Store, folder: Path, cooldown_s: float) -> None:
    with store.part(DISPATCHER).read() as connection:
        orders = {row.id: row for row in connection.execute(select(dispatcher_tables.retrains))}
        attempts = list(connection.execute(select(dispatcher_tables.attempts)))
    given = {id_: row for id_, row in orders.items() if row.state not in {"skipped", "dry_run"}}
    findings.orders = len(given)
    findings.attempts_again = sum(row.attempts > 1 for row in given.values())
    launches = ledger.notes(folder / LAUNCHES)
    consumed = ledger.notes(folder / "consumed.jsonl")
    findings.launches = len(launches) + sum(note["what"] == "taken" for note in consumed)
    _check_episodes(findings, store, orders)
    _check_endings(findings, given, launches, consumed)
    _check_once(findings, given, launches, consumed)
    _check_cooldowns(findings, given, attempts, launches, cooldown_s)


def _check_episodes(findings: Findings, store: Store, orders: Mapping[str, Any]) -> None:
    """Every episode's request has come to the dispatcher, and its answer back."""
    for part in detector_parts(store):
        with part.read() as connection:
            records = detector_stored.list_episodes(connection, limit=1_000_000)
            waiting = connection.execute(select(detector_tables.outbox.c.id)).scalars().all()
        findings.episodes += len(records)
        findings.orders_lost += len(waiting)
        for id_ in waiting:
            findings.say(f"outbox: {id_} was never recorded by the dispatcher")
        for record in records:
            order = record["order"]
            if order is not None and order["order"] not in orders:
                findings.orders_lost += 1
                findings.say(f"{record['id']}: its order {order['order']} is not in the dispatcher's book")
            elif record["request"]["state"] == "asking" and record["id"] not in waiting:
                findings.orders_lost += 1
                findings.say(f"{record['id']}: asked, and nothing came of it")


def _check_endings(
    findings: Findings, given: Mapping[str, Any], launches: Sequence[Mapping[str, Any]], consumed: Sequence[Mapping[str, Any]]
) -> None:
    """Every order has ended; one that is done was launched, every launch has its order."""
    seen = {launch["order"].partition(".")[0] for launch in launches} | {note["order"] for note in consumed}
    for id_, row in given.items():
        if row.state in {"pending", "running", "dead", "failed"}:
            findings.orders_lost += 1
            findings.say(f"{id_} of {row.model} is {row.state} at the end: {row.reason}")
        elif row.state == "done" and id_ not in seen:
            findings.orders_lost += 1
            findings.say(f"{id_} of {row.model} is done, and nobody saw it launched")
    for id_ in seen - given.keys():
        findings.orders_lost += 1
        findings.say(f"{id_} was launched, and is not in the dispatcher's book")


def _check_once(
    findings: Findings, given: Mapping[str, Any], launches: Sequence[Mapping[str, Any]], consumed: Sequence[Mapping[str, Any]]
) -> None:
    """No two launches of an order at a time, none beyond the attempts on record; one a receiver that keeps ids; one lease."""
    for what, extra in _launched_too_often(given, launches, consumed):
        findings.launched_twice += extra
        findings.say(what)


def _launched_too_often(
    given: Mapping[str, Any], launches: Sequence[Mapping[str, Any]], consumed: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, int]]:
    """Return each breach in words, and how many launches were too many."""
    for launch in launches:
        if not launch["alone"]:
            yield f"{launch['order']} ran twice at the same time", 1
    posted = Counter(launch["episode"] for launch in launches if launch["handler"] == "webhook")
    yield from ((f"{episode}: the receiver launched {n} retrains", n - 1) for episode, n in posted.items() if n > 1)
    ran = Counter(launch["order"] for launch in launches if launch["handler"] != "webhook" and launch["order"] in given)
    on_record = {id_: given[id_].attempts for id_ in ran}
    yield from (
        (f"{id_} ran {n} times, {on_record[id_]} attempts are on record", n - on_record[id_])
        for id_, n in ran.items()
        if n > on_record[id_]
    )
    taken = Counter((note["order"], note["attempt"]) for note in consumed if note["what"] == "taken")
    yield from ((f"{id_}: attempt {k} was handed out {n} times", n - 1) for (id_, k), n in taken.items() if n > 1)
    done = {(note["order"], note["attempt"]) for note in consumed if note["what"] == "done" and note["recorded"]}
    holders = Counter(id_ for id_, _ in done)
    yield from ((f"{id_}: {n} attempts count as done", n - 1) for id_, n in holders.items() if n > 1)
    asked = Counter(row.episode for row in given.values() if row.episode)
    yield from ((f"{n} orders of episode {episode}", n - 1) for episode, n in asked.items() if n > 1)


def _check_cooldowns(
    findings: Findings,
    given: Mapping[str, Any],
    attempts: Sequence[Any],
    launches: Sequence[Mapping[str, Any]],
    cooldown_s: float,
) -> None:
    """Two orders of a model are launched no closer than the cooldown.

    By the receiver's clock for webhooks; where a launch passes a queue first (a Ray task that waits for a worker, an order
    whose reply to the consumer was lost), by the attempt on record before it, which is when it was handed over.
    """
    first: dict[str, float] = {}
    for row in attempts:
        if row.retrain in given:
            first[row.retrain] = min(first.get(row.retrain, row.started_at), row.started_at)
    seen: dict[str, float] = {}
    for launch in launches:
        if launch["handler"] == "webhook":
            id_ = launch["order"].partition(".")[0]
            seen[id_] = min(seen.get(id_, launch["at"]), launch["at"])
    for model in MODELS:
        own = seen if model == HOOK else first
        times = sorted((own[id_], id_) for id_, row in given.items() if row.model == model and not row.manual and id_ in own)
        for (before_s, before), (after_s, after) in itertools.pairwise(times):
            if after_s - before_s < cooldown_s - CLOCK_S:
                findings.within_cooldown += 1
                how = "taken" if model in CHANNELS else "launched"
                findings.say(f"{model}: {after} was {how} {after_s - before_s:.2f} s after {before}")

"""Every bounded memory forgets only what nobody uses: whatever its limit, the replies are those of an unbounded one."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import status, wire
from actors.clock import EventClock
from actors.config import Settings
from actors.detection import models
from actors.detection.detector import DriftDetector
from actors.detection.rules import monitor
from actors.detection.rules.monitor import Monitor
from actors.detection.state import CRASHES, DetectionState, Ingest
from actors.recent import Recent
from actors.storage import Store

NOW: Final = 1_795_000_000.0
POISON: Final = 0.125


def break_on_poison(patch: pytest.MonkeyPatch, error: type[BaseException] = ZeroDivisionError) -> None:
    """Let feeding a model fail at one value; what a detector alone raises would be its metric's own affair."""
    honest = Monitor._feed

    def feed(self: Monitor, key: Any, held: Any, batch: wire.Batch, *rest: Any) -> Any:
        rows = rest[0]
        values = batch.columns["accuracy"].values
        if POISON in (values if rows is None else values[rows]):
            raise error("a bug")
        return honest(self, key, held, batch, *rest)

    patch.setattr(Monitor, "_feed", feed)


class KilledError(BaseException):
    """The process was killed here."""


class World:
    """A store, and the lives of one process on it."""

    def __init__(self, folder: Path | str) -> None:
        self.store = Store(f"sqlite:///{folder}/store")
        self.clock = EventClock(NOW)
        self.detection = self.life()

    def life(self) -> DetectionState:
        """Begin as after a kill -9: nothing is in memory."""
        self.detection = DetectionState(self.store, "detector:m", 0, self.clock.now())
        return self.detection

    def send(self, batches: list[tuple[str, str, int, bytes]]) -> list[Any]:
        """Commit batches (model, producer, sequence, payload) as one group."""
        return list(self.detection.commit([Ingest(*batch) for batch in batches], self.clock.now()))

    def counts(self, model: str = "m") -> tuple[int, int]:
        found = status.read(self.store)["models"][model]
        return found["events"], found["duplicates"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def payload(*values: float) -> bytes:
    return wire.pack(wire.batch_of_columns({"accuracy": np.array(values)}, version="v1", timestamps=NOW, now_s=NOW))


# --- high-water marks


def test_all_of_1001_producers_may_resend_at_once_after_a_kill(world: World) -> None:
    """A restarted process reads 1,001 high-water marks for one group: each of them is needed until the group is committed."""
    batches = [("m", f"p{number}", 0, payload(0.9, 0.9)) for number in range(1001)]
    assert {reply["accepted"] for reply in world.send(batches)} == {2}
    world.life()
    replies = world.send(batches)
    assert {(reply["status"], reply["accepted"], reply["duplicates"]) for reply in replies} == {("accepted", 0, 2)}
    assert world.counts() == (2002, 2002)


def test_producers_that_are_known_and_new_ones_in_one_group(world: World) -> None:
    """A mark that is in memory already must outlast the marks that its own group brings in."""
    two = payload(0.9, 0.9)
    first = [("m", f"p{number}", 0, two) for number in range(1000)]
    world.send(first)
    replies = world.send([*(("m", f"q{number}", 0, two) for number in range(1000)), *first])
    assert [reply["duplicates"] for reply in replies] == [0] * 1000 + [2] * 1000
    assert world.counts()[0] == 4000


def test_a_producer_that_the_store_has_forgotten_is_forgotten_here_too(world: World) -> None:
    """A producer that asks for its mark gets the store's answer; by a later mark its next events would count as duplicates."""
    world.send([("m", "p", 0, payload(0.9, 0.9))])
    world.clock.advance_to(NOW + 3 * 365 * 86_400.0)
    world.detection.keeping.forget_old(world.clock.now())
    assert world.detection.high_water("m", "p") == 0
    (reply,) = world.send([("m", "p", 0, payload(0.9, 0.9))])
    assert (reply["accepted"], reply["duplicates"]) == (2, 0)


@dataclass
class Unbounded:
    """What a process that never forgets would reply: one plain dictionary a question."""

    high: dict[str, int] = field(default_factory=dict)
    failures: dict[str, tuple[int, int]] = field(default_factory=dict)

    def send(self, producer: str, sequence: int, rows: int) -> tuple[str, int, int, int]:
        """Return status, accepted, duplicates and the events that were set aside."""
        high = self.high.get(producer, 0)
        if sequence > high:
            return "gap", 0, 0, 0
        skip = min(high - sequence, rows)
        end = max(high, sequence + rows)
        if any(value == POISON for value in stream(producer, sequence + skip, rows - skip)):
            known, failures = self.failures.get(producer, (sequence, 0))
            self.failures[producer] = sequence, failures + 1 if known == sequence else 1
            if self.failures[producer][1] < CRASHES:
                return "unavailable", 0, 0, 0
            del self.failures[producer]
            self.high[producer] = end
            return "accepted", 0, skip, rows - skip
        self.failures.pop(producer, None)
        self.high[producer] = end
        return "accepted", rows - skip, skip, 0


def stream(producer: str, start: int, rows: int) -> list[float]:
    """Return a producer's events from a number on; some of them no detector can bear."""
    return [POISON if zlib.crc32(f"{producer}{number}".encode()) % 5 == 0 else 0.9 for number in range(start, start + rows)]


SENDS: Final = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-4, 2), st.integers(1, 4)), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One store for all examples, a model each: to make a store takes longer than an example."""
    with tempfile.TemporaryDirectory() as folder:
        made = World(folder)
        yield made
        made.store.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(0, 4), groups=st.lists(st.tuples(SENDS, st.booleans()), min_size=1, max_size=8))
def test_any_limit_gives_the_replies_of_an_unbounded_memory(shared: World, limit: int, groups: list[tuple[Any, bool]]) -> None:
    """New events, resends, overlaps, gaps, batches that fail, kills: neither marks nor failures are ever forgotten in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "PRODUCERS_IN_MEMORY", limit)
        break_on_poison(patch)
        _replies_are_those_of_an_unbounded_memory(shared, groups)


def _replies_are_those_of_an_unbounded_memory(shared: World, groups: list[tuple[Any, bool]]) -> None:
    name, model = uuid.uuid4().hex, Unbounded()
    shared.life()
    for sends, killed in groups:
        if killed:
            shared.life()
        batches = [(p, max(model.high.get(p, 0) + offset, 0), rows) for p, offset, rows in sends]
        replies = shared.send([(name, p, first, payload(*stream(p, first, rows))) for p, first, rows in batches])
        expected = [model.send(*batch) for batch in batches]
        assert [(r["status"], r["accepted"], r["duplicates"], set_aside(r)) for r in replies] == expected


@pytest.mark.parametrize("company", ["alone", "in a group", "after a later batch"])
def test_a_batch_that_kills_its_process_is_set_aside_whatever_comes_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, company: str
) -> None:
    """After a kill all resend at once, in any order: the batch that kills comes with others, or after its own successor."""

    break_on_poison(monkeypatch, KilledError)
    poison, good = payload(POISON), payload(0.9)
    groups = {
        "alone": [[("m", "p", 0, poison)]],
        "in a group": [[("m", "q", 0, good), ("m", "p", 0, poison), ("n", "p", 0, good)]],
        "after a later batch": [[("m", "p", 1, good)], [("m", "p", 0, poison)]],
    }
    for _ in range(CRASHES):
        world.life()
        *before, last = groups[company]
        for group in before:
            world.send(group)
        with pytest.raises(KilledError):
            world.send(last)
    world.life()
    replies = [reply for group in groups[company] for reply in world.send(group)]
    assert sum(set_aside(reply) for reply in replies) == 1


def set_aside(reply: Any) -> int:
    return sum(rejection["value"] for rejection in reply["rejected"] if rejection["field"] == "batch")


# --- versions


def events(version: str, *values: float) -> wire.Batch:
    return wire.batch_of_columns({"accuracy": np.array(values)}, version=version, timestamps=NOW, now_s=NOW)


@given(
    limit=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=2)), min_size=1, max_size=40),
    pinned=st.none() | st.integers(0, 7),
)
def test_a_version_that_is_in_use_is_never_dropped(limit: int, steps: list[tuple[int, set[int]]], pinned: int | None) -> None:
    """Kept are the pinned one, those with an open episode, the newest; each as a monitor knows it that drops none."""
    bounded, unbounded = (
        Monitor(replace(Settings().for_model("m"), pinned_version=None if pinned is None else f"v{pinned}")) for _ in range(2)
    )
    dropped: set[str] = set()
    for number, in_use in steps:
        name, keep = f"v{number}", {f"v{each}" for each in in_use}
        if name in dropped:
            continue  # one that comes back after it was dropped begins afresh
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(monitor, "MAX_VERSIONS", limit)
            taken = bounded.take(events(name, 0.9, 0.8), None, 0, keep=keep)
        unbounded.take(events(name, 0.9, 0.8), None, 0)
        dropped.update(taken.dropped_versions)
        assert not {name, bounded.pinned, *keep} & set(taken.dropped_versions)
        assert set(unbounded.versions) - dropped == set(bounded.versions)
        assert len(list(bounded.versions)) <= max(limit, len({name, bounded.pinned, *keep}))
    known, all_known = bounded.memory()["versions"], unbounded.memory()["versions"]
    assert known == {name: all_known[name] for name in known}


# --- questions about orders


def test_every_open_episode_is_followed_however_many_there_are(tmp_path: Path) -> None:
    """The dispatcher is asked about a part at a time, and about each of them."""
    dispatcher = Asked()
    detector = DriftDetector(
        name="detector:m", namespace="test", storage=f"sqlite:///{tmp_path}/store", peers=dispatcher, clock=EventClock(NOW)
    )
    followed = {f"e-{number}": "m" for number in range(1201)}
    asyncio.run(detector._errands.follow(followed))
    assert [len(part) for part in dispatcher.parts] == [500, 500, 201]
    assert [episode for part in dispatcher.parts for episode in part] == list(followed)


class Asked:
    def __init__(self) -> None:
        self.parts: list[list[str]] = []

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        self.parts.append(arguments["episodes"])
        return {}


# --- the mapping itself


@given(
    limit=st.integers(0, 4),
    groups=st.lists(st.lists(st.tuples(st.integers(0, 7), st.integers()), max_size=8), max_size=12),
)
def test_what_was_put_in_is_there_until_the_group_is_over(limit: int, groups: list[list[tuple[int, int]]]) -> None:
    recent: Recent[int, int] = Recent(limit)
    unbounded: dict[int, int] = {}
    for group in groups:
        for key, value in group:
            recent[key] = unbounded[key] = value
        assert all(recent[key] == unbounded[key] for key, _ in group)
        recent.trim()
        assert len(recent) == min(limit, max(len(recent), 0))
        assert all(key not in recent or recent[key] == value for key, value in unbounded.items())

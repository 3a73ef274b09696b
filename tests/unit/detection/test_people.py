"""Who has seen, judged or changed what: in the same commit, once, and counted against the budget for false alarms."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import config, failpoints, status, story, wire
from actors.clock import EventClock
from actors.config.stored import store_settings
from actors.detection import commands
from actors.detection.detector import DriftDetector
from actors.detection.state import DetectionState
from actors.detection.tables import DETECTOR
from actors.people import Signature
from actors.replies import StoredStatus, VersionShown
from actors.storage import Store
from drivers import explain
from drivers import status as driver
from tests.known import answered

NOW = 1_795_000_000.0
POINTS = ("detector.before_commit", "detector.in_commit", "detector.after_commit")


class Killed(BaseException):
    """The process has ended."""


class Dispatcher:
    """Records what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        del name, timeout_s
        self.asked.append((method, arguments))
        return {"status": "recorded", "decision": "dispatched", "order": "o-1", "reason": "", "retry_in_s": None}


class World:
    """A store in which model m drifts, and a detector of it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/store"
        self.clock = EventClock(NOW)
        self.dispatcher = Dispatcher()
        store = Store(self.url)
        promotion = {"handler": {"kind": "task", "target": "m:f"}}
        store_settings(store, config.parse({"defaults": {"promotion": promotion}}, "test"), NOW)
        store.close()

    def detector(self) -> DriftDetector:
        return DriftDetector(
            name="detector:m",
            namespace="test",
            storage=self.url,
            slot=0,
            clock=self.clock,
            peers=self.dispatcher,
            end_stale=lambda _error: None,
        )

    async def drift(self, detector: DriftDetector) -> str:
        random = np.random.default_rng(0)
        for i in range(9):
            values = np.clip(random.normal(0.9 if i < 6 else 0.6, 0.01, 100), 0, 1)
            batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=None, now_s=NOW)
            await detector.ingest(model="m", producer="p", sequence=100 * i, payload=wire.pack(batch))
        await detector.tick()
        return next(str(arguments["episode"]) for method, arguments in self.dispatcher.asked if method == "request")

    def status(self) -> StoredStatus:
        store = Store(self.url)
        try:
            return status.read(store, NOW + 3600.0)
        finally:
            store.close()


async def drifted(world: World) -> str:
    return await world.drift(world.detector())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_verdict_is_on_record_with_its_person_and_counted_against_the_budget(world: World) -> None:
    async def act() -> str:
        detector = world.detector()
        episode = await world.drift(detector)
        first = answered(await detector.judge(episode=episode, verdict="false", by="ada", comment="a holiday"))
        again = answered(await detector.judge(episode=episode, verdict="false", by="ada", comment="a holiday"))
        assert (first["status"], first["changed"], again["changed"]) == ("recorded", True, False)
        return episode

    episode = asyncio.run(act())
    told = story.read_url(world.url, episode)
    assert told["episode"] is not None
    assert told["episode"]["judged"] == {"verdict": "false", "at": NOW, "by": "ada", "comment": "a holiday"}
    assert [each["why"] for each in told["episode"]["decisions"] if each["decision"] == "judged"] == [
        "a false alarm by ada: a holiday"
    ]
    seen = world.status()
    assert seen["models"]["m"]["judged"] == {"true": 0, "false": 1, "days": 90, "stated": "30d"}
    assert list(driver.judged(seen)) == ["m: false alarms: stated 1 in 30d, seen 1 in 90d (of 1 judged)"]
    assert "  ada calls it a false alarm: a holiday" in list(explain.in_words(told))


def test_the_last_verdict_counts_also_of_an_episode_that_was_settled_before_a_restart(world: World) -> None:
    async def act() -> None:
        detector = world.detector()
        episode = await world.drift(detector)
        await detector.judge(episode=episode, verdict="false", by="ada")
        store = Store(world.url)
        with store.part(DETECTOR, 0).write() as connection:
            connection.exec_driver_sql("UPDATE episodes SET open = 0")  # settled long ago: the successor does not hold it
        store.close()
        successor = world.detector()
        assert answered(await successor.judge(episode=episode, verdict="true", by="bob"))["changed"]

    asyncio.run(act())
    assert world.status()["models"]["m"]["judged"] == {"true": 1, "false": 0, "days": 90, "stated": "30d"}


@pytest.mark.parametrize("point", POINTS)
def test_killed_around_its_commit_a_verdict_that_is_sent_again_is_there_once(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    episode = asyncio.run(drifted(world))

    def reach(name: str) -> None:
        if name == point:
            raise Killed(name)

    def judged() -> None:
        store = Store(world.url)
        try:
            state = DetectionState(store, "detector:m", 0, world.clock.now())
            change = commands.judge(state.part, "m", episode, "false", Signature("ada"))
            state.commit([change], world.clock.now())
        finally:
            store.close()

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", reach)
        with pytest.raises(Killed):
            judged()
    judged()
    record = story.read_url(world.url, episode)["episode"]
    assert record is not None
    assert [each["decision"] for each in record["decisions"]].count("judged") == 1
    assert world.status()["models"]["m"]["judged"]["false"] == 1


def test_who_has_seen_an_episode_is_on_record(world: World) -> None:
    async def act() -> dict[str, Any]:
        detector = world.detector()
        episode = await world.drift(detector)
        await detector.acknowledge(episode=episode, by="ada", comment="the sale")
        return dict(await detector.explain(episode=episode))

    record = asyncio.run(act())
    assert record["acknowledged_by"] == "ada"
    assert record["decisions"][-1]["why"] == "seen by ada: the sale"


def test_who_promoted_a_version_stands_with_it_and_goes_to_the_dispatcher(world: World) -> None:
    async def act() -> list[VersionShown]:
        detector = world.detector()
        for i, version in enumerate(["v1", "v2"]):
            batch = wire.batch_of_columns({"accuracy": np.full(10, 0.9)}, version=version, timestamps=None, now_s=NOW)
            await detector.ingest(model="m", producer="p", sequence=10 * i, payload=wire.pack(batch))
        await detector.promote(model="m", version="v1", by="ada", comment="v2 is worse")
        await detector.tick()
        return answered(await detector.versions(model="m"))["rows"]

    rows = asyncio.run(act())
    assert [(row["version"], row["state"], row["by"], row["comment"]) for row in rows if row["state"] == "live"] == [
        ("v1", "live", "ada", "v2 is worse")
    ]
    told = [arguments for method, arguments in world.dispatcher.asked if method == "promoted"]
    assert [(each["version"], each["by"], each["comment"]) for each in told] == [("v1", "ada", "v2 is worse")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"verdict": "maybe"}, "verdict must be 'true' or 'false'"),
        ({"verdict": "true", "by": ""}, "by must be a string of 1 to 200 characters"),
        ({"verdict": "true", "comment": "x" * 1001}, "comment must be a string of 1 to 1000 characters"),
    ],
)
def test_a_verdict_that_is_none_changes_nothing(world: World, wrong: dict[str, Any], message: str) -> None:
    async def act() -> None:
        detector = world.detector()
        episode = await world.drift(detector)
        with pytest.raises(ValueError, match=message):
            await detector.judge(episode=episode, **wrong)
        with pytest.raises(KeyError, match="episode must be one of this store, got 'nobody'"):
            await detector.judge(episode="nobody", verdict="true")

    asyncio.run(act())
    assert "judged" not in world.status()["models"]["m"]

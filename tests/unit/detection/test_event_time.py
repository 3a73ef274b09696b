"""`clock: event`: cooldowns and silences pass with the events' own time, everything else with the wall's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import wire
from actors.clock import EventClock, Instant
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection.detector import DriftDetector
from actors.retraining.dispatcher import RetrainDispatcher
from actors.storage import Store
from tests.known import answered

WALL_S = 1.8e9
THEN_S = 1.36e9  # the events are of 2013
DAY_S = 86_400.0


class Wall:
    """A wall clock that is set."""

    def __init__(self) -> None:
        self.now_s = WALL_S

    def now(self) -> Instant:
        return Instant(self.now_s, self.now_s - WALL_S + 100.0, "boot")


class Peers:
    """Passes a detector's calls on to a dispatcher."""

    def __init__(self, dispatcher: RetrainDispatcher) -> None:
        self.dispatcher = dispatcher
        self.decisions: list[tuple[float, str]] = []

    async def call(self, _name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        del timeout_s
        reply = await getattr(self.dispatcher, method)(**arguments)
        if method == "request":
            self.decisions.append((arguments["triggered_at"], reply["decision"]))
        return reply


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def configure(url: str, clock: str) -> None:
    store = Store(url)
    defaults = {"cooldown": "10d", "false_alarm_every": 1_000_000, "watch": {"accuracy": {"direction": "both"}}}
    store_settings(store, parse({"clock": clock, "defaults": defaults}, "test"), WALL_S)
    store.close()


def dispatcher_of(url: str, wall: Wall) -> RetrainDispatcher:
    return RetrainDispatcher(name="dispatcher", namespace="t", storage=url, clock=wall, peers=object())  # type: ignore[arg-type]


async def logged(detector: DriftDetector, level: float, day: float, sequence: int, version: str) -> None:
    values = np.clip(np.random.default_rng(sequence).normal(level, 0.01, 100), 0, 1)
    times = THEN_S + DAY_S * day + 60.0 * np.arange(100)
    batch = wire.batch_of_columns({"accuracy": values}, version=version, timestamps=times, now_s=WALL_S)
    await detector.ingest(model="m", producer="p", sequence=sequence, payload=wire.pack(batch))
    await detector._errands.send_all()


def test_a_skipped_episode_asks_again_when_the_events_have_passed_the_cooldown(url: str) -> None:
    configure(url, "event")
    wall = Wall()

    async def story() -> list[tuple[float, str]]:
        peers = Peers(dispatcher_of(url, wall))
        detector = DriftDetector(name="detector:m", namespace="t", storage=url, slot=0, clock=wall, peers=peers)
        number = 0
        for version, day in (("v1", 0.0), ("v2", 3.0)):
            for i in range(8):
                await logged(detector, 0.93 if i < 5 else 0.6, day + 0.1 * i, number, version)
                number += 100
            rows = answered(await peers.dispatcher.history(model="m"))["rows"]
            if version == "v1":
                await peers.dispatcher.finish(order=rows[-1]["id"], outcome="done", new_version="v2")
        for day in (9.0, 10.0, 11.0):  # no tick of the wall's clock in between
            await logged(detector, 0.6, day, number, "v2")
            number += 100
        return peers.decisions

    decisions = asyncio.run(story())
    assert [decision for _, decision in decisions] == ["dispatched", "skipped", "dispatched"]
    first, second, third = (at_s for at_s, _ in decisions)
    assert THEN_S < first < second < first + 10 * DAY_S
    assert first + 10 * DAY_S <= third <= first + 11 * DAY_S


def request(episode: str, at_s: float) -> dict[str, Any]:
    return {
        "episode": episode,
        "model": "m",
        "version": "v1",
        "metric": "accuracy",
        "observed_drift": 3.0,
        "triggered_at": at_s,
        "explanation": {},
    }


@pytest.mark.parametrize(
    ("clock", "days", "decision"), [("event", 11, "dispatched"), ("event", 9, "skipped"), ("wall", 11, "skipped")]
)
def test_the_cooldown_follows_the_configured_clock_across_a_restart(url: str, clock: str, days: float, decision: str) -> None:
    configure(url, clock)
    wall = Wall()

    async def before() -> Any:
        return await dispatcher_of(url, wall).request(**request("e1", THEN_S))

    async def after(order: str) -> Any:
        successor = dispatcher_of(url, wall)
        await successor.finish(order=order, outcome="done")
        return await successor.request(**request("e2", THEN_S + days * DAY_S))

    order = asyncio.run(before())["order"]
    assert asyncio.run(after(order))["decision"] == decision


def test_a_silence_passes_with_the_events_and_a_lease_with_the_wall(url: str) -> None:
    configure(url, "event")
    wall = Wall()

    async def story() -> tuple[list[str], Any]:
        dispatcher = dispatcher_of(url, wall)
        await dispatcher.silence(model="other", duration_s=DAY_S)
        await dispatcher.request(**request("e0", THEN_S))
        taken = answered(await dispatcher.take(consumer="c", timeout_s=0.0))
        await dispatcher.silence(model="m", duration_s=DAY_S)
        decisions = [(await dispatcher.request(**request(f"e{n}", THEN_S + n * 12 * DAY_S)))["reason"] for n in (1, 2)]
        return decisions, await dispatcher.renew(order=taken["order"]["id"], token=taken["token"])

    reasons, lease = asyncio.run(story())
    assert all("is not finished" in reason for reason in reasons)  # 24 days of events have not taken the order away
    assert lease["status"] == "renewed"


def test_the_event_clock_never_turns_back() -> None:
    clock = EventClock(5.0)
    clock.advance_to(3.0)
    assert clock.now().wall_s == 5.0
    assert clock.now().seconds_since(EventClock(2.0).now()) == 3.0

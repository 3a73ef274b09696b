"""By default an improvement asks for nothing: the direction of a metric comes from its name, in new stores and in old ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import wire
from actors.config import Direction, parse
from actors.detection import tables
from actors.detection.rules.monitor import Monitor, Taken
from tests.unit.detection.test_detector import World, send

METRICS = {"val_roc_auc": "down", "rmse": "up", "p95_latency_ms": "up", "page_views": "both"}


def monitor_of(metric: str, direction: Direction | None = None, memory: Any = None) -> Monitor:
    watched = {} if direction is None else {"direction": direction}
    said = {"false_alarm_every": 10_000, "watch": {"accuracy": None, metric: watched}}
    return Monitor(parse({"defaults": said}, "test").for_model("m"), memory)


def logged(monitor: Monitor, metric: str, level: float, *, events: int = 400, seed: int = 0) -> Taken:
    values = np.random.default_rng(seed).normal(level, 0.01, events)
    batch = wire.batch_of_columns({metric: values}, version="v1", timestamps=np.arange(events, dtype=float), now_s=1e9)
    return monitor.take(batch, None, 0)


def alarms(taken: Taken) -> list[str]:
    return [alarm.direction for feed in taken.feeds for alarm in feed.alarms]


@pytest.mark.parametrize(("metric", "worse"), METRICS.items())
def test_what_a_name_calls_better_raises_no_alarm_and_what_it_calls_worse_does(metric: str, worse: str) -> None:
    for way, level in (("down", 0.8), ("up", 1.0)):
        monitor = monitor_of(metric)
        assert alarms(logged(monitor, metric, 0.9)) == []
        found = alarms(logged(monitor, metric, level, seed=1))
        assert found == ([way] if worse in {way, "both"} else [])


@pytest.mark.parametrize("metric", METRICS)
def test_both_in_the_configuration_means_both_whatever_the_name_says(metric: str) -> None:
    for way, level in (("down", 0.8), ("up", 1.0)):
        monitor = monitor_of(metric, "both")
        logged(monitor, metric, 0.9)
        assert alarms(logged(monitor, metric, level, seed=1)) == [way]


@pytest.mark.parametrize(("level", "found"), [(0.8, ["down"]), (1.0, [])])
def test_a_detector_that_an_older_build_started_keeps_its_level_and_watches_one_side(level: float, found: list[str]) -> None:
    old = monitor_of("val_roc_auc", "both")
    logged(old, "val_roc_auc", 0.9)
    memory = tables.unpack(tables.pack(old.memory()))
    new = monitor_of("val_roc_auc", memory=memory)
    for version, metric, kind, state in old.dirty_states():
        new.wake(version, metric, kind, state)
    assert alarms(logged(new, "val_roc_auc", level, events=60, seed=1)) == found
    if not found:  # it goes on with the 400 events that it knows
        assert new.memory()["versions"]["v1"]["metrics"]["val_roc_auc"]["progress"]["seen"] == 460


def test_an_improvement_opens_no_episode_and_a_loss_requests_a_retrain(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.configure(defaults={"false_alarm_every": 10_000, "watch": {"accuracy": None, "val_auc": {}}})

    def payload(level: float) -> bytes:
        return world.payload(val_auc=world.random.normal(level, 0.01, 100))

    async def story() -> None:
        detector = world.detector()
        for number, level in enumerate([0.80, 0.80, 0.80, 0.80, 0.95]):
            await send(detector, payload(level), 100 * number)
        await detector.tick()
        assert world.status()["m"]["open_episodes"] == []
        assert world.dispatcher.requests() == []
        await send(detector, payload(0.5), 500)
        await detector.tick()

    asyncio.run(story())
    assert world.dispatcher.requests() == world.status()["m"]["open_episodes"]
    assert len(world.dispatcher.requests()) == 1

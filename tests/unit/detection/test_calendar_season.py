"""A season by the calendar, from the configuration to the episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import status, wire
from actors.clock import Instant
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import commands
from actors.detection.state import DetectionState, Ingest
from actors.storage import Store

START = 1_760_000_000.0
HOUR = 3600.0


def at(seconds: float) -> Instant:
    return Instant(START + seconds, seconds, "boot")


class World:
    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/store")
        self.sequence = 0
        # A day with a wave of 3 sd; of the hours two in five have an event.
        random = np.random.default_rng(5)
        hours = np.flatnonzero(random.random(60 * 24) < 0.4)
        self.times = START + hours * HOUR
        self.noise = random.standard_normal(len(hours))

    def configure(self, season: Any) -> DetectionState:
        watch = {"accuracy": None, "load": {"season": season}}
        store_settings(self.store, parse({"defaults": {"watch": watch, "false_alarm_every": 10_000}}, "test"), START)
        return self.life()

    def life(self) -> DetectionState:
        return DetectionState(self.store, "detector:m", 0, at(90 * 86_400))

    def send(self, state: DetectionState, values: Any, times: Any) -> Any:
        batch = wire.batch_of_columns({"load": values}, version="1", timestamps=times, now_s=START + 90 * 86_400)
        (reply,) = state.commit([Ingest("m", "p", self.sequence, wire.pack(batch))], at(90 * 86_400))
        self.sequence += len(values)
        assert reply["accepted"] == len(values), reply
        return state.model("m")

    def values(self, period_s: float = 86_400.0) -> Any:
        return 10.0 + 3.0 * np.sin(2 * np.pi * (self.times % period_s) / period_s) + self.noise


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_day_s_pattern_is_no_drift_and_a_shift_is_one_with_gaps_and_across_restarts(world: World) -> None:
    values = world.values()
    values[450:] += 3.0
    state = world.configure("day")
    for start in range(0, 450, 50):
        model = world.send(state, values[start : start + 50], world.times[start : start + 50])
        assert model.book.open_episodes == []
        state = world.life()  # as after a kill -9: the log is replayed by the events' own times
    model = world.send(state, values[450:480], world.times[450:480])
    (episode,) = model.book.open_episodes
    evidence = episode["evidence"][0]
    assert evidence["baseline_mean"] == pytest.approx(10.0, abs=0.5)
    assert evidence["window_mean"] == pytest.approx(13.0, abs=1.0)
    # The level came back: recovery is judged without the season too, whatever the time of day.
    model = world.send(state, values[480:] - 3.0, world.times[480:])
    assert model.book.open_episodes == []
    shown = status.read(world.store)["models"]["m"]["versions"]["1"]["metrics"]["load"]
    assert shown["state"] in {"stable", "learning"}


@pytest.mark.parametrize(("season", "least", "most"), [("day", 0, 1), (None, 3, 100)])
def test_many_events_an_hour_are_drifts_each_day_unless_the_season_is_known(
    world: World, season: Any, least: int, most: int
) -> None:
    world.times = START + np.arange(8000) * 60.0
    world.noise = np.random.default_rng(6).standard_normal(8000)
    assert least <= world.send(world.configure(season), world.values(), world.times).book.ordinal <= most


def test_another_season_is_learned_anew_and_the_same_is_kept(world: World) -> None:
    state = world.configure("day")
    world.send(state, world.values(), world.times)
    state.model("m").force_snapshot = True
    world.send(state, np.array([10.0]), world.times[-1:])

    def seen(again: DetectionState) -> int:
        model = world.send(again, np.array([10.0]), world.times[-1:])
        return int(model.monitor.memory()["versions"]["1"]["metrics"]["load"]["progress"]["seen"])

    assert seen(world.life()) > 300
    assert seen(world.configure({"period": "day", "zone": "Asia/Tokyo"})) < 10


def test_a_baseline_without_times_is_refused_for_a_metric_with_a_season(world: World) -> None:
    state = world.configure("week")
    world.send(state, world.values()[:50], world.times[:50])
    (reply,) = state.commit([commands.baseline("m", "1", {"load": np.zeros(100)})], at(0))
    assert isinstance(reply, ValueError)
    assert "values must be of metrics without a season, got load" in str(reply)
    (pinned,) = state.commit([commands.pin(state.part, "m", "1")], at(0))
    assert isinstance(pinned, ValueError)

"""What time alone asks of models is looked up and not searched for: silent models cost nothing, and nothing comes late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import wire
from actors.clock import EventClock
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import detector as actor
from actors.detection import logged, tables
from actors.detection.agenda import Agenda
from actors.detection.detector import DriftDetector
from actors.detection.model import Model
from actors.detection.tables import DETECTOR
from actors.storage import Store

NOW = 1_795_000_000.0


class Nobody:
    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        raise AssertionError(f"nobody is asked, got {name}.{method}")


def detector_at(folder: Path, clock: EventClock, **defaults: Any) -> DriftDetector:
    store = Store(f"sqlite:///{folder}/store")
    store_settings(store, parse({"defaults": defaults}, "test"), NOW)
    store.close()
    return DriftDetector(
        name="detectors:0", namespace="test", storage=f"sqlite:///{folder}/store", slot=0, clock=clock, peers=Nobody()
    )


async def log(detector: DriftDetector, model: str, sequence: int = 0, rows: int = 3) -> None:
    batch = wire.batch_of_columns({"accuracy": np.full(rows, 0.9)}, version="v1", timestamps=NOW, now_s=NOW)
    reply = await detector.ingest(model=model, producer="p", sequence=sequence, payload=wire.pack(batch))
    assert reply["status"] == "accepted"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20)) | st.integers(0, 20), max_size=40))
def test_a_name_is_taken_once_and_never_late(steps: list[Any]) -> None:
    agenda = Agenda()
    earliest: dict[str, int] = {}
    for step in steps:
        if isinstance(step, tuple):
            name, at = step
            agenda.put(name, at)
            earliest[name] = min(at, earliest.get(name, at))
        else:
            due = {name for name, at in earliest.items() if at <= step}
            assert sorted(agenda.take(step)) == sorted(due)
            for name in due:
                del earliest[name]
        assert not earliest or (agenda.next_at is not None and agenda.next_at <= min(earliest.values()))


def test_silent_models_are_not_looked_at_and_the_process_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten models without anything to wait for: a round looks at none of them, reads nothing, and the next is a minute away."""

    async def story() -> None:
        detector = detector_at(tmp_path, EventClock(NOW))
        for number in range(10):
            await log(detector, f"m{number}")
        state = detector._thread.state
        assert state is not None
        monkeypatch.setattr(Model, "due_in", None)
        monkeypatch.setattr(state.part, "engine", None)
        assert await detector._round(follow=True) == actor._LONGEST_S

    asyncio.run(story())


def test_the_process_sleeps_until_the_first_silence_may_be_noticed(tmp_path: Path) -> None:
    async def story() -> None:
        clock = EventClock(NOW)
        detector = detector_at(tmp_path, clock, expect_every="40s")
        await log(detector, "a")
        clock.advance_to(NOW + 10)
        await log(detector, "b")
        assert await detector._round(follow=True) == pytest.approx(30.0)
        clock.advance_to(NOW + 41)
        assert await detector._round(follow=True) < 1.0  # looked at again, in case the commit had failed
        clock.advance_to(NOW + 42)
        assert await detector._round(follow=True) == pytest.approx(8.0)
        state = detector._thread.state
        assert state is not None
        assert {model.name: model.no_data for model in state.models} == {"a": True, "b": False}

    asyncio.run(story())


def test_a_busy_models_log_is_trimmed_until_it_is_within_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many batches as go at once have come since the last look."""
    monkeypatch.setattr("actors.detection.writing.SNAPSHOT_BATCHES", 1)
    monkeypatch.setattr("actors.detection.sweeper._TRIM_ROWS", 30)
    store = Store(f"sqlite:///{tmp_path}/store")
    store_settings(store, parse({"retention": {"rows": 10}}, "test"), NOW)

    async def story() -> None:
        detector = DriftDetector(
            name="detector:m", namespace="test", storage=f"sqlite:///{tmp_path}/store", clock=EventClock(NOW), peers=Nobody()
        )
        for number in range(160):
            await log(detector, "m", 3 * number)
        await detector._sweeper.sweep(everything=False)

    asyncio.run(story())
    with store.part(DETECTOR, 0).read() as connection:
        (row,) = tables.load_models(connection, "detector:m")
        kept = [entry.number for entry in logged.read_log(connection, "m")]
    store.close()
    assert kept[-1] == 160
    assert len(kept) == max(10, 160 - row.snapshot)

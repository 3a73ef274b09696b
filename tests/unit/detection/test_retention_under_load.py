"""Retention, restarts, resends and lost replies in any order: every event is counted once, the log keeps to its bound."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from actors import config, failpoints, wire
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection import stored as detector_stored
from actors.detection import tables as detector_tables
from actors.detection.state import DetectionState, Ingest, UnavailableError
from actors.detection.tables import DETECTOR
from actors.storage import Store
from tests.known import some

NOW = 1_795_000_000.0
ROWS = 4  # batches that the log may keep
SNAPSHOTS = 3  # batches between two snapshots (and up to 63 more, by the model's name)


def payload(n: int) -> bytes:
    values = 0.9 + np.random.default_rng(n).normal(0.0, 0.01, n)
    return wire.pack(wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW - 200_000.0, now_s=NOW))


def opened(store: Store) -> DetectionState:
    return DetectionState(store, "detector:m", 0, at(0))


def at(seconds: float) -> Instant:
    return Instant(NOW + seconds, seconds, "boot")


STEPS = st.lists(
    st.sampled_from(["log", "log", "log", "house", "forget", "restart", "again", "reply lost", "commit lost"]), max_size=30
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, step_s=st.sampled_from([0.0, 86_400.0, -86_400.0]))
def test_whatever_happens_beside_retention_each_event_is_counted_once(steps: list[str], step_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.detection.writing.SNAPSHOT_BATCHES", SNAPSHOTS - 64)
        store = Store(f"sqlite:///{folder}/store")
        document = {"retention": {"rows": ROWS, "age": "1h"}}
        store_settings(store, config.parse(json.loads(json.dumps(document)), "test"), NOW)
        mine, sent, last = opened(store), 0, 0
        for number, step in enumerate(steps):
            now = at(number + (step_s if number > len(steps) / 2 else 0.0))  # the clock is stepped by a day half way
            match step:
                case "log":
                    last, sent = sent, sent + 1 + number % 7
                    assert mine.commit([Ingest("m", "p", last, payload(sent - last))], now)[0]["accepted"] == sent - last
                case "again" if sent:
                    reply = mine.commit([Ingest("m", "p", last, payload(sent - last))], now)[0]
                    assert (reply["accepted"], reply["duplicates"]) == (0, sent - last)
                case "reply lost" | "commit lost":
                    _lose(mine, "after" if step == "reply lost" else "before", Ingest("m", "p", sent, payload(3)), now)
                    reply = mine.commit([Ingest("m", "p", sent, payload(3))], now)[0]
                    assert reply["accepted"] + reply["duplicates"] == 3
                    last, sent = sent, sent + 3
                case "house":
                    mine.keeping.trim("m", now, 200)
                case "forget":
                    mine.keeping.forget_old(now)
                case "restart":
                    mine = opened(store)
        mine.commit([Ingest("m", "p", sent, payload(1))], at(99.0 + step_s))
        mine.keeping.trim("m", at(99.0 + step_s), 10_000)
        with store.part(DETECTOR, 0).read() as connection:
            found = detector_stored.read_status(connection)["m"]
            kept = connection.execute(select(func.count()).select_from(detector_tables.log)).scalar()
        assert found["events"] == found["versions"]["v1"]["events"] == sent + 1
        assert some(kept) <= ROWS + SNAPSHOTS
        store.close()


def _lose(mine: DetectionState, when: str, work: Any, now: Instant) -> None:
    """Lose the connection right before or right after a commit."""

    def reach(name: str) -> None:
        if name == f"detector.{when}_commit":
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "reach", reach)
        with pytest.raises(UnavailableError):
            mine.commit([work], now)

"""The limits in bytes: the oldest batches go, no more than must, and none that the last snapshot does not contain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from actors import wire
from actors.clock import EventClock
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import stored, tables
from actors.detection.detector import DriftDetector
from actors.detection.tables import DETECTOR
from actors.detection.weighing import Batch, Weighing
from actors.storage import Store

NOW = 1_795_000_000.0
LIMITS = st.none() | st.integers(1, 25)
LOG = st.tuples(st.integers(0, 12), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=12))


def log_of(steps: list[tuple[int, int]]) -> list[Batch]:
    """Return batches 1, 2, ..., each some seconds after the one before."""
    at, batches = 0.0, []
    for number, (seconds, size) in enumerate(steps, 1):
        at += seconds
        batches.append((number, at, size))
    return batches


@given(st.dictionaries(st.sampled_from("abc"), LOG), LIMITS, LIMITS, st.integers(1, 5))
def test_what_is_left_is_within_the_limits_or_must_stay_and_no_more_goes_than_must(
    given_logs: dict[str, tuple[int, list[tuple[int, int]]]], model_bytes: int | None, store_bytes: int | None, part: int
) -> None:
    weighing = Weighing(model_bytes=model_bytes, store_bytes=store_bytes)
    logs = {model: (snapshot, log_of(steps)) for model, (snapshot, steps) in given_logs.items()}
    for model, (snapshot, batches) in logs.items():
        newest_first = batches[::-1]
        for start in range(0, len(batches), part):
            if not weighing.add(model, snapshot, newest_first[start : start + part]):
                break
    upto = weighing.upto()
    left = {
        model: [batch for batch in batches if batch[0] > min(snapshot, upto.get(model, 0))]
        for model, (snapshot, batches) in logs.items()
    }
    gone = [(b[1], model, b) for model, (_, batches) in logs.items() for b in batches if b not in left[model]]

    def over(kept: dict[str, list[Batch]]) -> set[str]:
        """Return the models whose limit, and "all" if the limit of all, is exceeded by more than what must stay."""
        optional = {model: any(b[0] <= logs[model][0] for b in batches) for model, batches in kept.items()}
        found = {m for m in kept if model_bytes is not None and optional[m] and sum(b[2] for b in kept[m]) > model_bytes}
        everything = sum(b[2] for batches in kept.values() for b in batches)
        return found | ({"all"} if store_bytes is not None and any(optional.values()) and everything > store_bytes else set())

    assert not over(left)
    for model, kept in left.items():  # the newest that went of a model would have been too much
        mine = [b for _, name, b in gone if name == model]
        if mine:
            newest = max(mine)
            newer = {
                name: [b for b in batches if b in left[name] or (name != model and b[1] >= newest[1])]
                for name, (_, batches) in logs.items()
            }
            newer[model] = [newest, *kept]
            assert over(newer)


@pytest.mark.parametrize("limit", ["model_bytes", "store_bytes"])
def test_the_detector_keeps_the_limit_and_the_oldest_batches_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr("actors.detection.writing.SNAPSHOT_BATCHES", -63)  # at every batch
    monkeypatch.setattr("actors.detection.sweeper._TRIM_ROWS", 7)
    monkeypatch.setattr("actors.detection.sweeper._WEIGHED_ROWS", 9)
    store, clock = Store(f"sqlite:///{tmp_path}/store"), EventClock(NOW)
    store_settings(store, parse({"retention": {limit: 30_000}}, "test"), NOW)

    async def story() -> None:
        detector = DriftDetector(
            name="d", namespace="test", storage=f"sqlite:///{tmp_path}/store", slot=0, clock=clock, peers=Nobody()
        )
        for number in range(60):
            clock.advance_to(NOW + number)
            for model in ("old", "new") if number < 30 else ("new",):
                await log(detector, model, number)
        await detector._sweeper.sweep(everything=False)
        clock.advance_to(NOW + 100.0)
        await log(detector, "new", 60)

    asyncio.run(story())
    with store.part(DETECTOR, 0).read() as connection:
        size, oldest = func.sum(func.length(tables.log.c.payload)), func.min(tables.log.c.received_at)
        rows = connection.execute(select(tables.log.c.model, size, oldest).group_by(tables.log.c.model))
        left = {row[0]: (int(row[1]), float(row[2])) for row in rows}
        status = stored.read_status(connection)
        one = int(connection.execute(select(func.max(func.length(tables.log.c.payload)))).scalar_one())
    store.close()
    assert {model: found["events"] for model, found in status.items()} == {"old": 30 * 200, "new": 61 * 200}
    if limit == "model_bytes":
        assert 30_000 - one < left["old"][0] <= 30_000
    else:
        assert "old" not in left  # all of it was received before what is left of the other
    assert 30_000 - one < left["new"][0] - one <= 30_000  # one batch came after the last look


class Nobody:
    async def call(self, _name: str, method: str, /, *, timeout_s: float, **_arguments: Any) -> Any:
        raise OSError(f"nobody answers {method} in {timeout_s} s")


async def log(detector: DriftDetector, model: str, number: int) -> None:
    values = np.random.default_rng(number).normal(0.9, 0.01, 200)
    batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW)
    reply = await detector.ingest(model=model, producer="p", sequence=200 * number, payload=wire.pack(batch))
    assert reply["status"] == "accepted"

"""A commit whose reply is lost may have come through: memory holds afterwards what the store holds, not what we hope."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from actors import config, failpoints, wire
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection import tables as detector_tables
from actors.detection.state import Change, DetectionState, Ingest, UnavailableError
from actors.detection.tables import DETECTOR
from actors.storage import Store

NOW = 1_795_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/store")
    # No false alarm of the good part: these tests are about the one request of the drifted part.
    store_settings(opened, config.parse({"defaults": {"false_alarm_every": 1e9}}, "test"), NOW)
    yield opened
    opened.close()


def at(seconds: float = 0.0) -> Instant:
    return Instant(NOW + seconds, seconds, "boot")


def batch(level: float, n: int) -> bytes:
    values = level + np.random.default_rng(2).normal(0.0, 0.01, n)
    return wire.pack(wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW))


def lose_the_reply(monkeypatch: pytest.MonkeyPatch, point: str = "detector.after_commit") -> None:
    """The next commit comes through (or, at another point, does not), and the connection is lost before its reply."""

    def reach(name: str) -> None:
        if name == point:
            monkeypatch.undo()
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    monkeypatch.setattr(failpoints, "reach", reach)


def rows(store: Store, table: Any) -> list[Any]:
    with store.part(DETECTOR, 0).read() as connection:
        return list(connection.execute(select(table)))


def drifting(store: Store, monkeypatch: pytest.MonkeyPatch) -> DetectionState:
    """A detection whose commit of the drifted batch came through, and which does not know it."""
    mine = DetectionState(store, "detector:m", 0, at())
    mine.commit([Ingest("m", "p", 0, batch(0.9, 2000))], at())
    lose_the_reply(monkeypatch)
    with pytest.raises(UnavailableError):
        mine.commit([Ingest("m", "p", 2000, batch(0.5, 500))], at())
    assert len(rows(store, detector_tables.outbox)) == 1
    return mine


def test_a_request_that_was_committed_is_sent_though_the_reply_was_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = drifting(store, monkeypatch)
    (reply,) = mine.commit([Ingest("m", "p", 2000, batch(0.5, 500))], at())
    assert (reply["accepted"], reply["duplicates"]) == (0, 500)
    assert list(mine.outbox) == [row.id for row in rows(store, detector_tables.outbox)]


def test_it_is_sent_even_where_nobody_logs_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = drifting(store, monkeypatch)
    mine.due(at(1.0))
    assert len(mine.outbox) == 1


def test_a_model_whose_commit_failed_asks_again_though_it_is_silent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = drifting(store, monkeypatch)
    mine.due(at(1.0))
    (episode,) = mine.outbox

    def skipped(model: Any, now: Instant) -> None:
        reply = {"decision": "skipped", "reason": "cooling down", "retry_in_s": 60.0}
        model.effects += model.book.reply(episode, reply, now)

    mine.commit([Change("m", skipped, sent=episode)], at(2.0))
    lose_the_reply(monkeypatch, "detector.before_commit")
    with pytest.raises(UnavailableError):
        mine.commit([Ingest("m", "p", 2500, batch(0.5, 10))], at(3.0))
    assert [change.model for change in mine.due(at(100.0))] == ["m"]


def test_a_batch_that_came_through_is_under_suspicion_no_longer(store: Store) -> None:
    first = DetectionState(store, "detector:m", 0, at())
    first.commit([Ingest("m", "p", 0, batch(0.9, 10))], at())
    assert rows(store, detector_tables.attempts) == []
    # Killed again and again after the commit, before the reply: the same batch is the first that each process sees.
    for _ in range(5):
        (reply,) = DetectionState(store, "detector:m", 0, at()).commit([Ingest("m", "p", 0, batch(0.9, 10))], at())
        assert (reply["accepted"], reply["duplicates"], reply["rejected"]) == (0, 10, [])

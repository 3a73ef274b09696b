"""A store that is full, may only be read, or ends a session: commits are refused, nothing changes, it recovers by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, select, text

from actors import failpoints, wire
from actors.clock import Instant
from actors.detection import stored as detector_stored
from actors.detection import tables as detector_tables
from actors.detection.state import DetectionState, Ingest, UnavailableError
from actors.detection.tables import DETECTOR
from actors.storage import Store
from actors.storage import store as stores
from tests.database import Postgres

NOW = 1_795_000_000.0
AT = Instant(NOW, 0.0, "boot")
TRIES = 5  # more than a batch has before it is taken for the one at fault


def payload(n: int) -> bytes:
    values = np.random.default_rng(1).normal(0.9, 0.01, n)
    return wire.pack(wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW))


def refused_then_taken(store: Store, trouble: Callable[[], Any]) -> None:
    """What was acknowledged before stays, what comes in the trouble is refused each time and taken once it is over."""
    mine = DetectionState(store, "detector:m", 0, AT)
    assert mine.commit([Ingest("m", "p", 0, payload(100))], AT)[0]["accepted"] == 100
    with trouble():
        for _ in range(TRIES):
            with pytest.raises(UnavailableError):
                mine.commit([Ingest("m", "p", 100, payload(20_000))], AT)
    (reply,) = mine.commit([Ingest("m", "p", 100, payload(20_000))], AT)
    assert (reply["accepted"], reply["duplicates"], reply["high_water"]) == (20_000, 0, 20_100)
    with store.part(DETECTOR, 0).read() as connection:
        assert connection.execute(select(detector_tables.models.c.events)).scalar() == 20_100
        assert detector_stored.read_quarantine(connection) == []


def test_a_file_that_is_full(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    part = store.part(DETECTOR, 0)

    @contextmanager
    def full() -> Iterator[None]:
        def limit(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA max_page_count=1")  # SQLite takes the file's present size, if that is more

        part.engine.dispose()
        event.listen(part.engine, "connect", limit)
        yield
        event.remove(part.engine, "connect", limit)
        part.engine.dispose()

    refused_then_taken(store, full)
    store.close()


def test_a_database_that_may_only_be_read(database: Postgres) -> None:
    store = Store(database.url)
    part = store.part(DETECTOR, 0)

    @contextmanager
    def standby() -> Iterator[None]:
        with part.write() as connection:
            connection.execute(text("ALTER ROLE visutility SET default_transaction_read_only = on"))
        part.engine.dispose()
        yield
        with part.engine.connect() as connection:
            connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"))
            connection.commit()
            connection.execute(text("ALTER ROLE visutility RESET default_transaction_read_only"))
            connection.commit()
        part.engine.dispose()

    refused_then_taken(store, standby)
    store.close()


def test_a_process_that_stands_still_inside_its_commit(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends its session, so that a successor need not wait; where there is none, the next commit comes through."""
    monkeypatch.setattr(stores, "_IDLE_IN_TRANSACTION_MS", 100)
    store = Store(database.url)
    mine = DetectionState(store, "detector:slow", 0, AT)

    def stand_still(name: str) -> None:
        if name == "detector.in_commit":
            time.sleep(0.4)

    # The server's log says why: libpq may find the closed socket before the server's last message.
    ended = "terminating connection due to idle-in-transaction timeout"
    before = database.log().count(ended)
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reach", stand_still)
        for _ in range(TRIES):
            with pytest.raises(UnavailableError):
                mine.commit([Ingest("slow", "p", 0, payload(10))], AT)
    assert database.log().count(ended) == before + TRIES
    (reply,) = mine.commit([Ingest("slow", "p", 0, payload(10))], AT)
    assert (reply["status"], reply["accepted"]) == ("accepted", 10)
    store.close()

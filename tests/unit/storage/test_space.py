"""What was deleted leaves the files of a store, a step at a time, and nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, LargeBinary, Table, func, select

from actors.clock import EventClock
from actors.detection.detector import DriftDetector
from actors.detection.tables import DETECTOR
from actors.retraining.dispatcher import RetrainDispatcher
from actors.retraining.tables import DISPATCHER
from actors.storage import Part, PartKind, Store
from actors.tuning.tables import TUNER
from actors.tuning.tuner import Tuner

THINGS = PartKind("things")
things = Table(
    "things", THINGS.metadata, Column("number", Integer, primary_key=True), Column("payload", LargeBinary, nullable=False)
)
ROW = 40_000
ROWS = 500
LIMIT = 16 * 2**20  # of the log of changes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/store")
    yield opened
    opened.close()


def full(store: Store) -> Part:
    part = store.part(THINGS)
    for start in range(0, ROWS, 100):
        with part.write() as connection:
            rows = [{"number": start + i, "payload": (start + i).to_bytes(4, "big") * (ROW // 4)} for i in range(100)]
            connection.execute(things.insert(), rows)
    return part


def keep(part: Part, newest: int) -> None:
    with part.write() as connection:
        connection.execute(things.delete().where(things.c.number < ROWS - newest))


def pages(part: Part) -> tuple[int, int]:
    with part.read() as connection:
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return int(free), int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


@pytest.mark.parametrize("kept", [0, 10, 250])
def test_a_file_shrinks_to_what_it_holds_and_an_eighth(store: Store, tmp_path: Path, kept: int) -> None:
    part, file = full(store), tmp_path / "store" / "things.db"
    keep(part, kept)
    assert part.give_back()  # more than one step
    while part.give_back():
        pass
    free, count = pages(part)
    assert free * 8 <= count + 8
    assert file.stat().st_size <= 1.2 * kept * ROW + 200_000
    with part.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        left = list(connection.execute(select(things).order_by(things.c.number)))
    assert [(row.number, row.payload) for row in left] == [
        (number, number.to_bytes(4, "big") * (ROW // 4)) for number in range(ROWS - kept, ROWS)
    ]


def test_what_is_free_stays_where_it_is_little(store: Store) -> None:
    part = full(store)
    keep(part, ROWS - ROWS // 10)
    before = pages(part)
    assert not part.give_back()
    assert pages(part) == before


def test_a_reader_is_not_waited_for_and_keeps_what_it_sees(store: Store, tmp_path: Path) -> None:
    part, changes = full(store), tmp_path / "store" / "things.db-wal"
    with part.read() as reading:
        assert reading.execute(select(func.count()).select_from(things)).scalar_one() == ROWS
        keep(part, 10)
        began = time.monotonic()
        while part.give_back():
            pass
        assert time.monotonic() - began < 5.0  # a wait for the reader takes as long as the reader
        with part.write() as connection:
            connection.execute(things.update().values(payload=b"new"))
        assert reading.execute(select(func.sum(func.length(things.c.payload)))).scalar_one() == ROWS * ROW
        grown = changes.stat().st_size
    assert grown > 0
    while part.give_back():
        pass
    assert changes.stat().st_size <= LIMIT


def test_a_log_of_changes_that_a_reader_held_is_cut_once_the_reader_is_gone(store: Store, tmp_path: Path) -> None:
    part, changes = full(store), tmp_path / "store" / "things.db-wal"
    with part.read() as reading:
        assert reading.execute(select(func.count()).select_from(things)).scalar_one() == ROWS
        for byte in (b"a", b"b"):
            with part.write() as connection:
                connection.execute(things.update().values(payload=byte * ROW))
        assert changes.stat().st_size > 2 * LIMIT
        part.give_back()
        assert changes.stat().st_size > 2 * LIMIT  # the reader needs it
    part.give_back()
    assert changes.stat().st_size <= LIMIT


def test_another_writer_is_not_waited_for_and_waits_are_as_long_as_before(store: Store, tmp_path: Path) -> None:
    part = full(store)
    keep(part, 10)
    before = pages(part)
    other = Store(f"sqlite:///{tmp_path}/store")
    with other.part(THINGS).write():
        began = time.monotonic()
        assert not part.give_back()
        assert time.monotonic() - began < 1.0
    assert pages(part) == before
    with part.read() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 5000
    other.close()
    while part.give_back():
        pass
    assert pages(part) < before


# --- each actor does so after it has deleted rows


class Nobody:
    async def call(self, _name: str, method: str, /, *, timeout_s: float, **_arguments: Any) -> Any:
        raise OSError(f"nobody answers {method} in {timeout_s} s")


def left_free(url: str, kind: PartKind, slot: int | None = None) -> Part:
    """Leave 20 MB free in a file that an actor writes, as after rows were deleted."""
    part = Store(url).part(kind, slot)
    with part.write() as connection:
        connection.exec_driver_sql("CREATE TABLE filler (payload BLOB)")
        connection.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(20000000))")
        connection.exec_driver_sql("DROP TABLE filler")
    assert pages(part)[0] > 4000
    return part


def test_the_detector_gives_back_what_was_deleted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"

    async def story() -> None:
        detector = DriftDetector(name="d", namespace="unit", storage=url, slot=0, clock=EventClock(0.0), peers=Nobody())
        assert (await detector.high_water(model="m", producer="p"))["status"] != "unavailable"
        part = left_free(url, DETECTOR, 0)
        await detector._sweeper.sweep(everything=False)
        assert pages(part)[0] < 100

    asyncio.run(story())


def test_the_dispatcher_gives_back_what_was_deleted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    Store(url).close()

    async def story() -> None:
        dispatcher = RetrainDispatcher(
            name="dispatcher", namespace="unit", storage=url, clock=EventClock(0.0), peers=Nobody(), environment={}, seed=0
        )
        part = left_free(url, DISPATCHER)
        await dispatcher._launcher._keep_house()
        assert pages(part)[0] < 100
        if dispatcher._loop_task is not None:
            dispatcher._loop_task.cancel()

    asyncio.run(story())


def test_the_tuner_gives_back_what_a_deleted_study_has_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"

    async def story() -> None:
        tuner = Tuner(name="tuner", namespace="unit", storage=url, peers=Nobody())
        await tuner.studies()
        part = left_free(url, TUNER)
        await tuner._sweep()
        assert pages(part)[0] < 100
        await asyncio.to_thread(tuner._desk.close)

    asyncio.run(story())

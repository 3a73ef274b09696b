"""What keeps open pages live: the cursor over all files, one look for all pages, a fleet that says when it has caught up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from starlette.requests import Request

from actors import wire
from actors.clock import Instant
from actors.detection.state import DetectionState, Ingest
from actors.retraining.rules.orders import DEAD, Order
from actors.retraining.rules.orders import Request as Asked
from actors.retraining.tables import DISPATCHER, put_new
from actors.storage import Store, StoreReader, folder_of, sqlite
from actors.tuning.tables import TUNER
from actors.ui.backend import StoreBackend
from actors.ui.change import Cursor
from actors.ui.live import MAX_OPEN, Live
from tests.unit.ui.conftest import NOW


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    found = Store(url, makes=False)
    yield found
    found.close()


def log(store: Store, number: int, level: float = 0.9) -> None:
    detection = DetectionState(store, "detector:m", 0, Instant(NOW, 0.0, "boot"))
    batch = wire.batch_of_columns({"accuracy": [level]}, version="v1", timestamps=[NOW], now_s=NOW)
    detection.commit([Ingest("m", "p", number, wire.pack(batch))], Instant(NOW, 0.0, "boot"))


def test_the_cursor_differs_after_a_commit_in_any_file_and_only_then(url: str, store: Store) -> None:
    reader = StoreReader(url)
    cursor = Cursor(reader, url)
    seen = [cursor.read()]
    assert cursor.read() == seen[0]
    log(store, 700)
    seen.append(cursor.read())
    with store.part(DISPATCHER).write() as connection:
        put_new(connection, [Order("o-2", Asked("m", "v1", "accuracy", 4.0, NOW, "", {}), DEAD, "", "webhook", {}, NOW)])
    seen.append(cursor.read())
    assert len(set(seen)) == 3
    assert cursor.read() == seen[-1]
    with store.part(TUNER).write():
        pass  # a file that was not there
    assert cursor.read() != seen[-1]
    cursor.close()
    reader.close()


def test_a_page_that_looks_for_changes_keeps_no_log_of_changes_from_being_cut(url: str, store: Store) -> None:
    reader = StoreReader(url)
    cursor = Cursor(reader, url)
    cursor.read()
    log(store, 700)
    file = next(folder.glob("detector-0.db")) if (folder := folder_of(url)) else None
    assert file is not None
    with contextlib.closing(sqlite.connected(file, "mode=rw")) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert file.with_name("detector-0.db-wal").stat().st_size == 0
    cursor.close()
    reader.close()


def test_a_model_is_as_new_as_the_store_while_the_fleet_may_be_a_moment_older(url: str, store: Store) -> None:
    backend = StoreBackend(url)
    before = backend.fleet()
    cursor = backend.cursor()
    log(store, 700)
    assert backend.model("m")["events"] == 701
    assert backend.fleet() is before  # it was read this moment
    changed = backend.cursor()
    assert changed != cursor
    backend._read_at = float("-inf")  # the moment has passed
    asyncio.run(_until(lambda: backend.cursor() != changed))  # pages are told once more
    assert next(row.events for row in backend.fleet() if row.model == "m") == 701
    with pytest.raises(KeyError, match="model must be one of this store, got 'none'"):
        backend.model("none")
    backend.close()


async def _until(claim: Any) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110  what it waits for sets no event
            await asyncio.sleep(0.01)


def test_every_open_page_is_told_once_of_each_change_and_none_looks_when_no_page_is_open() -> None:
    looks: list[str] = []
    now = "0"

    def cursor() -> str:
        looks.append(now)
        return now

    async def run() -> None:
        nonlocal now
        live = Live(cursor, look_s=0.005)
        async with live.running():
            await asyncio.sleep(0.02)
            assert looks == []
            pages = [live._events() for _ in range(3)]
            assert [await anext(page) for page in pages] == ["retry: 2000\n\n"] * 3
            waiting = [asyncio.create_task(_next(page)) for page in pages]
            await _until(lambda: len(looks) > 2)
            assert not any(task.done() for task in waiting)
            now = "1"
            assert await asyncio.gather(*waiting) == ["event: changed\ndata: {}\n\n"] * 3
            for page in pages:
                await cast("Any", page).aclose()
            await _until(lambda: not live._open)

    asyncio.run(run())


async def _next(page: AsyncIterator[str]) -> str:
    return await anext(page)


def test_a_store_that_does_not_answer_ends_no_page_and_too_many_are_refused() -> None:
    def broken() -> str:
        raise OSError("no such file")

    async def run() -> None:
        live = Live(broken, look_s=0.005)
        async with live.running():
            page = live._events()
            assert (await anext(page)).startswith("retry")
            live._open.update(asyncio.Event() for _ in range(MAX_OPEN))
            assert (await live.stream(cast("Request", None))).status_code == 503

    asyncio.run(run())

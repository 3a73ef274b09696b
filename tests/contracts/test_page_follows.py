"""The page follows a store of either kind: an open page is told of each commit and shows it; a happening is read once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from actors import wire
from actors.clock import Instant
from actors.detection.state import DetectionState, Ingest
from actors.detection.tables import DETECTOR
from actors.detection.tables import happened as of_detector
from actors.replies import happening
from actors.storage import Store
from actors.storage import happenings as rows
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from actors.ui.live import Live
from tests.speed import slow
from tests.unit.ui.conftest import NOW, write


@pytest.fixture
def backend(url: str) -> Iterator[StoreBackend]:
    write(url).close()
    found = StoreBackend(url)
    yield found
    found.close()


def page_of(backend: StoreBackend) -> TestClient:
    return TestClient(create(backend, Access(local_name="ada")), base_url="http://127.0.0.1:8420", client=("127.0.0.1", 5))


def log(url: str, number: int, level: float) -> None:
    now = Instant(NOW + number, 0.0, "boot")
    store = Store(url)
    batch = wire.batch_of_columns({"accuracy": [level]}, version="v1", timestamps=[NOW + number], now_s=NOW + number)
    DetectionState(store, "detector:m", 0, now).commit([Ingest("m", "p", number, wire.pack(batch))], now)
    store.close()


def test_every_view_shows_what_the_store_holds(backend: StoreBackend) -> None:
    page = page_of(backend)
    episode = backend.episodes("m")[0]["id"]
    for path in ("/", "/models/m", "/what-if/m", "/episodes", f"/episodes/{episode}", "/orders", "/studies", "/system"):
        told = page.get(path)
        assert (told.status_code, "m" in told.text) == (200, True), path
    assert len(page.get("/series/m").json()["metrics"]["accuracy"]["values"]) == 700
    assert "700" in page.get("/models/m").text


def test_the_cursor_differs_after_each_commit_and_only_then_also_while_an_older_transaction_is_open(
    url: str, backend: StoreBackend
) -> None:
    slow_writer = Store(url)
    backend.fleet()
    seen = [backend.cursor()]
    assert backend.cursor() == seen[0]
    with slow_writer.part(DETECTOR, 1).write() as connection:
        rows.record(connection, of_detector, [happening("alarm", "slow", NOW, model="m")])
        log(url, 700, 0.7)
        seen.append(backend.cursor())
        assert seen[1] != seen[0]
    seen.append(backend.cursor())
    assert seen[2] not in seen[:2]
    slow_writer.close()


def test_an_open_page_is_told_of_a_commit_and_then_shows_it(url: str, backend: StoreBackend) -> None:
    page, looks = page_of(backend), list[str]()

    def cursor() -> str:
        looks.append(backend.cursor())
        return looks[-1]

    async def followed() -> None:
        live = Live(cursor, look_s=0.02)
        async with live.running():
            told = live._events()
            assert (await anext(told)).startswith("retry")
            async with asyncio.timeout(slow(30)):
                while not looks:  # noqa: ASYNC110  the first look sets no event; what comes after it is a change
                    await asyncio.sleep(0.01)
            for number in range(3):
                await asyncio.to_thread(log, url, 700 + number, 0.71 + number / 100)
                while page.get("/series/m").json()["metrics"]["accuracy"]["values"][-1] != pytest.approx(0.71 + number / 100):
                    async with asyncio.timeout(slow(30)):
                        assert await anext(told) == "event: changed\ndata: {}\n\n"

    asyncio.run(followed())
    assert backend.model("m")["events"] == 703


def test_what_has_happened_is_read_once_each_by_its_cursor_while_many_write(url: str, backend: StoreBackend) -> None:
    page = page_of(backend)

    def write_some(writer: int) -> None:
        own = Store(url)
        for number in range(25):
            with own.part(DETECTOR, 0).write() as connection:
                rows.record(connection, of_detector, [happening("alarm", f"{writer}-{number}", NOW, model="m")])
        own.close()

    cursor, found = "", list[str]()

    def read() -> int:
        nonlocal cursor
        told = page.get("/api/v1/happenings", params={"after": cursor, "limit": 7}).json()
        cursor = told["cursor"]
        found.extend(each["id"] for each in told["happenings"])
        return len(told["happenings"])

    writers = [threading.Thread(target=write_some, args=(writer,)) for writer in range(3)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        read()
    while read():
        pass
    ours = [each for each in found if each.startswith("alarm:") and each.count("-") == 1]
    assert sorted(ours) == sorted(f"alarm:{writer}-{number}" for writer in range(3) for number in range(25))
    assert len(set(found)) == len(found)

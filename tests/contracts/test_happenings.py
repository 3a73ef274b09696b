"""A reader of happenings that goes on after the last number that it has seen misses no row in any order of commits."""

from __future__ import annotations

import threading

from actors import happenings
from actors.detection.tables import DETECTOR
from actors.detection.tables import happened as of_detector
from actors.replies import happening
from actors.retraining.tables import DISPATCHER
from actors.retraining.tables import happened as of_dispatcher
from actors.storage import Store, StoreReader
from actors.storage import happenings as rows
from tests.speed import slow

NOW = 1_795_000_000.0


class Following:
    """A reader with a cursor for each part."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, int] = {}
        self.ids: list[str] = []

    def look(self) -> list[str]:
        found = happenings.after(self._store, self._seen)
        self._seen |= {row["part"]: row["number"] for row in found}
        self.ids += [row["id"] for row in found]
        return [row["id"] for row in found]


def test_a_row_that_is_committed_late_is_not_passed_by_one_with_a_later_number(url: str) -> None:
    late, early = Store(url), Store(url)
    for each in (late, early):
        each.part(DETECTOR, 0)
        each.part(DISPATCHER)
    reader = Following(StoreReader(url))

    def write() -> None:
        with early.part(DISPATCHER).write() as connection:
            rows.record(connection, of_dispatcher, [happening("order_done", "early", NOW)])

    with late.part(DETECTOR, 0).write() as connection:
        rows.record(connection, of_detector, [happening("alarm", "late", NOW)])  # its number is taken
        rival = threading.Thread(target=write)
        rival.start()
        rival.join(0.3)
        reader.look()
    rival.join(slow(10))
    reader.look()
    assert sorted(reader.ids) == ["alarm:late", "order_done:early"]


def test_a_reader_sees_every_row_of_many_writers_once_and_none_that_was_rolled_back(url: str) -> None:
    store = Store(url)
    store.part(DETECTOR, 0)
    reader = Following(StoreReader(url))

    def write(writer: int) -> None:
        own = Store(url)
        for number in range(40):
            try:
                with own.part(DETECTOR, 0).write() as connection:
                    rows.record(connection, of_detector, [happening("alarm", f"{writer}-{number}", NOW)])
                    if number % 5 == 4:
                        raise LookupError  # the number is used up, the row is not there
            except LookupError:
                pass
        own.close()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        reader.look()
    reader.look()
    expected = {f"alarm:{writer}-{number}" for writer in range(4) for number in range(40) if number % 5 != 4}
    assert len(reader.ids) == len(expected)
    assert set(reader.ids) == expected


def test_what_happens_to_the_system_is_read_with_the_rest_and_once_for_its_id(url: str) -> None:
    store = Store(url)
    reader = Following(store)
    for _again in range(2):
        rows.record_of_system(store, happening("actor_down", "tuner:1", NOW, "warning", subject="tuner"))
    assert reader.look() == ["actor_down:tuner:1"]
    assert [row["id"] for row in happenings.newest(store)] == ["actor_down:tuner:1"]
    assert happenings.last(store)["system"] == 1

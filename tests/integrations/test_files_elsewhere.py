"""Files of Parquet, and files by URL: the contract of every source, on the real pyarrow and fsspec."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.config.sources import FilesSettings
from tests.contracts.test_sources import (
    FilesWorld,
    Ledger,
    Process,
    World,
    points,
    test_a_process_that_ends_between_any_two_steps_loses_nothing_and_counts_nothing_twice,
    test_a_source_that_is_down_is_shown_backs_off_and_is_caught_up_on,
    test_a_system_that_is_down_keeps_one_answer_waiting_and_reads_no_further,
    test_garbage_is_counted_with_the_reason_and_what_comes_after_it_is_read,
    test_what_is_there_and_what_comes_counts_once_with_its_n,
)

pyarrow = pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")

__all__ = [
    "points",
    "test_a_process_that_ends_between_any_two_steps_loses_nothing_and_counts_nothing_twice",
    "test_a_source_that_is_down_is_shown_backs_off_and_is_caught_up_on",
    "test_a_system_that_is_down_keeps_one_answer_waiting_and_reads_no_further",
    "test_garbage_is_counted_with_the_reason_and_what_comes_after_it_is_read",
    "test_what_is_there_and_what_comes_counts_once_with_its_n",
]


class ParquetWorld(FilesWorld):
    """A file for each delivery, as Parquet cannot grow."""

    def put(self, models: list[str | None], values: list[float]) -> None:
        from pyarrow import parquet, table

        if values:
            columns = {"model": models, "version": ["1"] * len(values), "time": [self.now_s] * len(values)}
            parquet.write_table(
                table(columns | {"accuracy": values, "n": [20] * len(values)}), self.place / f"{next(self.files):03}.parquet"
            )

    def add(self, count: int) -> None:
        self.put(["fraud"] * count, self.fresh(count))

    def garble(self) -> None:
        self.put([None], [0.5])


class MemoryWorld(World):
    """JSONL in fsspec's memory, which stands for any store of objects."""

    numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.disk = fsspec.filesystem("memory")
        self.path = f"/drop{next(self.numbers)}"
        self.disk.makedirs(self.path)
        self.settings = FilesSettings(kind="files", path=f"memory:/{self.path}", metrics={"accuracy": "accuracy"})

    def write(self, lines: list[str]) -> None:
        with self.disk.open(f"{self.path}/0.jsonl", "ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def add(self, count: int) -> None:
        said = '{{"model": "fraud", "version": "1", "time": {}, "accuracy": {!r}, "n": 20}}'
        self.write([said.format(self.now_s, value) for value in self.fresh(count)])

    def garble(self) -> None:
        self.write(["{no json"])

    def break_down(self) -> None:
        self.disk.mv(self.path, f"{self.path}-gone", recursive=True)

    def mend(self) -> None:
        self.disk.mv(f"{self.path}-gone", self.path, recursive=True)


@pytest.fixture(params=[ParquetWorld, MemoryWorld])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made: Callable[[Path], World] = request.param
    return made(tmp_path)


def test_a_file_of_parquet_that_is_still_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    world, ledger = ParquetWorld(tmp_path), Ledger()
    world.add(2)
    (file,) = world.place.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    process = Process(tmp_path, world, ledger)
    process.settle()
    assert ledger.values == []
    assert "(yet)" in str(process.shown()["problem"])
    file.write_bytes(whole)
    process.settle()
    assert sorted(ledger.values) == world.added


def test_a_folder_by_url_that_does_not_exist_is_a_failing_source(tmp_path: Path) -> None:
    world, ledger = MemoryWorld(tmp_path), Ledger()
    world.settings = FilesSettings(kind="files", path="memory://nowhere")
    process = Process(tmp_path, world, ledger)
    process.settle()
    assert process.shown()["state"] == "failing"
    assert "there is no memory:///nowhere" in str(process.shown()["problem"])

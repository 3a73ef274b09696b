"""A store that is opened for reading: it shows what there is, and leaves it as it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from actors import status
from actors.config import parse
from actors.config.stored import load_stored, store_settings
from actors.detection.stored import detector_parts
from actors.detection.tables import DETECTOR
from actors.retraining.tables import DISPATCHER
from actors.storage import SCHEMA_VERSION, SchemaError, Store, StoreError, StoreReader, sqlite
from actors.storage.schema import SYSTEM
from actors.storage.sources import SOURCES
from actors.tuning.offline import list_studies
from actors.tuning.tables import TUNER


def written(url: str) -> str:
    store = Store(url)
    store.part(DETECTOR, 0)
    store_settings(store, parse({"namespace": "n", "defaults": {"cooldown": "7m"}}, "test"), 1.0)
    store.close()
    return store.store_id


def test_where_there_is_no_store_none_is_made(url: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="must be the store of a system, there is none at"):
        StoreReader(url)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StoreError):
        list_studies(url)


def test_what_was_written_is_read_and_what_was_not_is_empty(url: str) -> None:
    store_id = written(url)
    reader = StoreReader(url)
    assert reader.store_id == store_id
    assert load_stored(reader).for_model("m").cooldown_s == 420.0
    assert len(detector_parts(reader)) == 1
    seen = status.read(reader)
    assert (seen["models"], sum(seen["retrains"].values()), seen["tuner"]["studies"]) == ({}, 0, 0)
    reader.close()


def test_what_is_read_at_once_is_one_transaction_of_a_database(url: str) -> None:
    written(url)
    store = Store(url)
    for kind in (DISPATCHER, TUNER, SOURCES):  # as a start makes them
        store.part(kind)
    store.close()
    reader = StoreReader(url)
    apart = status.read(reader)  # the first look also asks for the versions
    begun: list[object] = []

    def note(connection: object) -> None:
        begun.append(connection)

    event.listen(Engine, "begin", note)
    try:
        with reader.at_once():
            assert status.read(reader) == apart
            with reader.at_once():  # one within another is the same
                status.read(reader)
        at_once = len(begun)
        status.read(reader)
    finally:
        event.remove(Engine, "begin", note)
    # Files have a transaction each; what is on the way of a database that is far and asked every few seconds counts as one.
    assert at_once == (1 if url.startswith("postgresql") else 2 * (len(begun) - at_once))
    assert len(begun) - at_once > 3
    reader.close()


def test_nothing_is_written_through_it(url: str) -> None:
    written(url)
    reader = StoreReader(url)
    with pytest.raises(StoreError, match="was opened for reading"), reader.part(SYSTEM).write():
        pass
    with pytest.raises(Exception, match=r"read-?only"), reader.part(SYSTEM).read() as connection:
        connection.execute(text("DELETE FROM identity"))
    reader.close()


@pytest.mark.parametrize(("version", "way_out"), [(SCHEMA_VERSION - 1, "migrates it"), (SCHEMA_VERSION + 1, "newer build")])
def test_a_store_of_another_schema_is_refused_and_not_migrated(url: str, version: int, way_out: str) -> None:
    written(url)
    store = Store(url)
    with store.part(SYSTEM).write() as connection:
        connection.execute(text(f"UPDATE schema_versions SET version = {version} WHERE kind = 'system'"))
    store.close()
    for _ in range(2):
        with pytest.raises(SchemaError, match=way_out):
            StoreReader(url)


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    written(url)
    (tmp_path / "store" / "dispatcher.db").write_bytes(b"\xff" * 5000)
    reader = StoreReader(url)
    with pytest.raises(StoreError, match=r"dispatcher cannot be read: .*dispatcher\.db is damaged \(file is not a database\)"):
        reader.part(DISPATCHER)
    reader.close()


def test_a_store_is_read_while_it_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a name with spaces and ü/store"
    written(url)
    writer = sqlite3.connect(tmp_path / "a name with spaces and ü" / "store" / "system.db")
    writer.execute("BEGIN IMMEDIATE")
    StoreReader(url).close()
    writer.close()


def test_a_store_on_a_disk_that_takes_no_files_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite behaves there: a log of changes can be neither found nor made."""
    url = f"sqlite:///{tmp_path}/store"
    written(url)
    real, asked = sqlite.connected, []

    def connected(file: Path, how: str) -> sqlite3.Connection:
        asked.append(how)
        if how == "mode=ro":
            raise sqlite3.OperationalError("unable to open database file")
        return real(file, how)

    monkeypatch.setattr(sqlite, "connected", connected)
    StoreReader(url).close()
    assert set(asked) == {"mode=ro", "mode=ro&immutable=1"}
    (tmp_path / "store" / "system.db-wal").touch()  # somebody writes: what is not in the file yet would be missed
    with pytest.raises(StoreError, match="unable to open"):
        StoreReader(url)

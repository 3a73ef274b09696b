"""A store that is deleted, replaced, locked away or of another version: it is noticed, and nothing is committed meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, String, Table, select, text
from sqlalchemy.exc import OperationalError

from actors import replies, status
from actors.cluster import actor
from actors.detection.tables import DETECTOR
from actors.retraining.tables import DISPATCHER
from actors.storage import (
    SCHEMA_VERSION,
    UNAVAILABLE,
    Fence,
    PartKind,
    SchemaError,
    Store,
    StoreError,
    StoreLostError,
    StoreReader,
    schema,
    sqlite,
)
from actors.storage.schema import SYSTEM
from actors.tuning.tables import TUNER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder}")


class TestDeletedOrReplaced:
    def test_a_commit_into_a_deleted_file_is_refused(self, store: Store, folder: Path) -> None:
        fence = Fence.raise_epoch(store.part(DETECTOR, 0), "owner")
        (folder / "detector-0.db").unlink()
        with pytest.raises(StoreLostError, match=r"detector-0\.db was deleted while the system runs"), fence.write():
            pass
        with pytest.raises(UNAVAILABLE), fence.part.read():
            pass

    def test_a_commit_into_a_file_that_another_took_the_place_of_is_refused(self, store: Store, folder: Path) -> None:
        fence = Fence.raise_epoch(store.part(DETECTOR, 0), "owner")
        (folder / "detector-0.db").rename(folder / "aside")
        (folder / "detector-0.db").write_bytes((folder / "aside").read_bytes())
        with pytest.raises(StoreLostError, match="was replaced by another file"), fence.write():
            pass
        (folder / "aside").rename(folder / "detector-0.db")
        with fence.write():  # the file is back: so is the store
            pass

    def test_nothing_is_made_in_the_place_of_what_was_deleted(self, store: Store, folder: Path) -> None:
        part = store.part(DETECTOR, 0)
        (folder / "detector-0.db").unlink()
        part.engine.dispose()
        with pytest.raises(UNAVAILABLE), part.write():
            pass
        assert not (folder / "detector-0.db").exists()
        with pytest.raises(StoreError, match=r"detector-0\.db is missing, and the data in it are lost"):
            Store(store.url).part(DETECTOR, 0)
        with pytest.raises(StoreError, match="there is none"):
            Store(f"sqlite:///{folder}-2", makes=False)
        assert not Path(f"{folder}-2").exists()

    def test_status_says_what_is_missing_and_that_another_store_has_taken_the_place(self, store: Store, folder: Path) -> None:
        for kind in (DISPATCHER, TUNER):
            store.part(kind)
        store.part(DETECTOR, 0)
        assert "store_problem" not in status.read_url(store.url, 0.0, store.store_id)
        (folder / "detector-0.db").rename(folder / "aside")
        assert status.read_url(store.url, 0.0)["store_problem"] == f"{folder}/detector-0.db was deleted"
        (folder / "aside").rename(folder / "detector-0.db")
        assert "the system was started on 12345678" in status.read_url(store.url, 0.0, "12345678")["store_problem"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_a_file_that_may_not_be_written_is_named(self, store: Store, folder: Path) -> None:
        (folder / "system.db").chmod(0o400)
        with pytest.raises(StoreLostError, match=r"system\.db is read-only"):
            store.check()

    def test_a_file_that_may_not_be_written_is_named_whoever_asks(
        self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("system.db"))
        with pytest.raises(StoreLostError, match=r"system\.db is read-only"):
            store.check()

    def test_nothing_is_committed_into_a_file_that_may_not_be_written_any_more(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fence = Fence.raise_epoch(store.part(DETECTOR, 0), "owner")  # SQLite has the file open, and could still write it
        assert store.problem() is None
        monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("detector-0.db"))
        with pytest.raises(StoreLostError, match=r"detector-0\.db is read-only"), fence.write():
            pass
        assert str(store.problem()).endswith("detector-0.db is read-only")

    def test_an_actor_says_in_its_hello_that_its_file_was_replaced(self, store: Store, folder: Path) -> None:
        store.part(DETECTOR, 0)
        assert "store_problem" not in actor.hello("detector-0", store=store)
        (folder / "detector-0.db").rename(folder / "aside")
        (folder / "detector-0.db").write_bytes((folder / "aside").read_bytes())
        problem = actor.hello("detector-0", store=store).get("store_problem", "")
        assert "was replaced by another file" in problem
        here: replies.ActorStatus = {"pid": 1, "node": "n", "alive": True, "epoch": 1, "store_problem": problem}
        # A process that opens the store afresh finds the file whole.
        assert status.joined(status.read_url(store.url, 0.0), {"detector-0": here}).get("store_problem") == problem


class TestDamaged:
    def test_a_file_whose_bytes_are_spoiled_is_named_and_how_to_go_on(self, store: Store, folder: Path) -> None:
        for kind in (DISPATCHER, TUNER):
            store.part(kind)
        for slot in (0, 1):
            store.part(DETECTOR, slot)
        store.close()
        file = folder / "detector-0.db"
        file.write_bytes(file.read_bytes()[:100] + b"\xa5" * (file.stat().st_size - 100))
        message = r"detector-0\.db is damaged .*replace it by the file of a copy .*`visutility restore`"
        with pytest.raises(StoreError, match=message):
            Store(store.url).migrate([DISPATCHER, TUNER, DETECTOR])
        with pytest.raises(UNAVAILABLE, match=message):
            Store(store.url).part(DETECTOR, 0)
        Store(store.url).part(DETECTOR, 1)
        told = status.read_url(store.url, 0.0)
        assert f"{file} is damaged" in told["store_problem"]
        assert told["models"] == {}  # and whatever can be read is
        assert "retrains" in told

    def test_a_mistake_in_a_statement_is_no_damage(self, store: Store) -> None:
        with pytest.raises(OperationalError), store.part(DETECTOR, 0).read() as connection:
            connection.execute(text("SELECT * FROM nowhere"))


class TestWhoMaySeeIt:
    def test_files_are_for_their_owner_alone_whatever_the_umask(self, folder: Path) -> None:
        before = os.umask(0)
        try:
            store = Store(f"sqlite:///{folder}")
            with store.part(DETECTOR, 0).write() as connection:
                connection.execute(text("SELECT 1"))
        finally:
            os.umask(before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.suffix == ".db"} == {
            "system.db": 0o600,
            "detector-0.db": 0o600,
        }
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())

    @pytest.mark.parametrize("name", ["50% off", "what?x=1", "a#b", "with space", "modèle 名前", "a%20b", "it's"])
    def test_any_path_is_a_folder(self, tmp_path: Path, name: str) -> None:
        url = f"sqlite:///{tmp_path}/{name}"
        made = Store(url)
        made.part(DETECTOR, 0)
        made.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == [name]
        assert (tmp_path / name / "system.db").is_file()
        assert StoreReader(url).store_id == Store(url).store_id == made.store_id

    def test_a_store_that_is_new_says_so_once(self, store: Store) -> None:
        assert store.is_new
        assert not Store(store.url).is_new


def _things(version: int) -> PartKind:
    kind = PartKind("things", migrations={SCHEMA_VERSION - 1: schema.add_columns("things", Column("extra", String(10)))})
    columns = [Column("extra", String(10))] if version == SCHEMA_VERSION else []
    Table("things", kind.metadata, Column("id", Integer, primary_key=True), *columns)
    return kind


def _older(folder: Path) -> None:
    """Write a part as the build before this one would have."""
    sqlite.make_folder(folder)
    sqlite.make_file(folder / "things.db")
    with sqlite.writable(folder / "things.db").begin() as connection:
        schema.prepare(connection, _things(SCHEMA_VERSION - 1), version=SCHEMA_VERSION - 1)
        connection.execute(text("INSERT INTO things (id) VALUES (7)"))


class TestMigration:
    def test_only_migrate_brings_a_part_forward_and_a_copy_is_kept(self, folder: Path) -> None:
        _older(folder)
        store, kind = Store(f"sqlite:///{folder}"), _things(SCHEMA_VERSION)
        with pytest.raises(SchemaError, match=rf"things: its schema must be {SCHEMA_VERSION} .* migrates it"):
            store.part(kind)
        with pytest.raises(SchemaError, match="migrates it"):
            StoreReader(store.url).part(kind)
        assert store.migrate([kind]) == ["things"]
        with store.part(kind).read() as connection:
            assert connection.execute(select(kind.metadata.tables["things"])).all() == [(7, None)]
        copy = folder / f"before-schema-{SCHEMA_VERSION}" / "things.db"
        with sqlite.read_only(copy).connect() as connection:
            assert connection.execute(text("SELECT * FROM things")).all() == [(7,)]
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert store.migrate([kind]) == []

    def test_a_file_that_could_not_shrink_can_afterwards(self, folder: Path) -> None:
        sqlite.make_folder(folder)
        with contextlib.closing(sqlite3.connect(folder / "things.db")) as older:  # as 0.1 made its files
            older.execute("PRAGMA journal_mode=WAL")
            older.execute("CREATE TABLE filler (bytes BLOB)")
            older.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
            older.execute("DELETE FROM filler")
            older.commit()
        _older(folder)
        assert (folder / "things.db").stat().st_size > 1_000_000
        store, kind = Store(f"sqlite:///{folder}"), _things(SCHEMA_VERSION)
        assert store.migrate([kind]) == ["things"]
        with store.part(kind).read() as connection:
            assert connection.execute(text("PRAGMA auto_vacuum")).scalar() == 2
            assert connection.execute(select(kind.metadata.tables["things"])).all() == [(7, None)]
        store.close()
        assert (folder / "things.db").stat().st_size < 100_000

    def test_a_part_of_a_newer_build_is_refused_and_left_alone(self, store: Store, folder: Path) -> None:
        store.part(TUNER)
        for name in ("tuner", "system"):
            with sqlite.writable(folder / f"{name}.db").begin() as connection:
                connection.execute(text(f"UPDATE schema_versions SET version = {SCHEMA_VERSION + 1}"))
            with pytest.raises(SchemaError, match="use a newer build"):
                Store(store.url).migrate([TUNER])

    def test_the_system_s_own_part_is_brought_forward_first(self, store: Store, folder: Path) -> None:
        with store.part(SYSTEM).write() as connection:
            connection.execute(text(f"UPDATE schema_versions SET version = {SCHEMA_VERSION - 1}"))
        older = Store(store.url)
        assert older.store_id == store.store_id
        with pytest.raises(SchemaError, match="migrates it"):
            older.part(SYSTEM)
        assert older.migrate([]) == ["system"]
        older.part(SYSTEM)

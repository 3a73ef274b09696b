"""Backup under load and restore: nothing is torn, nothing is changed that is there, and no id repeats."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors import happenings as all_happenings
from actors.detection.tables import DETECTOR
from actors.replies import happening
from actors.retraining.rules.orders import order_id
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, StoreError, StoreReader, backup, happenings, schema, sqlite
from actors.storage.schema import SYSTEM
from actors.tuning.tables import TUNER
from drivers import cli
from tests.database import emptied
from tests.speed import slow

KINDS = [SYSTEM, DETECTOR, DISPATCHER, TUNER]
NOW = 1_795_000_000.0


def elsewhere(url: str, tmp_path: Path) -> str:
    """Return where a restored store goes: a server has one database here, which is emptied."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/restored"
    emptied(url)
    return url


def noted(store: Store, part: str, value: int) -> None:
    """Write a number into a part, in a table that every part has."""
    kind, slot = (DETECTOR, 0) if part == "detector" else (DISPATCHER, None)
    with store.part(kind, slot).write() as connection:
        row = {"owner": f"count of {part}", "epoch": value}
        connection.execute(schema.upsert(connection, kind.fences, "epoch").values(row))


def counted(url: str) -> tuple[int, int]:
    with contextlib.closing(StoreReader(url)) as store:
        found = []
        for kind, slot, part in ((DETECTOR, 0, "detector"), (DISPATCHER, None, "dispatcher")):
            with store.part(kind, slot).read() as connection:
                wanted = kind.fences.select().where(kind.fences.c.owner == f"count of {part}")
                row = connection.execute(wanted).first()
                found.append(0 if row is None else int(row.epoch))
    return found[0], found[1]


def test_a_backup_under_load_is_of_one_moment_in_all_parts(url: str, tmp_path: Path) -> None:
    """The dispatcher records what the detector has asked for before: its number is never the higher one."""
    store = Store(url)
    noted(store, "detector", 0)
    noted(store, "dispatcher", 0)
    done, goes_on, failed = threading.Event(), threading.Event(), []

    def load() -> None:
        number = 0
        try:
            while not done.is_set():
                number += 1
                noted(store, "detector", number)
                noted(store, "dispatcher", number)
                goes_on.set()
        except Exception as error:  # noqa: BLE001  the test says so
            failed.append(error)

    writer = threading.Thread(target=load)
    writer.start()
    copies = [tmp_path / f"copy-{number}" for number in range(5)]
    for copy in copies:
        goes_on.clear()
        assert goes_on.wait(slow(30))
        backup.take(url, copy, KINDS, now_s=NOW)
    done.set()
    writer.join(slow(30))
    store.close()
    assert failed == []
    seen = []
    for number, copy in enumerate(copies):
        target = elsewhere(url, tmp_path / str(number))
        backup.restore(copy, target, KINDS)
        seen.append(counted(target))
    assert all(detector - dispatcher in {0, 1} for detector, dispatcher in seen), seen
    assert seen == sorted(seen)
    assert seen[-1][0] > seen[0][0] > 0


class _Slow:
    """A connection that takes its time to begin a snapshot, as on a machine under load."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def backup(self, target: sqlite3.Connection) -> None:
        self._connection.backup(target)

    def execute(self, statement: str) -> sqlite3.Cursor:
        if statement == "BEGIN":
            time.sleep(0.05)
        return self._connection.execute(statement)


def test_snapshots_that_are_opened_slowly_are_of_one_moment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store"
    connected = sqlite.connected

    def opened(file: Path, how: str) -> Any:
        return _Slow(connected(file, how)) if how == "mode=ro" else connected(file, how)

    slow = SimpleNamespace(**{**vars(sqlite), "connected": opened})
    monkeypatch.setattr(backup, "sqlite", slow)
    test_a_backup_under_load_is_of_one_moment_in_all_parts(url, tmp_path)


def test_a_restored_store_goes_on_under_an_id_of_its_own(url: str, tmp_path: Path) -> None:
    store = Store(url)
    for kind in KINDS[1:]:
        store.part(kind, 0 if kind is DETECTOR else None)
    with store.part(SYSTEM).write() as connection:
        connection.execute(schema.notes.insert().values(name="holder", value=b"{}"))
        connection.execute(schema.settings.insert().values(version=1, document="{}", stored_at=NOW))
    before = store.store_id
    store.close()
    backup.take(url, tmp_path / "copy", KINDS, now_s=NOW)
    made = [backup.restore(tmp_path / "copy", elsewhere(url, tmp_path / str(n)), KINDS) for n in range(2)]
    ids = {each["store_id"] for each in made}
    assert len(ids | {before}) == 3  # twice from one backup is two stores
    target = f"sqlite:///{tmp_path}/1/restored" if url.startswith("sqlite") else url
    restored = Store(target)
    assert restored.store_id == made[1]["store_id"]
    with restored.part(SYSTEM).read() as connection:
        names = {row.name for row in connection.execute(schema.notes.select())}
        assert connection.execute(schema.settings.select()).one().version == 1
    assert "holder" not in names  # who held the original does not hold this one
    assert f"timeline:{restored.store_id}" in names
    for kind in KINDS[1:]:
        restored.part(kind, 0 if kind is DETECTOR else None)
    restored.close()


def test_what_happens_after_a_restore_has_a_number_above_every_reader_s_also_where_all_rows_were_pruned(
    url: str, tmp_path: Path
) -> None:
    store = Store(url)
    for number in range(5):
        happenings.record_of_system(store, happening("actor_down", f"a:{number}", NOW + number, "warning", subject="a"))
    seen = all_happenings.last(store)
    with store.system.write() as connection:
        happenings.prune(connection, happenings.of_system, keep_rows=100, older_than_s=NOW + 10)
    assert happenings.newest(store.system, happenings.of_system) == []
    copy = tmp_path / "copy"
    backup.take(url, copy, KINDS, now_s=NOW)
    store.close()
    restored = elsewhere(url, tmp_path)
    backup.restore(copy, restored, KINDS)
    store = Store(restored)
    happenings.record_of_system(store, happening("actor_down", "a:9", NOW + 20, "warning", subject="a"))
    assert [row["id"] for row in all_happenings.after(store, seen)] == ["actor_down:a:9"]
    store.close()


def test_what_was_open_keeps_its_id_and_what_is_new_cannot_have_an_old_one() -> None:
    open_episode, new_episode = "0a1b2c3d-e-77", "ffffffff-e-77"
    assert order_id("ffffffff", open_episode) == order_id("0a1b2c3d", open_episode)
    assert order_id("ffffffff", new_episode) != order_id("0a1b2c3d", open_episode)
    assert order_id("ffffffff", "manual\0key").startswith("ffffffff-r-")


def test_nothing_that_is_there_is_written_over(url: str, tmp_path: Path) -> None:
    Store(url).close()
    (tmp_path / "copy").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        backup.take(url, tmp_path / "copy", KINDS, now_s=NOW)
    backup.take(url, tmp_path / "other", KINDS, now_s=NOW)
    with pytest.raises(StoreError, match="needs a URL without a store"):
        backup.restore(tmp_path / "other", url, KINDS)
    assert sorted(path.name for path in tmp_path.iterdir() if "unfinished" in path.name) == []


def test_where_there_is_no_store_nothing_is_copied_or_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is none at"):
        backup.take(f"sqlite:///{tmp_path}/nowhere", tmp_path / "copy", KINDS, now_s=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "manifest", "escape"])
def test_a_damaged_backup_is_refused_and_makes_nothing(harm: str, tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path}/store", tmp_path / "copy"
    Store(url).close()
    backup.take(url, copy, KINDS, now_s=NOW)
    file = copy / "system.db"
    match harm:
        case "flip":
            file.write_bytes(file.read_bytes()[:-1] + b"\xff")
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
        case "delete":
            file.unlink()
        case "manifest":
            (copy / "manifest.json").write_text("{")
        case "escape":
            manifest = json.loads((copy / "manifest.json").read_text())
            manifest["files"]["../store/system.db"] = manifest["files"].pop("system.db")
            (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"is damaged|is not a complete backup"):
        backup.restore(copy, f"sqlite:///{tmp_path}/restored", KINDS)
    assert not (tmp_path / "restored").exists()


def test_a_store_that_stays_locked_is_named_and_leaves_no_half_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store"
    store = Store(url)
    monkeypatch.setattr(backup, "_TRIES", 2)
    monkeypatch.setattr(backup, "_LOCK_S", 0.01)
    monkeypatch.setattr(backup, "_PAUSE_S", 0.0)
    with store.part(SYSTEM).write(), pytest.raises(StoreError, match=r"cannot be locked for a moment: system.db"):
        backup.take(url, tmp_path / "copy", KINDS, now_s=NOW)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_commands_copy_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, copy, restored = f"sqlite:///{tmp_path}/store", tmp_path / "copy", f"sqlite:///{tmp_path}/restored"
    Store(url).close()
    assert cli.main(["backup", str(copy), "--storage", url, "-o", "json"]) == 0
    taken = json.loads(capsys.readouterr().out)
    assert set(taken["files"]) == {"system.db"}
    assert (copy.stat().st_mode & 0o777, (copy / "system.db").stat().st_mode & 0o777) == (0o700, 0o600)
    assert cli.main(["restore", str(copy), "--storage", restored, "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["restored_from"] == taken["store_id"] != made["store_id"]
    assert cli.main(["status", "--storage", restored]) == 0
    assert cli.main(["restore", str(copy), "--storage", restored]) == 2
    assert "is not empty: move it elsewhere first" in capsys.readouterr().err

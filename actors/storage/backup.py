"""Copies a whole store at one moment, while it is in use, and creates a new store from such a copy.

    manifest = take("sqlite:////var/lib/visutility", Path("backup-1"), KINDS, now_s=time.time())
    restore(Path("backup-1"), "sqlite:////var/lib/visutility", KINDS)

On SQLite every file is locked for the moment in which a snapshot of each is opened, some milliseconds, and copied from there by
SQLite's own backup; on PostgreSQL one REPEATABLE READ transaction copies every table. So no part is ahead of another: what one
part believes another to have recorded is in the copy.

A restored store is a new timeline: it gets a new id, with which every new id of the system begins. So no new order has the id
of one that was made after the backup and is lost. Open orders keep their ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from sqlalchemy import Connection, Table, inspect, select, text

from actors.checks import redacted
from actors.storage import schema, sqlite
from actors.storage.schema import SCHEMA_VERSION, PartKind, SchemaError
from actors.storage.store import Store, StoreError, folder_of, is_local, postgresql

_MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_SEQUENCES: Final = "sequences.json"  # of PostgreSQL: the last number that each column was given
# Writers wait for a lock 5 s: all files are had within a fraction of that, or let go and tried again.
_LOCK_S: Final = 0.5
_TRIES: Final = 20
_PAUSE_S: Final = 0.2
_PIECE: Final = 2**20


class FileShown(TypedDict):
    """One file of a backup: its size, and the SHA-256 of what it holds, in hexadecimal digits."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The manifest of a backup; `files` are sizes and SHA-256 by name."""

    format: int
    kind: str
    store_id: str
    schema: int
    taken_at: float
    files: dict[str, FileShown]


class Restored(TypedDict):
    """Which store was made of which."""

    storage: str
    store_id: str
    restored_from: str
    taken_at: float


def take(url: str, to: Path, kinds: Sequence[PartKind], *, now_s: float) -> Manifest:
    """Copy the store at `url` into the folder `to`, which must not be there yet; `kinds` are those of its parts.

    StoreError where there is no store, where it cannot be locked for a moment, or where `to` is there.
    """
    if to.exists():
        raise StoreError(f"a backup needs a new folder, {to} exists already")
    from actors.storage.reader import StoreReader  # noqa: PLC0415  the reader is a store itself

    with contextlib.closing(StoreReader(url)) as store:
        store_id = store.store_id
    unfinished = to.with_name(f"{to.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    sqlite.make_folder(unfinished)
    try:
        folder = folder_of(url)
        names = list(_copy_files(folder, unfinished) if folder is not None else _copy_tables(url, unfinished, kinds))
        manifest: Manifest = {
            "format": _FORMAT,
            "kind": "sqlite" if folder is not None else "postgresql",
            "store_id": store_id,
            "schema": SCHEMA_VERSION,
            "taken_at": now_s,
            "files": {name: _described(unfinished / name) for name in names},
        }
        (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(to)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return manifest


def restore(source: Path, url: str, kinds: Sequence[PartKind]) -> Restored:
    """Make the store at `url`, where none may be, from the backup in the folder `source`.

    StoreError where the backup is damaged or of the other kind, or where there is a store already; then nothing is changed.
    """
    manifest = _checked(source)
    if (manifest["kind"] == "sqlite") != is_local(url):
        raise StoreError(f"the backup {source} is of a {manifest['kind']} store, it cannot become {redacted(url)}")
    folder = folder_of(url)
    made = _restore_tables(source, manifest, url, kinds) if folder is None else _restore_files(source, manifest, folder)
    return {
        "storage": redacted(url),
        "store_id": made,
        "restored_from": manifest["store_id"],
        "taken_at": manifest["taken_at"],
    }


# --- SQLite


def _copy_files(folder: Path, to: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        snapshots = _snapshots(sorted(folder.glob("*.db")), stack)
        for file, source in snapshots.items():
            copy = to / file.name
            sqlite.make_file(copy)
            with contextlib.closing(sqlite.connected(copy, "mode=rw")) as target:
                source.backup(target)
                problem = target.execute("PRAGMA quick_check").fetchone()[0]
            if problem != "ok":
                raise StoreError(f"{file} is damaged, so its copy would be useless: {problem}")
            yield file.name


def _snapshots(files: Iterable[Path], stack: contextlib.ExitStack) -> dict[Path, sqlite3.Connection]:
    """Return a connection to each file that sees it as it was at one moment, the same for all."""
    opened = {file: stack.enter_context(contextlib.closing(sqlite.connected(file, "mode=ro"))) for file in files}
    with contextlib.ExitStack() as locks:
        _lock(opened, locks)
        for source in opened.values():
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a snapshot begins with the first look
    return opened


def _lock(files: Iterable[Path], locks: contextlib.ExitStack) -> None:
    """Keep every writer of the files waiting until `locks` is closed."""
    for attempt in range(_TRIES):
        with contextlib.ExitStack() as held:
            try:
                for file in files:
                    lock = held.enter_context(contextlib.closing(sqlite.connected(file, "mode=rw")))
                    lock.execute(f"PRAGMA busy_timeout={int(_LOCK_S * 1000)}")
                    lock.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if attempt == _TRIES - 1:
                    raise StoreError(f"the store cannot be locked for a moment: {file.name}: {error}") from None
            else:
                locks.push(held.pop_all())
                return
        time.sleep(_PAUSE_S)


def _restore_files(source: Path, manifest: Manifest, folder: Path) -> str:
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"restore needs a URL without a store, but {folder} is not empty: move it elsewhere first")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    sqlite.make_folder(unfinished)
    for name in manifest["files"]:
        sqlite.make_file(unfinished / name)
        shutil.copyfile(source / name, unfinished / name)
    with contextlib.closing(Store(f"sqlite:///{unfinished}", makes=False)) as store, store.system.write() as connection:
        store_id = _begin_timeline(connection, manifest)
    for leftover in ("-wal", "-shm"):
        (unfinished / f"system.db{leftover}").unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)
    return store_id


# --- PostgreSQL


def _copy_tables(url: str, to: Path, kinds: Sequence[PartKind]) -> Iterator[str]:
    engine = postgresql(url, reads_only=True)
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
            there = set(inspect(connection).get_table_names())
            for table in _tables(kinds):
                if table.name not in there:
                    continue
                file = to / f"{table.name}.copy"
                sqlite.make_file(file)
                with (
                    file.open("wb") as out,
                    _cursor(connection) as cursor,
                    cursor.copy(f"COPY {_spelled(table)} TO STDOUT (FORMAT BINARY)") as pieces,
                ):
                    for piece in pieces:
                        out.write(piece)
                yield file.name
            sqlite.make_file(to / _SEQUENCES)
            (to / _SEQUENCES).write_text(json.dumps(_last_numbers(connection, there, kinds)), encoding="utf-8")
            yield _SEQUENCES
    finally:
        engine.dispose()


def _restore_tables(source: Path, manifest: Manifest, url: str, kinds: Sequence[PartKind]) -> str:
    if manifest["schema"] != SCHEMA_VERSION:
        raise SchemaError(
            f"the backup has schema {manifest['schema']}, this build {SCHEMA_VERSION}: restore it with the build that took it, "
            "then upgrade"
        )
    engine = postgresql(url)
    try:
        with engine.connect() as connection:
            if set(inspect(connection).get_table_names()) & {table.name for table in _tables(kinds)}:
                raise StoreError(f"restore needs a URL without a store, but {redacted(url)} holds one")
        with engine.begin() as connection:
            for kind in kinds:
                kind.metadata.create_all(connection, checkfirst=True)
            is_known = _SEQUENCES in manifest["files"]  # a backup of an earlier build has none
            last = json.loads((source / _SEQUENCES).read_text(encoding="utf-8")) if is_known else {}
            for table in _tables(kinds):
                file = source / f"{table.name}.copy"
                if file.name in manifest["files"]:
                    _fill(connection, table, file, last)
            return _begin_timeline(connection, manifest)
    finally:
        engine.dispose()


def _last_numbers(connection: Connection, there: Iterable[str], kinds: Sequence[PartKind]) -> dict[str, int]:
    """Return the last number that each column was given which numbers its rows, also where the newest rows were pruned.

    The numbers that readers have seen last are above those of the rows that are left: a number may never be given again.
    """
    found = {}
    for table in _tables(kinds):
        for name, sequence in _sequences(connection, table) if table.name in there else ():
            given = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608  the server's name
            found[f"{table.name}.{name}"] = int(connection.execute(given).scalar_one())
    return found


def _sequences(connection: Connection, table: Table) -> Iterator[tuple[str, str]]:
    """Return each column of a table that numbers its rows, with the name of its sequence."""
    for column in table.primary_key.columns:
        asked = text("SELECT pg_get_serial_sequence(:of, :name)")
        sequence = connection.execute(asked, {"of": table.name, "name": column.name}).scalar()
        if sequence is not None:
            yield column.name, sequence


def _fill(connection: Connection, table: Table, file: Path, last: Mapping[str, int]) -> None:
    with (
        file.open("rb") as rows,
        _cursor(connection) as cursor,
        cursor.copy(f"COPY {_spelled(table)} FROM STDIN (FORMAT BINARY)") as into,
    ):
        while piece := rows.read(_PIECE):
            into.write(piece)
    for name, sequence in _sequences(connection, table):
        highest = connection.execute(text(f"SELECT max({name}) FROM {table.name}")).scalar() or 0  # noqa: S608  names of our own
        given = max(int(highest), last.get(f"{table.name}.{name}", 0))
        connection.execute(text("SELECT setval(:of, :to, :used)"), {"of": sequence, "to": max(given, 1), "used": given > 0})


def _tables(kinds: Sequence[PartKind]) -> list[Table]:
    found = {table.name: table for kind in kinds for table in kind.metadata.sorted_tables}
    return list(found.values())


def _spelled(table: Table) -> str:
    return f"{table.name} ({', '.join(column.name for column in table.columns)})"


@contextlib.contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        yield cursor


# --- both


def _begin_timeline(connection: Connection, manifest: Manifest) -> str:
    """Put an id of its own into the store; nobody holds it yet."""
    store_id = uuid.uuid4().hex[:8]
    identity, notes = schema.identity, schema.notes
    if connection.execute(select(identity.c.store_id)).scalar() != manifest["store_id"]:
        raise StoreError(f"the backup's manifest is of store {manifest['store_id']}, but its files are of another")
    connection.execute(identity.update().values(store_id=store_id))
    connection.execute(notes.delete().where(notes.c.name == "holder"))
    origin = json.dumps({"restored_from": manifest["store_id"], "taken_at": manifest["taken_at"]}).encode()
    connection.execute(notes.insert().values(name=f"timeline:{store_id}", value=origin))
    return store_id


def _checked(source: Path) -> Manifest:
    try:
        manifest: Manifest = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{source} is not a complete backup: {_MANIFEST} cannot be read") from None
    if not known:
        raise StoreError(f"the backup {source} has format {manifest['format']}, this build reads {_FORMAT}: use a newer build")
    for name, described in manifest["files"].items():
        if Path(name).name != name or not (source / name).is_file():
            raise StoreError(f"the backup {source} is damaged: {name} is not there")
        if _described(source / name) != described:
            raise StoreError(f"the backup {source} is damaged: {name} differs from what was written")
    return manifest


def _described(file: Path) -> FileShown:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
        os.fsync(content.fileno())
    return {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}

"""Opens the files of a SQLite store: one engine for each, by any path, readable and writable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from actors.storage import texts

# Longer than any commit of ours, shorter than a client's patience.
LOCK_WAIT_S: Final = 5.0
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
# What a checkpoint leaves of the log of changes; without a limit the file keeps the largest size that it ever had.
_LOG_BYTES: Final = 16 * 2**20


def make_file(file: Path) -> None:
    """Make an empty file for the owner alone, if there is none; SQLite takes it for an empty database."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))


def make_folder(folder: Path) -> None:
    """Make the folder and its parents; the folder itself is for the owner alone, if it is new."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def writable(file: Path) -> Engine:
    """Return an engine for a file that is there: it never makes one in the place of one that was deleted."""
    engine = _engine(lambda: connected(file, "mode=rw"))

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts for a file that is still empty
        _to_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged commit survives a power cut
        cursor.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads_only = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def read_only(file: Path) -> Engine:
    """Return an engine that changes nothing, also for a folder in which nothing can be written."""

    def connect() -> sqlite3.Connection:
        try:
            return connected(file, "mode=ro")
        except sqlite3.OperationalError:
            # A folder in which nothing may be written: without a log of changes, no process has the file open.
            if file.with_name(f"{file.name}-wal").exists():
                raise
            return connected(file, "mode=ro&immutable=1")

    engine = _engine(connect)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def connected(file: Path, how: str) -> sqlite3.Connection:
    """Return a connection to a file by any path; `how` is the query of SQLite's URI."""
    connection = sqlite3.connect(
        f"file:{quote(str(file.absolute()))}?{how}",
        uri=True,
        check_same_thread=False,
        timeout=LOCK_WAIT_S,
        isolation_level=None,  # we say BEGIN ourselves: the driver's own begins too late to hold the fence
    )
    try:
        connection.execute("PRAGMA schema_version")  # opens the file
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def keep_copy(file: Path, folder: Path) -> None:
    """Copy a database to `folder`, whole whatever is written meanwhile, unless there is a copy already."""
    copy = folder / file.name
    if copy.exists():
        return
    make_folder(folder)
    unfinished = folder / f"{file.name}.new"
    unfinished.unlink(missing_ok=True)
    make_file(unfinished)
    with (
        contextlib.closing(connected(file, "mode=ro")) as source,
        contextlib.closing(connected(unfinished, "mode=rw")) as to,
    ):
        source.backup(to)
    unfinished.rename(copy)


def _engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    texts.clean_all(engine)
    return engine


def _to_wal(cursor: Any) -> None:
    """Switch to WAL, which a file keeps. Two processes that do so at once get "locked" without the driver's time-out."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return

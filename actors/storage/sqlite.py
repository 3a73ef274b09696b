"""Opens the files of a SQLite store: one engine for each, by any path, readable and writable by their owner alone."""

from __future__ import annotations

import contextlib
import logging
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

logger = logging.getLogger(__name__)

# Longer than any commit of ours, shorter than a client's patience.
LOCK_WAIT_S: Final = 5.0
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
# What a checkpoint leaves of the log of changes; without a limit the file keeps the largest size that it ever had.
_LOG_BYTES: Final = 16 * 2**20
_INCREMENTAL: Final = 2  # of `PRAGMA auto_vacuum`
# Of pages that are free, one eighth of the file stays for what is written next: a log that is trimmed and grows again at the
# same pace moves no page twice.
_SPARE_SHARE: Final = 8
# A step ends at either limit. To take a page out of a long list of free ones costs the more, the longer the list is.
_STEP_PAGES: Final = 2000
_STEP_S: Final = 0.1


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
    engine = _engine(lambda: reading(file))

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def reading(file: Path) -> sqlite3.Connection:
    """Return a connection that changes nothing, also to a file in a folder in which nothing can be written."""
    try:
        return connected(file, "mode=ro")
    except sqlite3.OperationalError:
        # A folder in which nothing may be written: without a log of changes, no process has the file open.
        if file.with_name(f"{file.name}-wal").exists():
            raise
        return connected(file, "mode=ro&immutable=1")


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


def let_shrink(file: Path) -> None:
    """Rewrite a file of a build that did not let its files shrink, so that it does; for when no process uses it.

    It takes as much of the disk again for as long as it runs. Where that is not there, the file stays as long as it is.
    """
    try:
        with contextlib.closing(connected(file, "mode=rw")) as connection:
            if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        logger.warning("%s cannot be rewritten and will not shrink: %s", file, error)


def give_back(engine: Engine, file: Path) -> bool:
    """Hand free pages back to the file system, in one step of about a tenth of a second; True where there are more.

    A log of changes that is longer than its limit is cut, if no reader needs it. Whatever is in use by others is left for the
    next time: this waits for nobody. A file of a build that did not let its files shrink stays as long as it is.

    Example:
        while give_back(engine, file):
            pass
    """
    with contextlib.closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA busy_timeout=0")
            given, more = _shrunk(cursor)
            if given or _size(file.with_name(f"{file.name}-wal")) > _LOG_BYTES:
                # Passive, which waits for nobody and makes nobody wait; where that did all, nothing is left to wait for.
                _, pages, copied = cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages == copied and _size(file.with_name(f"{file.name}-wal")) > _LOG_BYTES:
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:  # locked, or the disk is full: the next commit says so
            logger.debug("%s: no pages are freed now: %s", file, error)
            return False
        else:
            return more
        finally:
            connection.rollback()
            cursor.execute(f"PRAGMA busy_timeout={int(LOCK_WAIT_S * 1000)}")
            cursor.close()


def _shrunk(cursor: Any) -> tuple[int, bool]:
    """Take free pages out of the file, one commit; return how many, and whether more are free than are spared."""
    if cursor.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL or (first := _to_give(cursor)) <= 0:
        return 0, False
    until = time.monotonic() + _STEP_S
    given = 0
    cursor.execute("BEGIN IMMEDIATE")
    while given < min(first, _STEP_PAGES) and time.monotonic() < until:
        # One by one: of several pages, the driver has SQLite take out the first only (rows without columns are not fetched).
        cursor.execute("PRAGMA incremental_vacuum(1)")
        given += 1
    cursor.execute("COMMIT")
    return given, 0 < _to_give(cursor) < first  # where nothing goes, it is no use to go on


def _to_give(cursor: Any) -> int:
    """Return how many pages can go until those that are free are the spared share of the file."""
    free = cursor.execute("PRAGMA freelist_count").fetchone()[0]
    pages = cursor.execute("PRAGMA page_count").fetchone()[0]
    return int((free * _SPARE_SHARE - pages) // (_SPARE_SHARE - 1))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


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

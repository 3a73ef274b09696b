"""One cursor over the whole store: a string that changes with every commit. It keeps open pages live.

SQLite counts the commits of other connections by itself (`PRAGMA data_version`), which costs some microseconds a file.
PostgreSQL is asked for its snapshot, which changes with every transaction that ends, also while an older one is open.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from sqlalchemy import text

from actors.storage import Store, folder_of, sqlite


class Cursor:
    """Asks each file of a store whether it has changed, by a connection that stays open: the count is one of a connection.

    The connections are the driver's own: one of the store's begins a transaction with its first statement, in which nothing
    ever changes, and for as long as that is open SQLite's log of changes cannot be cut.
    """

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._folder = folder_of(url)
        self._open: dict[Path, tuple[int, sqlite3.Connection]] = {}  # with the file's inode: it may be replaced
        self._lock = threading.Lock()

    def read(self) -> str:
        """Return the cursor as it stands now."""
        with self._lock:
            if self._folder is None:
                with self._store.system.read() as connection:
                    return str(connection.execute(text("SELECT pg_current_snapshot()")).scalar())
            files = sorted(self._folder.glob("*.db"))
            for gone in self._open.keys() - files:
                self._open.pop(gone)[1].close()
            return ".".join(self._version(file) for file in files)

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()

    def _version(self, file: Path) -> str:
        inode = file.stat().st_ino
        kept = self._open.get(file)
        if kept is None or kept[0] != inode:
            if kept is not None:
                kept[1].close()
            kept = self._open[file] = inode, sqlite.reading(file)
        with contextlib.closing(kept[1].execute("PRAGMA data_version")) as asked:
            return f"{inode}:{asked.fetchone()[0]}"

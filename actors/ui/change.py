"""One cursor over the whole store: a string that changes with every commit. It keeps open pages live.

SQLite counts the commits of other connections by itself (`PRAGMA data_version`), which costs some microseconds a file.
On PostgreSQL it is the largest transaction that has ended.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection, text

from actors.detection.stored import detector_parts
from actors.retraining.tables import DISPATCHER
from actors.storage import Part, Store
from actors.storage.schema import SYSTEM
from actors.tuning.tables import TUNER


class Cursor:
    """Asks each file of a store whether it has changed, by a connection that stays open: the count is one of a connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def read(self) -> str:
        """Return the cursor as it stands now."""
        with self._lock:
            parts = [
                self._store.part(SYSTEM),
                self._store.part(DISPATCHER),
                self._store.part(TUNER),
                *detector_parts(self._store),
            ]
            return ".".join(self._version(part) for part in {part.name: part for part in parts}.values())

    def _version(self, part: Part) -> str:
        engine = part.engine
        if engine.dialect.name != "sqlite":
            with part.read() as connection:
                return str(connection.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())")).scalar())
        key = f"{part.name}@{id(engine)}"
        if key not in self._open:
            self._open[key] = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        return str(self._open[key].execute(text("PRAGMA data_version")).scalar())

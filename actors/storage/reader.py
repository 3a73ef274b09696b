"""Opens a store for reading only: nothing is created, nothing is migrated, no writer waits.

    with contextlib.closing(StoreReader("sqlite:///./visutility-data")) as store:
        load_stored(store)

A part that no process has written yet is read as an empty one.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from actors.checks import redacted
from actors.storage import schema, texts
from actors.storage.schema import PartKind, SchemaError
from actors.storage.store import Part, Store, StoreError, checked, is_local, postgresql

_LOCK_WAIT_S = 5.0


class _ReadPart(Part):
    @contextmanager
    def write(self) -> Iterator[Connection]:
        raise StoreError(f"{self.name} was opened for reading")
        yield  # the signature of a generator


class StoreReader(Store):
    """All parts of one system, for reading. Cheap to make, safe to use from several threads, not to be pickled."""

    def __init__(self, url: str) -> None:
        """Open `url`. StoreError if there is no store, SchemaError if this build cannot read it."""
        self.url = checked(url)
        self._shown = redacted(url)
        self._parts: dict[str, Part] = {}
        self._shared = None if is_local(url) else postgresql(self.url, reads_only=True)
        self.store_id = self._identity()

    def part(self, kind: PartKind, slot: int | None = None) -> Part:
        """Return the part of `kind`, an empty one if no process has written it yet."""
        name = kind.name if slot is None else f"{kind.name}-{slot}"
        if name not in self._parts:
            try:
                self._parts[name] = self._opened(name, kind)
            except DBAPIError as error:
                raise StoreError(f"storage {self._shown!r}: {name} cannot be read: {error.orig}") from error
        return self._parts[name]

    def _opened(self, name: str, kind: PartKind) -> Part:
        file = Path(self.url.database or "") / f"{name}.db"
        if self._shared is None and not file.is_file():
            return _ReadPart(name, kind, _empty(kind))
        part = _ReadPart(name, kind, self._shared or _read_only(file))
        with part.read() as connection:
            found = schema.version_of(connection, kind)
        if found is None:
            return _ReadPart(name, kind, _empty(kind))
        if found != schema.SCHEMA_VERSION:
            way_out = "`visutility start` brings it forward" if found < schema.SCHEMA_VERSION else "use a newer build"
            raise SchemaError(
                f"storage {self._shown!r}: schema of {kind.name!r} must be {schema.SCHEMA_VERSION} for this build to read it, "
                f"got {found}: {way_out}"
            )
        return part

    def _identity(self) -> str:
        with self.part(schema.SYSTEM).read() as connection:
            known = connection.execute(select(schema.identity.c.store_id)).scalar()
        if known is None:
            raise StoreError(f"storage must be the store of a system, there is none at {self._shown}")
        return str(known)


def _empty(kind: PartKind) -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        schema.prepare(connection, kind)
    return engine


def _read_only(file: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        try:
            return _connected(file, "mode=ro")
        except sqlite3.OperationalError:
            # A folder in which nothing may be written: without a log of changes, no process has the file open.
            if file.with_name(f"{file.name}-wal").exists():
                raise
            return _connected(file, "mode=ro&immutable=1")

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    texts.clean_all(engine)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _connected(file: Path, how: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(file.absolute()))}?{how}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=_LOCK_WAIT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA schema_version")  # opens the file
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection

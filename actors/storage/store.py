"""Opens the store of a system: its parts, their engines, their transactions.

A part is what one process writes. On SQLite each part is a file of its own in one folder, so that no two processes wait for
one lock; on PostgreSQL all parts are tables of one database.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from actors.checks import redacted
from actors.storage import schema, texts
from actors.storage.schema import PartKind

# What a database raises that is full, read-only, locked or gone; the caller may try again later. PostgreSQL raises
# InternalError for a database that is read-only (a standby), and for a session that it ended because its process stopped
# inside a transaction.
UNAVAILABLE: Final = (OperationalError, InternalError, InterfaceError, PoolTimeoutError)

# Longer than any commit of ours, shorter than a client's patience.
_LOCK_WAIT_S: Final = 5.0
# A process that is frozen inside a transaction holds the fence's row; PostgreSQL ends it after this time (measured: a successor
# gets through in 3.0 s). On SQLite the watchdog kills the holder, which frees the file's lock.
_IDLE_IN_TRANSACTION_MS: Final = 3000
_KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}


class StoreError(ValueError):
    """The storage URL cannot be opened; the message names the URL (without its password) and the rule."""


class Part:
    """The tables that one process writes, in a database of its own (SQLite) or shared (PostgreSQL)."""

    def __init__(self, name: str, kind: PartKind, engine: Engine) -> None:
        self.name = name
        self.kind = kind
        self.engine = engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write; commits at the end, rolls back on an exception."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a snapshot for reading; on SQLite it neither waits for a writer nor makes one wait."""
        with self.engine.connect().execution_options(reads_only=True) as connection, connection.begin():
            yield connection


class Store:
    """All parts of one system, by URL. Cheap to make, safe to use from several threads, not to be pickled."""

    def __init__(self, url: str) -> None:
        """Open `url`, `sqlite:///FOLDER` or `postgresql://...`; create the folder and the tables. StoreError, SchemaError."""
        self.url = checked(url)
        self._parts: dict[str, Part] = {}
        self._shared = None if is_local(url) else postgresql(self.url)
        if self._shared is None:
            folder = Path(self.url.database or "")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"storage must be a folder that can be made, got {redacted(url)!r}: {error}") from None
        try:
            self.store_id = self._identity()
        except UNAVAILABLE as error:
            raise StoreError(f"storage {redacted(url)!r} cannot be opened: {getattr(error, 'orig', None) or error}") from error

    def part(self, kind: PartKind, slot: int | None = None) -> Part:
        """Return the part of `kind`; its tables exist afterwards. `slot` is that of the process, if several have a part each.

        Example:
            store.part(schema.SYSTEM)
            store.part(DETECTOR, slot=0)
        """
        name = kind.name if slot is None else f"{kind.name}-{slot}"
        if name not in self._parts:
            part = Part(name, kind, self._shared or _sqlite(Path(self.url.database or "") / f"{name}.db"))
            if not self._is_ready(part):
                with part.write() as connection:
                    if connection.dialect.name == "postgresql":
                        # Two processes that create the same tables at once would collide; the lock ends with the transaction.
                        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('visutility'))"))
                    schema.prepare(connection, kind)
            self._parts[name] = part
        return self._parts[name]

    def slots(self, kind: PartKind) -> list[int]:
        """Return the slots of `kind` that have been written so far; on PostgreSQL all of them share the tables of slot 0."""
        if self._shared is not None:
            return [0]
        names = (path.stem.removeprefix(f"{kind.name}-") for path in Path(self.url.database or "").glob(f"{kind.name}-*.db"))
        return sorted(int(name) for name in names if name.isdecimal())

    def close(self) -> None:
        """Close every connection."""
        for part in self._parts.values():
            part.engine.dispose()
        self._parts.clear()

    def _is_ready(self, part: Part) -> bool:
        """Look before writing: a reader (a status) must not wait for a writer, least of all for a frozen one."""
        with part.read() as connection:
            return schema.version_of(connection, part.kind) == schema.SCHEMA_VERSION

    def _identity(self) -> str:
        with self.part(schema.SYSTEM).read() as connection:
            known = connection.execute(select(schema.identity.c.store_id)).scalar()
        if known is not None:
            return str(known)
        with self.part(schema.SYSTEM).write() as connection:
            connection.execute(
                schema.insert_or_keep(connection, schema.identity).values(
                    one=1, store_id=uuid.uuid4().hex[:8], created_at=time.time()
                )
            )
            return str(connection.execute(select(schema.identity.c.store_id)).scalar_one())


def is_local(url: str) -> bool:
    """Return whether the store is a folder on one node."""
    return url.startswith("sqlite")


def checked(url: str) -> URL:
    """Return `url`, read; StoreError names what it must be."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            "storage must be a URL like 'sqlite:///./visutility-data' or 'postgresql://...', got another text"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise StoreError(f"storage must name a folder, got {redacted(url)!r}")
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"storage must be a sqlite or postgresql URL, got {redacted(url)!r}")


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": _LOCK_WAIT_S})
    texts.clean_all(engine)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own begins too late to hold the fence
        cursor = connection.cursor()
        _to_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged commit survives a power cut
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads_only = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def _to_wal(cursor: Any) -> None:
    """Switch to WAL, which a file keeps. Two processes that do so at once get "locked" without the driver's time-out."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def postgresql(url: URL, *, reads_only: bool = False) -> Engine:
    """Return the engine of a PostgreSQL store; StoreError if the driver is missing."""
    settings = f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS} -c lock_timeout={int(_LOCK_WAIT_S * 1000)}"
    if reads_only:
        settings += " -c default_transaction_read_only=on"
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=4,
            pool_timeout=_LOCK_WAIT_S,
            connect_args={"options": settings, "connect_timeout": 5, **_KEEPALIVES},
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(f"storage on PostgreSQL needs: pip install 'visutility[postgres]' ({error})") from None
    texts.clean_all(engine)
    return engine

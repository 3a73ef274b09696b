"""Opens the store of a system: its parts, their engines, their transactions.

One process writes each part. On SQLite each part is a separate file in one folder, so processes never wait for a common lock;
on PostgreSQL all parts are tables of one database.

Opening creates a missing store but never migrates one: `migrate` does that, for the process that starts the system.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, InternalError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from actors.checks import redacted
from actors.storage import schema, sqlite, texts
from actors.storage.schema import SCHEMA_VERSION, PartKind, SchemaError

LOCK_WAIT_S: Final = sqlite.LOCK_WAIT_S
# A process that is frozen inside a transaction holds the fence's row; PostgreSQL ends it after this time (measured: a successor
# gets through in 3.0 s). On SQLite the watchdog kills the holder, which frees the file's lock.
_IDLE_IN_TRANSACTION_MS: Final = 3000
_KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
# By this name a transaction notes that it has written what has happened.
HAPPENED: Final = "visutility happened"
_SQLITE: Final = "sqlite:///"
# Under this name the system's notes say that a part was made, so that one that is gone is not taken for one that is new.
_MADE: Final = "part:"


class StoreError(ValueError):
    """The store cannot be opened; the message names the URL (without its password) and the rule."""


class StoreLostError(RuntimeError):
    """A file of the store was deleted, replaced or damaged, or became read-only; the message names it."""


# What a database raises that is full, read-only, locked or gone; the caller may try again later. PostgreSQL raises
# InternalError for a database that is read-only (a standby), and for a session that it ended because its process stopped
# inside a transaction.
UNAVAILABLE: Final = (OperationalError, InternalError, InterfaceError, PoolTimeoutError, StoreLostError)


class Snapshot(threading.local):
    """The connection that reads of several parts of one database share, in the thread that began it; None outside."""

    connection: Connection | None = None


class Part:
    """The tables that one process writes, in a database of its own (SQLite) or shared (PostgreSQL)."""

    def __init__(
        self, name: str, kind: PartKind, engine: Engine, file: Path | None = None, snapshot: Snapshot | None = None
    ) -> None:
        """`snapshot` is shared by the parts of one database."""
        self._snapshot = snapshot
        self.name = name
        self.kind = kind
        self.engine = engine
        self._file = file
        self._inode = None if file is None else _inode(file)
        # Called after a commit that has written happenings, in the thread that committed.
        self.on_happening: Callable[[], object] | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write; commits at the end, rolls back on an exception.

        Raises:
            StoreLostError: The file was deleted or replaced, so that a commit would be lost; or it became read-only: SQLite
                has it open and could still write, but the next process could not.
        """
        with self._whole(), self.engine.begin() as connection:
            connection.info.pop(HAPPENED, None)
            yield connection
            self._look(writes=True)
            happened = connection.info.pop(HAPPENED, False)
        if happened and self.on_happening is not None:
            self.on_happening()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a snapshot for reading; on SQLite it neither waits for a writer nor makes one wait. StoreLostError."""
        self._look()
        held = None if self._snapshot is None else self._snapshot.connection
        if held is not None:
            yield held
            return
        with (
            self._whole(),
            self.engine.connect().execution_options(reads_only=True) as connection,
            connection.begin(),
        ):
            yield connection

    def check(self) -> None:
        """Raise StoreLostError where the part's file was deleted, replaced or is read-only."""
        self._look(writes=True)
        if self._file is not None and not os.access(self._file.parent, os.W_OK):
            raise StoreLostError(f"{self._file.parent} is read-only")

    def give_back(self) -> bool:
        """Return freed pages to the file system, in one short step; True if there are more.

        For after rows were deleted; it waits for nobody. PostgreSQL does so by itself (autovacuum): False.

        Example:
            while part.give_back():
                pass
        """
        self._look()
        return self._file is not None and sqlite.give_back(self.engine, self._file)

    def _look(self, *, writes: bool = False) -> None:
        if self._file is None:
            return
        found = _inode(self._file)
        if found != self._inode:
            happened = "was deleted" if found is None else "was replaced by another file"
            raise StoreLostError(f"{self._file} {happened} while the system runs: stop the system, then start it")
        if writes and not os.access(self._file, os.W_OK):
            raise StoreLostError(f"{self._file} is read-only")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Name the file where SQLite finds that its bytes are no database (any more)."""
        try:
            yield
        except DatabaseError as error:
            # SQLite reports damage with this class itself; a lock, a full disk or a caller's mistake has a subclass.
            if self._file is None or type(error) is not DatabaseError:
                raise
            raise StoreLostError(
                f"{self._file} is damaged ({error.orig}): replace it by the file of a copy while no system runs, "
                "or create a new store from a backup with `visutility restore`"
            ) from error


class Store:
    """All parts of one system, by URL. Cheap to make, safe to use from several threads, not to be pickled."""

    def __init__(self, url: str, *, makes: bool = True) -> None:
        """Open `url`: `sqlite:///FOLDER` or `postgresql://...`.

        Args:
            url: Where the store is.
            makes: Whether a store is made where there is none. An actor makes none: the one it had was deleted.

        Raises:
            StoreError: It cannot be opened, or is not there.
            SchemaError: Another build wrote it, and this one cannot use it as it is.
        """
        self._begin(url)
        try:
            if self._folder is not None and makes:
                sqlite.make_folder(self._folder)
            elif self._folder is not None and not (self._folder / "system.db").is_file():
                raise StoreError(f"storage must be the store of a system, there is none (any more) at {self._folder}")
            # The system's part as it is: the one who starts reads who holds the store before it is brought forward.
            with self._closed_where_it_fails():
                self.system = self._opened(url)
                self.store_id = self._identity()
        except OSError as error:
            raise StoreError(f"storage must be a folder that can be created, got {redacted(url)!r}: {error}") from None
        except (*UNAVAILABLE, DatabaseError) as error:
            problem = getattr(error, "orig", None) or error
            raise StoreError(f"storage {redacted(url)!r} cannot be opened: {problem}") from error

    def _begin(self, url: str, *, reads_only: bool = False) -> None:
        self.url = url
        self.is_new = False
        self._parts: dict[str, Part] = {}
        self._engines: dict[str, Engine] = {}  # of the files that were opened, also of those that this build cannot use
        self._folder = folder_of(url)
        self._snapshot = Snapshot()
        self._shared = None if self._folder is not None else postgresql(url, reads_only=reads_only)

    @contextmanager
    def _closed_where_it_fails(self) -> Iterator[None]:
        """Leave no connection open in a constructor that raises: nobody holds the store who could close it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def part(self, kind: PartKind, slot: int | None = None) -> Part:
        """Return the part of `kind`; its tables exist afterwards. `slot` is that of the process, if several have a part each.

        SchemaError: the part has another version; `migrate` upgrades an older one.

        Example:
            store.part(schema.SYSTEM)
            store.part(DETECTOR, slot=0)
        """
        name = kind.name if slot is None else f"{kind.name}-{slot}"
        if name not in self._parts:
            part = self._raw(name, kind)
            found = self._version(part)
            if found is None:
                self._make(part)
            elif found != SCHEMA_VERSION:
                raise SchemaError(schema.other_version(f"storage {redacted(self.url)}: {name}", found))
            self._parts[name] = part
        return self._parts[name]

    def slots(self, kind: PartKind) -> list[int]:
        """Return the slots of `kind` that have been written so far; on PostgreSQL all of them share the tables of slot 0."""
        if self._folder is None:
            return [0]
        names = (path.stem.removeprefix(f"{kind.name}-") for path in self._folder.glob(f"{kind.name}-*.db"))
        return sorted(int(name) for name in names if name.isdecimal())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let this thread's reads of all parts of a database be one transaction; on SQLite each part has its own all the same.

        Otherwise a reader of all parts every few seconds would cause most of the load of an idle database.

        Example:
            with store.at_once():
                status.read(store)
        """
        if self._shared is None or self._snapshot.connection is not None:
            yield
            return
        with self.system.read() as connection:
            self._snapshot.connection = connection
            try:
                yield
            finally:
                self._snapshot.connection = None

    def check(self) -> None:
        """Raise StoreLostError where a file of the store is gone, is another, or is read-only."""
        for part in list(self._parts.values()):
            part.check()
        if self._folder is not None:
            missing = [name for name in self._made() if not (self._folder / f"{name}.db").exists()]
            if missing:
                raise StoreLostError(f"{self._folder / missing[0]}.db was deleted")

    def problem(self) -> str | None:
        """Say which file that this process uses is gone, is another, or is read-only; None where all is well.

        A few microseconds a file: it reads nothing, and waits for nobody.
        """
        try:
            for part in list(self._parts.values()):
                part.check()
        except StoreLostError as error:
            return str(error)
        return None

    def migrate(self, kinds: Sequence[PartKind]) -> list[str]:
        """Migrate every part of `kinds` that an older build wrote, and return the names of the migrated ones.

        Only for the one who starts the system, once no other uses the store. On SQLite a copy of each file is kept first, and a
        file that could not shrink can afterwards; the copies are in a folder of the store named after the older version.

        SchemaError for a part that is newer than this build, StoreError for one that cannot be read.
        """
        try:
            return self._migrated(kinds)
        except StoreLostError as error:
            raise StoreError(f"storage {redacted(self.url)!r} cannot be used: {error}") from error

    def close(self) -> None:
        """Close every connection."""
        for engine in (*self._engines.values(), *([] if self._shared is None else [self._shared])):
            engine.dispose()
        self._parts.clear()

    def _migrated(self, kinds: Sequence[PartKind]) -> list[str]:
        migrated = []
        for kind in (schema.SYSTEM, *kinds):
            for name in self._names(kind):
                part = self._raw(name, kind)
                found = self._version(part)
                if found is None or found == SCHEMA_VERSION:
                    continue
                if found < SCHEMA_VERSION and self._folder is not None:
                    sqlite.keep_copy(self._folder / f"{name}.db", self._folder / f"before-schema-{SCHEMA_VERSION}")
                with part.write() as connection:
                    _lock_schema(connection)
                    schema.prepare(connection, kind)
                if self._folder is not None:
                    part.engine.dispose()
                    sqlite.let_shrink(self._folder / f"{name}.db")
                migrated.append(name)
                self._parts[name] = part
        return migrated

    def _names(self, kind: PartKind) -> list[str]:
        if self._folder is None:
            return [kind.name]
        return [path.stem for path in self._folder.glob(f"{kind.name}*.db") if _is_part(path.stem, kind)]

    def _raw(self, name: str, kind: PartKind) -> Part:
        """Return the part as it is, whatever its version; on SQLite its file is there afterwards."""
        if name in self._parts:
            return self._parts[name]
        if self._folder is None:
            assert self._shared is not None
            return Part(name, kind, self._shared, snapshot=self._snapshot)
        file = self._folder / f"{name}.db"
        if not file.exists():
            if name != schema.SYSTEM.name and name in self._made():
                raise StoreError(f"storage {redacted(self.url)}: {file} is missing, and the data in it are lost")
            sqlite.make_file(file)
        return Part(name, kind, self._engine(name, sqlite.writable(file)), file)

    def _engine(self, name: str, engine: Engine) -> Engine:
        """Keep the new engine of a file; the connections of the one before it, whose file may be another by now, are closed."""
        if name in self._engines:
            self._engines[name].dispose()
        self._engines[name] = engine
        return engine

    def _version(self, part: Part) -> int | None:
        # Read before anything is written: a part that is ready makes nobody wait for a writer, least of all for a frozen one.
        with part.read() as connection:
            return schema.version_of(connection, part.kind)

    def _make(self, part: Part) -> None:
        with part.write() as connection:
            _lock_schema(connection)
            schema.prepare(connection, part.kind)
        if self._folder is not None and part.kind is not schema.SYSTEM:
            with self.system.write() as connection:
                row = {"name": f"{_MADE}{part.name}", "value": b""}
                connection.execute(schema.insert_or_keep(connection, schema.notes).values(row))

    def _made(self) -> list[str]:
        with self.system.read() as connection:
            named = select(schema.notes.c.name).where(schema.notes.c.name.startswith(_MADE, autoescape=True))
            return [name.removeprefix(_MADE) for name in connection.execute(named).scalars()]

    def _opened(self, url: str) -> Part:
        """Return the system's part, whatever its version as long as this build knows it; made where there is none."""
        part = self._raw(schema.SYSTEM.name, schema.SYSTEM)
        found = self._version(part)
        if found is None:
            self._make(part)
            self.is_new = True
        elif found > SCHEMA_VERSION:
            raise SchemaError(schema.other_version(f"storage {redacted(url)}: {part.name}", found))
        if found in {None, SCHEMA_VERSION}:
            self._parts[part.name] = part
        return part

    def _identity(self) -> str:
        wanted = select(schema.identity.c.store_id)
        with self.system.read() as connection:
            known = connection.execute(wanted).scalar()
        if known is not None:
            return str(known)
        with self.system.write() as connection:
            row = {"one": 1, "store_id": uuid.uuid4().hex[:8], "created_at": time.time()}
            connection.execute(schema.insert_or_keep(connection, schema.identity).values(row))
            return str(connection.execute(wanted).scalar_one())


def is_local(url: str) -> bool:
    """Return whether the store is a folder on one node."""
    return url.startswith("sqlite")


def folder_of(url: str) -> Path | None:
    """Return the folder of a SQLite store, whatever characters its path has; None for a database elsewhere.

    StoreError for a URL that names neither.

    >>> folder_of("sqlite:////var/lib/what%20is?#this")
    PosixPath('/var/lib/what%20is?#this')
    """
    if not is_local(url):
        checked(url)
        return None
    path = url.removeprefix(_SQLITE)
    if path in {url, "", ":memory:"} or "\0" in path:
        raise StoreError(f"storage must name a folder, got {redacted(url)!r}")
    return Path(path)


def checked(url: str) -> URL:
    """Return the URL of a database server, read; StoreError names what it must be."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            "storage must be a URL like 'sqlite:///./visutility-data' or 'postgresql://...', got something else"
        ) from None
    if parsed.get_backend_name() != "postgresql":
        raise StoreError(f"storage must be a sqlite or postgresql URL, got {redacted(url)!r}")
    return parsed.set(drivername="postgresql+psycopg")


def postgresql(url: str, *, reads_only: bool = False) -> Engine:
    """Return the engine of a PostgreSQL store; StoreError if the driver is missing."""
    settings = f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS} -c lock_timeout={int(LOCK_WAIT_S * 1000)}"
    if reads_only:
        settings += " -c default_transaction_read_only=on"
    try:
        engine = create_engine(
            checked(url),
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=4,
            pool_timeout=LOCK_WAIT_S,
            connect_args={"options": settings, "connect_timeout": 5, **_KEEPALIVES},
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(f"storage on PostgreSQL needs: pip install 'visutility[postgres]' ({error})") from None
    texts.clean_all(engine)
    return engine


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116  in every commit: a third of the time
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_part(name: str, kind: PartKind) -> bool:
    return name == kind.name or name.removeprefix(f"{kind.name}-").isdecimal()


def _lock_schema(connection: Connection) -> None:
    """Let no two processes make the same tables at once on PostgreSQL, where they would collide; until the commit."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('visutility'))"))

"""Opens a store read-only: creates and migrates nothing, and makes no writer wait.

    with contextlib.closing(StoreReader("sqlite:///./visutility-data")) as store:
        load_stored(store)

A part that no process has written yet is read as an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from actors.checks import redacted
from actors.storage import schema, sqlite
from actors.storage.schema import PartKind, SchemaError
from actors.storage.store import Part, Store, StoreError, StoreLostError


class _ReadPart(Part):
    @contextmanager
    def write(self) -> Iterator[Connection]:
        raise StoreError(f"{self.name} was opened for reading")
        yield  # the signature of a generator


class StoreReader(Store):
    """All parts of one system, for reading. Cheap to make, safe to use from several threads, not to be pickled."""

    def __init__(self, url: str) -> None:
        """Open `url`. StoreError if there is no store, SchemaError if this build cannot read it."""
        self._shown = redacted(url)
        self._begin(url, reads_only=True)
        with self._closed_where_it_fails():
            self.system = self.part(schema.SYSTEM)
            self.store_id = self._identity()

    def part(self, kind: PartKind, slot: int | None = None) -> Part:
        """Return the part of `kind`, an empty one if no process has written it yet."""
        name = kind.name if slot is None else f"{kind.name}-{slot}"
        if name not in self._parts:
            try:
                part = self._found(name, kind)
            except DBAPIError as error:
                raise StoreError(f"storage {self._shown!r}: {name} cannot be read: {error.orig}") from error
            except StoreLostError as error:
                raise StoreError(f"storage {self._shown!r}: {name} cannot be read: {error}") from error
            if part is None:
                return _ReadPart(name, kind, _empty(kind))  # not remembered: it may be written yet
            self._parts[name] = part
        return self._parts[name]

    def _found(self, name: str, kind: PartKind) -> Part | None:
        if self._folder is None:
            assert self._shared is not None
            part = _ReadPart(name, kind, self._shared, snapshot=self._snapshot)
        else:
            file = self._folder / f"{name}.db"
            if not file.is_file():
                return None
            part = _ReadPart(name, kind, self._engine(name, sqlite.read_only(file)), file)
        found = self._version(part)
        if found is None:
            return None
        if found != schema.SCHEMA_VERSION:
            raise SchemaError(schema.other_version(f"storage {self._shown!r}: {name}", found))
        return part

    def _identity(self) -> str:
        with self.system.read() as connection:
            known = connection.execute(select(schema.identity.c.store_id)).scalar()
        if known is None:
            raise StoreError(f"storage must be the store of a system, there is none at {self._shown}")
        return str(known)


def _empty(kind: PartKind) -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        schema.prepare(connection, kind)
    return engine

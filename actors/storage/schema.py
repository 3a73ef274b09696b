"""The tables of a part, their version, and the migration of an older store.

Every part records its schema version. An older store is migrated step by step inside one transaction; a newer one is
refused, because this build cannot know what its rows mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateColumn

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

SCHEMA_VERSION = 3

Migration = Callable[[Connection], None]

# SQLite's INTEGER PRIMARY KEY is already 64 bits; elsewhere row numbers of a log need a big integer.
BigInt = Integer().with_variant(BigInteger(), "postgresql")


class SchemaError(RuntimeError):
    """The store's tables are of a version that this build cannot use."""


@dataclass(frozen=True, slots=True)
class PartKind:
    """The kind of a part: its name, its tables, and its migrations.

    Each package declares its own, and adds its tables to `metadata`. The migration from version n to n + 1 has the key n; a
    version without an entry changes nothing here. Tables that are new need no migration, columns do (`add_columns`).

    Example:
        ORDERS = PartKind("dispatcher", migrations={1: add_columns("retrains", Column("promise", Float))})
        retrains = Table("retrains", ORDERS.metadata, ...)
    """

    name: str
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    metadata: MetaData = field(default_factory=MetaData)

    def __post_init__(self) -> None:
        # What every part has: its schema version, and the epochs of its owners.
        Table(
            "schema_versions",
            self.metadata,
            Column("kind", String(40), primary_key=True),
            Column("version", Integer, nullable=False),
        )
        Table(
            "fences",
            self.metadata,
            Column("owner", String(250), primary_key=True),
            Column("epoch", Integer, nullable=False),
        )

    @property
    def versions(self) -> Table:
        """The table of schema versions."""
        return self.metadata.tables["schema_versions"]

    @property
    def fences(self) -> Table:
        """The table of epochs."""
        return self.metadata.tables["fences"]


SYSTEM = PartKind("system")
# One row: who this store is. Its id begins every id that the system makes.
identity = Table(
    "identity",
    SYSTEM.metadata,
    Column("one", Integer, primary_key=True),
    Column("store_id", String(8), nullable=False),
    Column("created_at", Float, nullable=False),
)
placements = Table(
    "placements",
    SYSTEM.metadata,
    Column("model", String(200), primary_key=True),
    Column("process", String(220), nullable=False),
    Column("slot", Integer, nullable=False),
)
settings = Table(
    "settings",
    SYSTEM.metadata,
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("stored_at", Float, nullable=False),
)
# What a process wants to find again and no other table holds, by name.
notes = Table(
    "notes",
    SYSTEM.metadata,
    Column("name", String(250), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)


def insert_or_keep(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an `INSERT` that keeps a row that exists already."""
    return _keeping(connection.dialect.name, table)


def upsert(connection: Connection, table: Table, *updated: str) -> postgresql.Insert | sqlite.Insert:
    """Return an `INSERT` that replaces the columns `updated` if the primary key exists."""
    return _replacing(connection.dialect.name, table, updated)


# Building a statement costs more than running it (1 ms against 0.2 ms for a commit's four), and there are few of them.
@functools.cache
def _keeping(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return _insert(dialect, table).on_conflict_do_nothing()


@functools.cache
def _replacing(dialect: str, table: Table, updated: tuple[str, ...]) -> postgresql.Insert | sqlite.Insert:
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={name: statement.excluded[name] for name in updated},
    )


def add_columns(table: str, *columns: Column[Any]) -> Migration:
    """Return a migration that adds `columns` to a table; each may be NULL or has a `server_default`."""
    Table(table, MetaData(), *columns)  # a column compiles only as part of a table

    def add(connection: Connection) -> None:
        for column in columns:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {definition}"))

    return add


def version_of(connection: Connection, kind: PartKind) -> int | None:
    """Return the version of the part's tables, or None if there are none yet."""
    if not inspect(connection).has_table(kind.versions.name):
        return None
    found = connection.execute(select(kind.versions.c.version).where(kind.versions.c.kind == kind.name)).scalar()
    return None if found is None else int(found)


def other_version(what: str, found: int, version: int = SCHEMA_VERSION) -> str:
    """Return what is to be done about a part of another version than this build's."""
    if found > version:
        return f"{what}: its schema must be at most {version} for this build, got {found}: use a newer build"
    return f"{what}: its schema must be {version} for this build, got {found}: `visutility start` migrates it"


def prepare(connection: Connection, kind: PartKind, *, version: int = SCHEMA_VERSION) -> None:
    """Create the tables of a new part, migrate an older one, refuse a newer one (SchemaError)."""
    found = version_of(connection, kind)
    if found == version:
        return
    if found is None:
        kind.metadata.create_all(connection, checkfirst=True)
        connection.execute(insert_or_keep(connection, kind.versions).values(kind=kind.name, version=version))
        return
    if found > version:
        raise SchemaError(other_version(kind.name, found, version))
    for step in range(found, version):
        if step in kind.migrations:
            kind.migrations[step](connection)
    kind.metadata.create_all(connection, checkfirst=True)
    connection.execute(kind.versions.update().where(kind.versions.c.kind == kind.name).values(version=version))


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415  where it is in use alone: 2 MB of every process

        return insert(table)
    return sqlite.insert(table)

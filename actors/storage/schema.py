"""Which tables a part has, at which version, and how an older store is brought forward.

Every part notes its schema version. A store that is older is migrated step by step inside one transaction; a newer one is
refused, since this build cannot know what its rows mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from sqlalchemy import Column, Connection, Float, Integer, LargeBinary, MetaData, String, Table, Text, inspect, select
from sqlalchemy.dialects import postgresql, sqlite

SCHEMA_VERSION = 1

# A migration from version n to n + 1 stands under n: it gets the connection and the kind of the part.
Migration = Callable[[Connection, str], None]
MIGRATIONS: Mapping[int, Migration] = {}

# SQLite's INTEGER PRIMARY KEY is already 64 bits; elsewhere row numbers of a log need a big integer.
BigInt = Integer().with_variant(postgresql.BIGINT(), "postgresql")


class SchemaError(RuntimeError):
    """The store's tables are of a version that this build cannot use."""


def common_tables(metadata: MetaData) -> None:
    """Add what every part has: its schema version, and the epochs of its owners."""
    Table(
        "schema_versions",
        metadata,
        Column("kind", String(40), primary_key=True),
        Column("version", Integer, nullable=False),
    )
    Table(
        "fences",
        metadata,
        Column("owner", String(250), primary_key=True),
        Column("epoch", Integer, nullable=False),
    )


SYSTEM = MetaData()
common_tables(SYSTEM)
# One row: who this store is. Its id begins every id that the system makes.
identity = Table(
    "identity",
    SYSTEM,
    Column("one", Integer, primary_key=True),
    Column("store_id", String(8), nullable=False),
    Column("created_at", Float, nullable=False),
)
placements = Table(
    "placements",
    SYSTEM,
    Column("model", String(200), primary_key=True),
    Column("process", String(220), nullable=False),
    Column("slot", Integer, nullable=False),
)
settings = Table(
    "settings",
    SYSTEM,
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("stored_at", Float, nullable=False),
)
# What a process wants to find again and no other table holds, by a name of its own.
notes = Table(
    "notes",
    SYSTEM,
    Column("name", String(250), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)


def insert_or_keep(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """`INSERT` that leaves a row standing that is already there."""
    return _keeping(connection.dialect.name, table)


def upsert(connection: Connection, table: Table, *updated: str) -> postgresql.Insert | sqlite.Insert:
    """`INSERT` that replaces the columns `updated` where the primary key is taken."""
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


def is_current(connection: Connection, kind: str, metadata: MetaData, *, version: int = SCHEMA_VERSION) -> bool:
    """Tell whether `prepare` has nothing to do, without writing."""
    versions = metadata.tables["schema_versions"]
    if not inspect(connection).has_table(versions.name):
        return False
    return connection.execute(select(versions.c.version).where(versions.c.kind == kind)).scalar() == version


def prepare(
    connection: Connection,
    kind: str,
    metadata: MetaData,
    *,
    version: int = SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Make the tables of a new part, bring an older one forward, refuse a newer one (SchemaError)."""
    versions = metadata.tables["schema_versions"]
    versions.create(connection, checkfirst=True)
    found = connection.execute(select(versions.c.version).where(versions.c.kind == kind)).scalar()
    if found is None:
        metadata.create_all(connection, checkfirst=True)
        connection.execute(insert_or_keep(connection, versions).values(kind=kind, version=version))
        return
    if found > version:
        raise SchemaError(f"schema of {kind!r} must be at most {version} for this build, got {found}: use a newer build")
    for step in range(found, version):
        migrations[step](connection, kind)
    if found < version:
        connection.execute(versions.update().where(versions.c.kind == kind).values(version=version))


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)

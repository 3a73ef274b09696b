"""Tables of the part `sources`: how far each source has been read, and what is still to be sent of it.

They are here and not in `actors.sources`, because the status of the system reads them too.
"""

from __future__ import annotations

import json
from typing import Final

from sqlalchemy import Column, Connection, Float, Integer, LargeBinary, String, Table, Text, func, select
from typing_extensions import TypedDict

from actors.storage.schema import BigInt, PartKind

SOURCES = PartKind("sources")

sources = Table(
    "sources",
    SOURCES.metadata,
    Column("source", String(200), primary_key=True),
    Column("kind", String(200), nullable=False),
    # What the source said of how far it was read, as JSON; NULL before the first answer.
    Column("place", Text),
    Column("problem", Text),
    Column("failures", Integer, nullable=False),
    Column("read", BigInt, nullable=False),
    Column("refused", BigInt, nullable=False),
    Column("rejected", BigInt, nullable=False),
    Column("last_at", Float),
)
# The stream of one model: under which producer, and which number the next event gets.
source_streams = Table(
    "source_streams",
    SOURCES.metadata,
    Column("source", String(200), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("producer", String(200), nullable=False),
    Column("next_sequence", BigInt, nullable=False),
)
# Packed batches of events, and promises (JSON): in the order in which they are sent.
source_outbox = Table(
    "source_outbox",
    SOURCES.metadata,
    Column("number", BigInt, primary_key=True, autoincrement=True),
    Column("source", String(200), nullable=False, index=True),
    Column("model", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("sequence", BigInt, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)


class SourceShown(TypedDict):
    """What `status` says of a source; counts are of events.

    `refused`: rows that are no events; `rejected`: events that the system did not take; `waiting`: not acknowledged yet.
    `place`: how far it has been read, in the source's own terms and at most 200 characters; null before the first answer.
    """

    kind: str
    state: str  # ok | failing | new
    problem: str | None  # of the last answer; rows may be refused while the others go on
    read: int
    refused: int
    rejected: int
    waiting: int
    last_at: float | None
    place: str | None


_MAX_PLACE: Final = 200


def _shown_place(place: str | None) -> str | None:
    """Return a place for people, without the rows that are known at its newest watermark.

    >>> _shown_place('{"watermark": ["plain", 7], "seen": ["0f3a", "77b2"]}')
    'watermark 7'
    """
    said = None if place is None else json.loads(place)
    if said is None:
        return None
    if isinstance(said, dict):
        watermark = said.get("watermark")
        plain = {**said, "watermark": watermark[-1]} if isinstance(watermark, list) and watermark else said
        text = ", ".join(f"{name} {_plain(value)}" for name, value in plain.items() if name != "seen")
    else:
        text = _plain(said)
    return text if len(text) <= _MAX_PLACE else f"{text[: _MAX_PLACE - 3]}..."


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_sources(connection: Connection) -> dict[str, SourceShown]:
    """Return the state of each source that was ever configured and polled."""
    counted = select(source_outbox.c.source, func.sum(source_outbox.c.rows)).group_by(source_outbox.c.source)
    waiting = {str(name): int(rows) for name, rows in connection.execute(counted)}
    return {
        row.source: {
            "kind": row.kind,
            "state": "failing" if row.failures else "new" if row.last_at is None else "ok",
            "problem": row.problem,
            "read": row.read,
            "refused": row.refused,
            "rejected": row.rejected,
            "waiting": waiting.get(row.source, 0),
            "last_at": row.last_at,
            "place": _shown_place(row.place),
        }
        for row in connection.execute(select(sources).order_by(sources.c.source))
    }

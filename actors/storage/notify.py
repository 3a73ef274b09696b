"""Tables of the part `notify`: how far happenings have been read, what is to be told, and how each receiver does.

They stand here and not in the room, since the status of the system reads them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from sqlalchemy import Column, Connection, Float, Integer, String, Table, Text, func, select

from actors.storage.schema import BigInt, PartKind

NOTIFY = PartKind("notify")

# The last number of each part that has been read.
cursors = Table(
    "notify_cursors",
    NOTIFY.metadata,
    Column("part", String(250), primary_key=True),
    Column("number", BigInt, nullable=False),
)
# One group of happenings as JSON; `waiting` counts those that no delivered message has told.
groups = Table(
    "notify_groups",
    NOTIFY.metadata,
    Column("key", String(32), primary_key=True),
    Column("receiver", String(200), nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("state", Text, nullable=False),
)
receivers = Table(
    "notify_receivers",
    NOTIFY.metadata,
    Column("receiver", String(200), primary_key=True),
    Column("sent", BigInt, nullable=False),
    Column("failed", BigInt, nullable=False),
    Column("lost", BigInt, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
    Column("problem", Text),
    Column("last_at", Float),
)


class ReceiverShown(TypedDict):
    """What `status` says of a receiver; counts are of messages, but for `waiting`: happenings that it has not been told.

    `failed`: attempts, which were tried again; `lost`: refused for good.
    """

    state: str  # ok | failing | new
    problem: str | None
    sent: int
    failed: int
    lost: int
    waiting: int
    retry_at: float | None
    last_at: float | None


def read_receivers(connection: Connection, names: Iterable[str]) -> dict[str, ReceiverShown]:
    """Return how each of these receivers does."""
    counted = select(groups.c.receiver, func.sum(groups.c.waiting)).group_by(groups.c.receiver)
    waiting = {str(name): int(number) for name, number in connection.execute(counted)}
    known = {row.receiver: row for row in connection.execute(select(receivers))}
    found: dict[str, ReceiverShown] = {}
    for name in names:
        row = known.get(name)
        found[name] = {
            "state": "new" if row is None else "failing" if row.failures else "ok",
            "problem": None if row is None else row.problem,
            "sent": 0 if row is None else row.sent,
            "failed": 0 if row is None else row.failed,
            "lost": 0 if row is None else row.lost,
            "waiting": waiting.get(name, 0),
            "retry_at": row.retry_at if row is not None and row.failures else None,
            "last_at": None if row is None else row.last_at,
        }
    return found

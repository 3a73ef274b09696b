"""Reads the happenings of all actors from the parts of a store: for the page, reports and notifications.

    for row in happenings.newest(store, model="fraud", limit=20):
        print(row["at"], row["kind"], row["subject"])

Each actor writes its rows in the commit that makes them true: see `storage.happenings`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from itertools import islice

from sqlalchemy import Table, func, select

from actors.detection import tables as detector_tables
from actors.detection.tables import DETECTOR
from actors.replies import NumberedHappening
from actors.retraining import tables as dispatcher_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import Part, PartKind, Store, StoreError, StoreLostError, happenings, is_local
from actors.storage.schema import SYSTEM


def newest(
    store: Store,
    *,
    model: str | None = None,
    since: float | None = None,
    before: tuple[float, str] | None = None,
    limit: int = 100,
) -> list[NumberedHappening]:
    """Return what happened last, newest first.

    Args:
        store: opened for reading or writing.
        model: only what happened to this one.
        since: only what happened at this time (seconds since the epoch) or later.
        before: the (at, id) of the last row of the page before this one; None: the first page.
        limit: the most rows.
    """
    found = [
        happenings.newest(part, table, model=model, since=since, before=before, limit=limit) for part, table in _sources(store)
    ]
    return list(islice(heapq.merge(*found, key=lambda row: (row["at"], row["id"]), reverse=True), limit))


def after(store: Store, seen: Mapping[str, int], limit: int = 1000) -> list[NumberedHappening]:
    """Return the rows after the last number `seen` of each part, by its name; up to `limit` rows of each.

    Rows of one part are in the order of their numbers, and none appears later with a smaller one. A part that is not in `seen`
    is read from its first row. The file of a detector that cannot be read is left out: the others go on.
    """
    found: list[NumberedHappening] = []
    for kind, slot, table in _places(store):
        try:
            part = store.part(kind, slot)
            found += happenings.after(part, table, seen.get(part.name, 0), limit)
        except (StoreError, StoreLostError):
            if kind is not DETECTOR:
                raise
    return found


def last(store: Store) -> dict[str, int]:
    """Return the number of the newest row of each part, by its name; 0 where there is none: where to go on from now."""
    found = {}
    for part, table in _sources(store):
        with part.read() as connection:
            found[part.name] = connection.execute(select(func.max(table.c.number))).scalar() or 0
    return found


def _sources(store: Store) -> Iterator[tuple[Part, Table]]:
    for kind, slot, table in _places(store):
        yield store.part(kind, slot), table


def _places(store: Store) -> Iterator[tuple[PartKind, int | None, Table]]:
    yield SYSTEM, None, happenings.of_system
    if not is_local(store.url):
        return  # PostgreSQL has one table for all parts
    yield DISPATCHER, None, dispatcher_tables.happened
    for slot in store.slots(DETECTOR):
        yield DETECTOR, slot, detector_tables.happened

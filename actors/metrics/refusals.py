"""Refusals: how many events were refused that no model counts, and the last reason; kept in the store as a note.

A model counts its own rejected events. An event that names no known model (a bad name, one model too many, broken bytes) is
counted here, so that `status` and the metrics show it.
"""

from __future__ import annotations

import json
from typing import Final, TypedDict

from sqlalchemy import select

from actors.replies import Json
from actors.storage import Part
from actors.storage.schema import notes, upsert

_NOTE: Final = "refusals"


class Refused(TypedDict):
    """The refusals in `status`: `last` is None before the first, else model, field, value, rule and `at` (epoch seconds)."""

    events: int
    last: Json | None


def write(part: Part, events: int, last: Json | None) -> None:
    """Add to the note; runs in a thread that may wait for the store."""
    with part.write() as connection:
        found = connection.execute(select(notes.c.value).where(notes.c.name == _NOTE)).scalar()
        before: Refused = {"events": 0, "last": None} if found is None else json.loads(found)
        value = json.dumps({"events": before["events"] + events, "last": last}, allow_nan=True).encode()
        connection.execute(upsert(connection, notes, "value").values(name=_NOTE, value=value))


def read(part: Part) -> Refused:
    """Return what the store knows."""
    with part.read() as connection:
        found = connection.execute(select(notes.c.value).where(notes.c.name == _NOTE)).scalar()
    told: Refused = {"events": 0, "last": None} if found is None else json.loads(found)
    return told

"""Refusals: how many events were refused that no model counts, and the last reason; kept in the store as a note.

A model counts its own rejected events. What names no model that is known (a bad name, one model too many, broken bytes) is
counted here, so that `status` and the metrics show it.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypedDict

from sqlalchemy import select

from actors import wire
from actors.checks import stand_in
from actors.storage import Part
from actors.storage.schema import notes, upsert

_NOTE: Final = "refusals"


class Refused(TypedDict):
    """What status shows: `last` is None before the first, else model, field, value, rule and `at` (seconds since the epoch)."""

    events: int
    last: dict[str, Any] | None


class Refusals:
    """Counts from where the store's note ends. Not thread-safe: the broadcaster's loop counts."""

    def __init__(self) -> None:
        self.events = 0
        self.last: dict[str, Any] | None = None
        self._written = 0

    def add(self, model: object, events: int, rejection: wire.Rejection, at_s: float) -> None:
        """Count events that were refused for one reason."""
        self.events += events
        what = {name: stand_in(rejection[name]) for name in ("field", "value")}
        self.last = {"model": stand_in(model), **what, "rule": rejection["rule"][:500], "at": at_s}

    @property
    def is_dirty(self) -> bool:
        """Whether the store does not know all of it yet."""
        return self.events > self._written

    def note(self) -> tuple[int, dict[str, Any] | None]:
        """Give what `write` needs: the events since the last note, and the last reason."""
        return self.events - self._written, self.last

    def noted(self, events: int) -> None:
        """Learn that so many events have been added to the store's note."""
        self._written += events


def write(part: Part, events: int, last: dict[str, Any] | None) -> None:
    """Add to the note; runs in a thread that may wait for the store."""
    with part.write() as connection:
        found = connection.execute(select(notes.c.value).where(notes.c.name == _NOTE)).scalar()
        before: Refused = {"events": 0, "last": None} if found is None else json.loads(found)
        value = json.dumps({"events": before["events"] + events, "last": last}, allow_nan=True).encode()
        connection.execute(upsert(connection, notes, "value").values(name=_NOTE, value=value))


def read(part: Part) -> Refused:
    """Give what the store knows."""
    with part.read() as connection:
        found = connection.execute(select(notes.c.value).where(notes.c.name == _NOTE)).scalar()
    told: Refused = {"events": 0, "last": None} if found is None else json.loads(found)
    return told

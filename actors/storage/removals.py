"""Notes on removed models in the system's part: numbers that must not restart at 0, and the model's places.

An id of an episode or of an order is made of the model's name and a number. A model that is removed and logs again goes on
with its numbers, so no id repeats, however often it is removed.

A removal has steps in several processes; its note is written first and ended last. From `begin` to `end` the model accepts
nothing, and `end` frees its place in the same transaction. After an interruption, the same command continues the removal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, delete, select

from actors.storage.schema import notes, placements, upsert
from actors.storage.store import Part

_NOTE: Final = "removed:"
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Removal:
    """The note on a model that was removed, or is being removed (`under_way`).

    `ordinal` is that of its last episode, `number` that of the last row of its log. `lives` counts how often it was removed.
    `places` has the slot of each process that it has lived in: another process must not write a part that may have its rows.
    """

    ordinal: int = 0
    number: int = 0
    lives: int = 0
    under_way: bool = False
    places: dict[str, int] = field(default_factory=dict)


def begin(part: Part, model: str, *, ordinal: int, number: int) -> Removal:
    """Note that a removal is under way, with the numbers that the model has come to; they never go back."""
    with part.write() as connection:
        known = read(connection, [model]).get(model, Removal())
        place = connection.execute(select(placements).where(placements.c.model == model)).first()
        places = known.places if place is None else {**known.places, place.process: place.slot}
        noted = replace(
            known, ordinal=max(ordinal, known.ordinal), number=max(number, known.number), under_way=True, places=places
        )
        _put(connection, model, noted)
        return noted


def end(part: Part, model: str) -> None:
    """Free the place of a model and end its removal, in one transaction; what is over already stays as it is."""
    with part.write() as connection:
        known = read(connection, [model]).get(model)
        if known is not None and known.under_way:
            connection.execute(delete(placements).where(placements.c.model == model))
            _put(connection, model, replace(known, under_way=False, lives=known.lives + 1))


def read(connection: Connection, models: Iterable[str]) -> dict[str, Removal]:
    """Return the notes of those of `models` that were ever removed."""
    names = sorted({_NOTE + model for model in models})
    found: dict[str, Removal] = {}
    for start in range(0, len(names), _CHUNK):
        rows = connection.execute(select(notes).where(notes.c.name.in_(names[start : start + _CHUNK])))
        found |= {row.name.removeprefix(_NOTE): _removal(row.value) for row in rows}
    return found


def read_all(connection: Connection) -> dict[str, Removal]:
    """Return the note of every model that was ever removed."""
    rows = connection.execute(select(notes).where(notes.c.name.startswith(_NOTE, autoescape=True)))
    return {row.name.removeprefix(_NOTE): _removal(row.value) for row in rows}


def _removal(value: bytes) -> Removal:
    return Removal(**json.loads(value))


def _put(connection: Connection, model: str, noted: Removal) -> None:
    value = json.dumps(asdict(noted)).encode()
    connection.execute(upsert(connection, notes, "value").values(name=_NOTE + model, value=value))

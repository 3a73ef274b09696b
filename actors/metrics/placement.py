"""Decides which process a model lives in, and keeps it in the store.

Of P processes the first P - (P+1)//2 models get one of their own, those after them go round robin over (P+1)//2 shared ones. A
placement is made once and stays, whatever the configuration says later: a model's log lies in its process's part. Several
broadcasters may place at the same time: the first to write has placed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from actors.checks import shown
from actors.config import Settings
from actors.config.stored import load_stored
from actors.storage import Part, Store, removals
from actors.storage.removals import Removal
from actors.storage.schema import SYSTEM, insert_or_keep, placements


@dataclass(frozen=True, slots=True)
class Place:
    """The process of a model, and the number of the part that this process writes."""

    process: str
    slot: int


class TooManyModelsError(ValueError):
    """There are as many models as the configuration allows."""


class BeingRemovedError(RuntimeError):
    """The model is being removed, and has no place until the removal has ended."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"model {shown(model)} is being removed; if the removal was interrupted, run `visutility models rm` again"
        )


class Places:
    """The placements so far, and the place of the next new model."""

    def __init__(
        self, held: Mapping[str, Place], *, max_processes: int, max_models: int, known: Mapping[str, int] | None = None
    ) -> None:
        """Begin with the placements `held`, by model; `known` has the slots of processes whose models were removed."""
        self._models = len(held)
        self._slots = {**(known or {}), **{place.process: place.slot for place in held.values()}}
        self._own = sum(1 for process in {place.process for place in held.values()} if process.startswith("detector:"))
        self._in_shared = sum(1 for place in held.values() if place.process.startswith("detectors:"))
        self._shared = (max_processes + 1) // 2
        self._max_own = max_processes - self._shared
        self._max_models = max_models

    def next(self, model: str) -> Place:
        """Place a new model. TooManyModelsError names the setting."""
        if self._models >= self._max_models:
            raise TooManyModelsError(
                f"model_name must be one of the {self._models} models known models: detectors.max_models is "
                f"{self._max_models}, got {model!r}; raise the setting to watch more"
            )
        if self._own < self._max_own:
            process = f"detector:{model}"
            self._own += 1
        else:
            process = f"detectors:{self._in_shared % self._shared}"
            self._in_shared += 1
        self._models += 1
        slot = self._slots.setdefault(process, max(self._slots.values(), default=-1) + 1)
        return Place(process, slot)


class Placements:
    """The state of the broadcaster's store thread: the configuration and the system's part of the store."""

    def __init__(self, store: Store) -> None:
        """Read the configuration. Raises what the store raises, and ValueError for settings of another build."""
        self._store = store
        self.part = store.part(SYSTEM)
        self.settings = load_stored(store)

    def reload(self) -> Settings:
        """Read the configuration again."""
        self.settings = load_stored(self._store)
        return self.settings

    def read(self) -> dict[str, Place]:
        """Return every placement."""
        return read(self.part)

    def being_removed(self) -> set[str]:
        """Return the models whose removal is under way."""
        with self.part.read() as connection:
            return {model for model, removal in removals.read_all(connection).items() if removal.under_way}

    def removal_of(self, model: str) -> Removal | None:
        """Return the note on a model that was removed or is being removed."""
        with self.part.read() as connection:
            return removals.read(connection, [model]).get(model)

    def begin_removal(self, model: str, ordinal: int, number: int) -> None:
        """Note that a model is being removed: from now on it has no place, whatever is killed."""
        removals.begin(self.part, model, ordinal=ordinal, number=number)

    def end_removal(self, model: str) -> None:
        """Free the place of a model whose rows are gone."""
        removals.end(self.part, model)

    def place(self, models: Sequence[str]) -> dict[str, Place | TooManyModelsError | BeingRemovedError]:
        """Place what is new among the models, within the limits of the configuration."""
        limits = self.settings.detectors
        return place(self.part, models, max_processes=limits.max_processes, max_models=limits.max_models)


def read(part: Part) -> dict[str, Place]:
    """Return every placement."""
    with part.read() as connection:
        return _all(connection)


def place(
    part: Part, models: Sequence[str], *, max_processes: int, max_models: int
) -> dict[str, Place | TooManyModelsError | BeingRemovedError]:
    """Place what is new among `models` in one transaction; return for each its place, or why it has none."""
    with part.write() as connection:
        if connection.dialect.name == "postgresql":
            # SQLite lets one writer in at a time; here two would count the same models.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('visutility placements'))"))
        held = _all(connection)
        given: dict[str, Place | TooManyModelsError | BeingRemovedError] = {}
        removed = removals.read_all(connection)
        known = {process: slot for removal in removed.values() for process, slot in removal.places.items()}
        places = Places(held, max_processes=max_processes, max_models=max_models, known=known)
        rows = []
        for model in models:
            if model in removed and removed[model].under_way:
                given[model] = BeingRemovedError(model)
                continue
            if model in held:
                given[model] = held[model]
                continue
            try:
                chosen = held[model] = given[model] = places.next(model)
            except TooManyModelsError as error:
                given[model] = error
                continue
            rows.append({"model": model, "process": chosen.process, "slot": chosen.slot})
        if rows:
            connection.execute(insert_or_keep(connection, placements), rows)
    return given


def _all(connection: Connection) -> dict[str, Place]:
    return {row.model: Place(row.process, row.slot) for row in connection.execute(select(placements))}

"""Zombies made on purpose: a second process of an actor's name that was replaced and then tries to commit.

Ray makes such processes when a node is lost or thawed, but rarely at the moment that matters. Here this process takes an
actor's epoch, so that the real one ends itself and starts again with a newer one; when that has happened, we commit with what
we knew. Every such commit must be refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from actors import wire
from actors.clock import SystemClock
from actors.detection.state import DetectionState, Ingest, UnavailableError
from actors.detection.tables import DETECTOR
from actors.metrics import placement
from actors.retraining.tables import DISPATCHER
from actors.storage import UNAVAILABLE, Fence, Part, StaleEpochError, Store
from actors.storage.schema import SYSTEM
from tests.chaos.scenario import MODELS, identities
from tests.speed import slow

# Whose events must be nowhere in the store.
SOURCE: Final = 4000
_SUCCEEDED_S: Final = slow(30.0)
# A real actor notices at its next commit that it was replaced. Where a control removes the fence, it is killed after this.
_NOTICES_S: Final = 5.0
_TRIES: Final = 3


class Zombies:
    """Makes zombies of the actors of one store, and counts what they tried and what they got through."""

    def __init__(self, storage: str, end: Callable[[str], None]) -> None:
        """`end` kills the actor of a name."""
        self._storage = storage
        self._end = end
        self._clock = SystemClock()
        self.tried = 0
        self.accepted = 0
        self.problems: list[str] = []

    def of_a_detector(self, random: np.random.Generator) -> str:
        """Act as a detector process that was replaced while it held a batch."""
        store = Store(self._storage)
        try:
            model = str(random.choice(MODELS))
            place = placement.read(store.part(SYSTEM)).get(model)
            if place is None:
                return "no zombie: the model has no place yet"
            zombie = DetectionState(store, place.process, place.slot, self._clock.now())
            if not self._is_succeeded(store.part(DETECTOR, place.slot), place.process, zombie.epoch):
                return "no zombie: it was not succeeded"
            ids = identities(SOURCE, self.tried * 10, 5)
            batch = wire.batch_of_columns(
                {"accuracy": np.full(5, 0.9), "id": ids}, version="zombie", timestamps=None, now_s=0.0
            )
            work = Ingest(model, f"zombie-{self.tried}", 0, wire.pack(batch))

            def commit() -> bool:
                replies = zombie.commit([work], self._clock.now())
                return any(not isinstance(reply, Exception) and reply["status"] == "accepted" for reply in replies)

            self._try(commit)
        finally:
            store.close()
        return f"zombie of {place.process}"

    def of_the_dispatcher(self) -> str:
        """Act as a dispatcher that was replaced."""
        store = Store(self._storage)
        try:
            part = store.part(DISPATCHER)
            fence = Fence.raise_epoch(part, "dispatcher")
            if not self._is_succeeded(part, "dispatcher", fence.epoch):
                return "no zombie: it was not succeeded"

            def commit() -> bool:
                with fence.write():
                    return True

            self._try(commit)
        finally:
            store.close()
        return "zombie of dispatcher"

    def _try(self, commit: Callable[[], bool]) -> None:
        self.tried += 1
        for _ in range(_TRIES):
            try:
                if commit():
                    self.accepted += 1
                    return
            except StaleEpochError:
                return
            except (UnavailableError, *UNAVAILABLE):
                time.sleep(0.2)

    def _is_succeeded(self, part: Part, owner: str, epoch: int) -> bool:
        """Wait until a successor has raised the epoch, and had a moment to commit."""
        fences: Any = part.kind.fences
        began_s = time.monotonic()
        ended = False
        while time.monotonic() < began_s + _SUCCEEDED_S:
            if not ended and time.monotonic() > began_s + _NOTICES_S:
                self._end(owner)
                ended = True
            try:
                with part.read() as connection:
                    found = connection.execute(select(fences.c.epoch).where(fences.c.owner == owner)).scalar()
            except UNAVAILABLE:
                found = None
            if found is not None and found > epoch:
                time.sleep(0.5)
                return True
            time.sleep(0.05)
        return False

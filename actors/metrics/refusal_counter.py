"""Counts what the broadcaster refuses, and keeps the store's note of it up to date."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from actors.checks import brief, stand_in
from actors.clock import Clock
from actors.cluster.store_thread import STORE_ERRORS, StoreThread
from actors.metrics import refusals
from actors.metrics.placement import Placements
from actors.replies import Json, Rejection

logger = logging.getLogger(__name__)

NOTE_S: Final = 1.0  # between two records of refusals


class RefusalCounter:
    """Counts, and adds to the store's note what came since; lives in the broadcaster's loop."""

    def __init__(self, store: StoreThread[Placements], clock: Clock) -> None:
        """Nothing is read: the note adds up what every broadcaster counts."""
        self._store = store
        self._clock = clock
        self._events = 0  # that the note does not have yet
        self._last: Json | None = None
        self._noting: asyncio.Task[None] | None = None

    def add(self, model: object, events: int, rejection: Rejection) -> None:
        """Count events that were refused for one reason."""
        if self._last is None:
            logger.warning("events are refused and counted: %s %s", rejection["field"], rejection["rule"])
        self._events += events
        self._last = {
            "model": stand_in(model),
            "field": stand_in(rejection["field"]),
            "value": stand_in(rejection["value"]),
            "rule": rejection["rule"][:500],
            "at": self._clock.now().wall_s,
        }
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note())

    async def noted(self) -> None:
        """Wait until the store has it all, or cannot be reached."""
        if self._noting is not None:
            await self._noting

    async def _note(self) -> None:
        """Put the counts into the store, those of a burst together; without a store they wait for the next refusal."""
        while self._events:
            events, last = self._events, self._last
            self._events = 0
            try:
                await self._store.do(lambda placements: refusals.write(placements.part, events, last))  # noqa: B023  awaited at once
            except STORE_ERRORS as error:
                self._events += events
                logger.warning("refused events are not recorded yet, the store is unavailable: %s", brief(error))
                return
            await asyncio.sleep(NOTE_S)

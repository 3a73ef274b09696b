"""Removing a model from the system: the one who says the steps, each of which may be said again.

    detector.removable -> note (the model takes nothing) -> detector.remove -> dispatcher.forget -> note and place, at once

Whatever is killed in between, the note stands: the model takes nothing, and the same command carries the removal on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from actors import failpoints
from actors.checks import shown
from actors.cluster.peers import Peers, PeerUnavailableError
from actors.cluster.store_thread import STORE_ERRORS, StoreThread, unavailable
from actors.metrics.placement import Place, Placements
from actors.metrics.routes import RETRY_S, Routes
from actors.replies import Json, ModelGone, Unavailable

logger = logging.getLogger(__name__)

_CALL_S: Final = 15.0
_MOST_NOTED: Final = 5  # how often the numbers of a model that is moving on are noted again


class _NoReplyError(RuntimeError):
    """A step has no answer: say it again."""


class Removing:
    """Removes one model at a time."""

    def __init__(
        self, peers: Peers, routes: Routes, store: StoreThread[Placements], end_process: Callable[[str], object]
    ) -> None:
        """`end_process` ends a detector process that has no model any more; it runs in a thread."""
        self._peers = peers
        self._routes = routes
        self._store = store
        self._end_process = end_process
        self._one = asyncio.Lock()

    async def remove(self, model: str, *, purge: bool, force: bool) -> ModelGone | Unavailable:
        """Remove a model. KeyError: it was never there; ValueError: an order runs, or it has logged lately."""
        async with self._one:
            try:
                return await self._removed(model, purge=purge, force=force)
            except _NoReplyError as error:
                return {"status": "unavailable", "reason": str(error), "retry_in_s": RETRY_S}
            except STORE_ERRORS as error:
                return unavailable(error)

    async def _removed(self, model: str, *, purge: bool, force: bool) -> ModelGone:
        await self._routes.read()
        noted = await self._store.do(lambda placements: placements.removal_of(model))
        place = (await self._store.do(lambda placements: placements.read())).get(model)
        if place is None and noted is not None:  # removed already; its episodes and orders may have to go yet
            process, slot = next(reversed(noted.places.items()))
            place = Place(process, slot)
        if place is None:
            raise KeyError(f"model must be one that has logged something, got {shown(model)}")
        resumed = noted is not None and noted.under_way
        if not resumed:  # else it was allowed before it broke off
            await self._forgotten(model, only_ask=True)
        await self._noted(model, place, force=force or resumed)
        failpoints.reach("removal.noted")
        # Before the dispatcher forgets the orders: a request that is sent again must not be taken for a new one.
        await self._gone(model, place, purge=purge)
        failpoints.reach("removal.rows_gone")
        await self._forgotten(model, purge=purge)
        failpoints.reach("removal.forgotten")
        await self._store.do(lambda placements: placements.end_removal(model))
        failpoints.reach("removal.ended")
        self._routes.being_removed.discard(model)
        await self._end_if_empty(place)
        return {"status": "removed", "model": model, "purged": purge}

    async def _forgotten(self, model: str, *, purge: bool = False, only_ask: bool = False) -> None:
        """Let the dispatcher forget the model, or only say whether it would. ValueError names the order that it has yet."""
        try:
            reply = await self._peers.call(
                "dispatcher", "forget", timeout_s=_CALL_S, model=model, purge=purge, only_ask=only_ask
            )
        except PeerUnavailableError as error:
            raise _NoReplyError(str(error)) from error
        if reply["status"] == "unavailable":
            raise _NoReplyError(reply["reason"])
        if reply["status"] == "refused":
            raise ValueError(
                f"model must have no unfinished order to be removed, got {shown(model)} with {reply['order']}: finish it first"
            )

    async def _noted(self, model: str, place: Place, *, force: bool) -> None:
        """Let the model take nothing from now on, and note the numbers that it has come to."""
        reply = await self._said(place, "removable", model=model, force=force)
        self._routes.being_removed.add(model)
        self._routes.places.pop(model, None)
        try:
            ordinal, number = int(reply["ordinal"]), int(reply["number"])
            await self._store.do(lambda placements: placements.begin_removal(model, ordinal, number))
        except STORE_ERRORS:
            self._routes.being_removed.discard(model)  # should the note have come through: it is read with the places
            raise

    async def _gone(self, model: str, place: Place, *, purge: bool) -> None:
        for _ in range(_MOST_NOTED):
            noted = await self._store.do(lambda placements: placements.removal_of(model))
            if noted is None:
                raise _NoReplyError(f"nothing is noted of {shown(model)}")
            arguments: Json = {"ordinal": noted.ordinal, "number": noted.number, "purge": purge}
            reply = await self._said(place, "remove", model=model, **arguments)
            if reply["status"] == "removed":
                return
            # What was on its way has been counted meanwhile; nothing follows it.
            await self._noted(model, place, force=True)
        raise _NoReplyError(f"{shown(model)} still moves on")

    async def _said(self, place: Place, method: str, **arguments: object) -> Json:
        reply = await self._routes.call_at(place, method, **arguments)
        if reply["status"] == "unavailable":
            raise _NoReplyError(str(reply["reason"]))
        return reply

    async def _end_if_empty(self, place: Place) -> None:
        """End the process that the model lived in, where it was the last one there: it would cost 70 MB for nothing."""
        placed = await self._store.do(lambda placements: placements.read())
        if any(other.process == place.process for other in placed.values()):
            return
        self._routes.forget_process(place.process)
        try:
            await asyncio.to_thread(self._end_process, place.process)
        except Exception as error:  # noqa: BLE001  it costs memory until the system stops, no more
            logger.warning("%s could not be ended: %s", place.process, error)

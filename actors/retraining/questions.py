"""The queries of the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from actors import labels
from actors.checks import shown
from actors.clock import Instant
from actors.replies import (
    ActRow,
    CooldownListing,
    OrderHistory,
    OrderQueue,
    OrderRow,
    OrderShown,
    OrderState,
    QueueRow,
    SilenceListing,
    Unavailable,
)
from actors.retraining import arguments, listing
from actors.retraining.calls import Calls
from actors.retraining.rules.orders import Order
from actors.retraining.state import RetrainingState

T = TypeVar("T")

_MAX_KEYS: Final = 1000


class Questions(Calls):
    """The questions that the dispatcher answers. Nothing here changes anything."""

    async def orders(self, *, episodes: list[str]) -> dict[str, OrderState] | Unavailable:
        """Return how the order of each request stands, by the request's key (of an alarm: its episode)."""
        if not isinstance(episodes, list) or len(episodes) > _MAX_KEYS:
            raise ValueError(f"episodes must be a list of at most {_MAX_KEYS} ids, got {shown(episodes)}")

        async def act() -> dict[str, OrderState]:
            found: dict[str, Order] = await self._in_store(lambda state, _now: state.queries.of_keys(episodes))
            return {key: listing.state_of(order) for key, order in found.items()}

        return await self._or_unavailable(act())

    async def history(
        self,
        *,
        model: str | None = None,
        limit: int = 1000,
        state: str | None = None,
        judged: bool = False,
        label: str | None = None,
    ) -> OrderHistory | Unavailable:
        """Return the newest `limit` orders and skipped decisions, oldest first; only those with a verdict where `judged`.

        `label` is a selector of labels, like `team=risk`.
        """
        arguments.check_history(limit, state)
        selector = labels.parse(label)

        async def act() -> OrderHistory:
            def look(kept: RetrainingState, _now: Instant) -> list[OrderRow]:
                found = kept.queries.history(model, limit, state, judged=judged, selector=selector)
                return _rows(found, kept.queries.acts(order.id for order in found))

            return {"status": "ok", "rows": await self._in_store(look)}

        return await self._or_unavailable(act())

    async def queue(self) -> OrderQueue | Unavailable:
        """Return the orders that wait, the next one first, each with its place and why it waits."""

        async def act() -> OrderQueue:
            line = await self._in_store(lambda state, now: state.queries.queue(now))
            rows: list[QueueRow] = [
                {**listing.row_of(order), "place": number, "why": why} for number, (order, why) in enumerate(line, start=1)
            ]
            return {"status": "ok", "rows": rows}

        return await self._or_unavailable(act())

    async def order(self, *, order: str) -> OrderShown | Unavailable:
        """Return one order with its explanation and attempts. KeyError: no such order."""

        async def act() -> OrderShown:
            def look(state: RetrainingState, _now: Instant) -> OrderShown:
                return listing.shown_of(*state.queries.order(order), state.queries.acts([order]).get(order, ()))

            return await self._in_store(look)

        return await self._or_unavailable(act())

    async def cooldowns(self) -> CooldownListing | Unavailable:
        """Return the seconds that are left of every cooldown in force, and the models that ask no more."""

        async def act() -> CooldownListing:
            def look(state: RetrainingState, now: Instant) -> tuple[dict[str, float], dict[str, int]]:
                return state.queries.cooldowns(now), state.queries.gave_up()

            running, gave_up = await self._in_store(look)
            return {"status": "ok", "cooldowns": running, "gave_up": gave_up}

        return await self._or_unavailable(act())

    async def silences(self, *, model: str | None = None) -> SilenceListing | Unavailable:
        """Return the silences in force: all, or those that cover `model`."""

        async def act() -> SilenceListing:
            return {"status": "ok", "silences": await self._in_store(lambda state, now: state.queries.silences(model, now))}

        return await self._or_unavailable(act())

    async def promotions(self, *, model: str | None = None, limit: int = 1000) -> OrderHistory | Unavailable:
        """Return the newest `limit` decisions about versions and how far they have been carried out, oldest first."""
        arguments.check_history(limit, None)

        async def act() -> OrderHistory:
            def look(state: RetrainingState, _now: Instant) -> list[OrderRow]:
                found = state.queries.promotions(model, limit)
                return _rows(found, state.queries.acts(order.id for order in found))

            return {"status": "ok", "rows": await self._in_store(look)}

        return await self._or_unavailable(act())


def _rows(found: Sequence[Order], acts: Mapping[str, Sequence[ActRow]]) -> list[OrderRow]:
    return [listing.row_of(order, acts.get(order.id, ())) for order in found]

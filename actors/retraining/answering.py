"""What is asked of the dispatcher, and how it answers while its store is unavailable or its places are taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from actors import labels
from actors.checks import brief, shown
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
from actors.retraining import border
from actors.retraining.rules.orders import Order
from actors.retraining.state import RetrainingState
from actors.storage import UNAVAILABLE, SchemaError, StoreError

T = TypeVar("T")

# After the store was unavailable.
STORE_RETRY_S: Final = 1.0
_MAX_KEYS: Final = 1000
# Ray gives an actor 1,000 places; while the store is locked every call holds one, and a health ping must find one too.
_MAX_CALLS: Final = 900


class Answering:
    """The questions of the dispatcher. Nothing here changes anything."""

    def __init__(self) -> None:
        self._calls = 0

    def _in_store(self, act: Callable[[RetrainingState, Instant], T], /) -> Awaitable[T]:
        """Run `act` on the state in the thread that owns it."""
        raise NotImplementedError

    async def orders(self, *, episodes: list[str]) -> dict[str, OrderState] | Unavailable:
        """Return how the order of each request stands, by the request's key (of an alarm: its episode)."""
        if not isinstance(episodes, list) or len(episodes) > _MAX_KEYS:
            raise ValueError(f"episodes must be a list of at most {_MAX_KEYS} ids, got {shown(episodes)}")

        async def act() -> dict[str, OrderState]:
            found: dict[str, Order] = await self._in_store(lambda state, _now: state.record.of_keys(episodes))
            return {key: border.state_of(order) for key, order in found.items()}

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
        border.check_history(limit, state)
        selector = labels.parse(label)

        async def act() -> OrderHistory:
            def look(kept: RetrainingState, _now: Instant) -> list[OrderRow]:
                found = kept.record.history(model, limit, state, judged=judged, selector=selector)
                return _rows(found, kept.record.acts(order.id for order in found))

            return {"status": "ok", "rows": await self._in_store(look)}

        return await self._or_unavailable(act())

    async def queue(self) -> OrderQueue | Unavailable:
        """Return the orders that wait, the next one first, each with its place and why it waits."""

        async def act() -> OrderQueue:
            line = await self._in_store(lambda state, now: state.record.queue(now))
            rows: list[QueueRow] = [
                {**border.row_of(order), "place": number, "why": why} for number, (order, why) in enumerate(line, start=1)
            ]
            return {"status": "ok", "rows": rows}

        return await self._or_unavailable(act())

    async def order(self, *, order: str) -> OrderShown | Unavailable:
        """Return one order with its explanation and attempts. KeyError: no such order."""

        async def act() -> OrderShown:
            def look(state: RetrainingState, _now: Instant) -> OrderShown:
                return border.shown_of(*state.record.order(order), state.record.acts([order]).get(order, ()))

            return await self._in_store(look)

        return await self._or_unavailable(act())

    async def cooldowns(self) -> CooldownListing | Unavailable:
        """Return the seconds that are left of every cooldown in force, and the models that ask no more."""

        async def act() -> CooldownListing:
            def look(state: RetrainingState, now: Instant) -> tuple[dict[str, float], dict[str, int]]:
                return state.record.cooldowns(now), state.record.gave_up()

            running, gave_up = await self._in_store(look)
            return {"status": "ok", "cooldowns": running, "gave_up": gave_up}

        return await self._or_unavailable(act())

    async def silences(self, *, model: str | None = None) -> SilenceListing | Unavailable:
        """Return the silences in force: all, or those that cover `model`."""

        async def act() -> SilenceListing:
            return {"status": "ok", "silences": await self._in_store(lambda state, now: state.record.silences(model, now))}

        return await self._or_unavailable(act())

    async def promotions(self, *, model: str | None = None, limit: int = 1000) -> OrderHistory | Unavailable:
        """Return the newest `limit` decisions about versions and how far they have been carried out, oldest first."""
        border.check_history(limit, None)

        async def act() -> OrderHistory:
            def look(state: RetrainingState, _now: Instant) -> list[OrderRow]:
                found = state.record.promotions(model, limit)
                return _rows(found, state.record.acts(order.id for order in found))

            return {"status": "ok", "rows": await self._in_store(look)}

        return await self._or_unavailable(act())

    async def _or_unavailable(self, work: Coroutine[Any, Any, T]) -> T | Unavailable:
        if self._calls >= _MAX_CALLS:
            work.close()
            return {"status": "unavailable", "reason": f"{_MAX_CALLS} calls are under way", "retry_in_s": STORE_RETRY_S}
        self._calls += 1
        try:
            return await work
        except (*UNAVAILABLE, StoreError, SchemaError) as error:
            return {"status": "unavailable", "reason": brief(error), "retry_in_s": STORE_RETRY_S}
        finally:
            self._calls -= 1


def _rows(found: Sequence[Order], acts: Mapping[str, Sequence[ActRow]]) -> list[OrderRow]:
    return [border.row_of(order, acts.get(order.id, ())) for order in found]

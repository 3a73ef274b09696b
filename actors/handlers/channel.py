"""`channel`: the order stands in the store until a consumer takes it, under a lease that the consumer renews.

Nothing is launched by the dispatcher: the consumer is the retrain. One live lease a time; a consumer that is gone stops
renewing, the lease runs out, and the order goes to the next one with a raised `attempt`, which is the fencing token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from actors import failpoints
from actors.clock import Instant
from actors.handlers.interface import event_fields
from actors.order_book import OrderBook
from actors.retraining.delivery import Done, Failed

# Runs a function of the book in the thread that owns it.
InStore = Callable[[Callable[[OrderBook, Instant], Any]], Awaitable[Any]]


class ChannelRetrainHandler:
    """Hands orders to consumers who wait: a waiting call returns as soon as an order is committed."""

    def __init__(self, in_store: InStore) -> None:
        self._in_store = in_store
        self._offered = asyncio.Event()

    def offer(self) -> None:
        """Wake every waiting consumer: an order may have come, or come back."""
        self._offered.set()
        self._offered = asyncio.Event()

    async def take(self, *, consumer: str, model: str | None, timeout_s: float) -> dict[str, Any]:
        """Wait up to `timeout_s` for an order, and hand it over under a lease."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_s
        while True:
            offered = self._offered  # before the look: an order that comes between look and wait wakes us
            taken = await self._in_store(lambda book, now: self._take(book, consumer, model, now))
            if taken is not None:
                return dict(taken)
            left_s = give_up_at - loop.time()
            if left_s <= 0:
                return {"status": "none"}
            try:
                async with asyncio.timeout(left_s):
                    await offered.wait()
            except TimeoutError:
                return {"status": "none"}

    def _take(self, book: OrderBook, consumer: str, model: str | None, now: Instant) -> dict[str, Any] | None:
        failpoints.reach("dispatcher.before_take")
        taken = book.take(consumer, model, now)
        if taken is None:
            return None
        failpoints.reach("dispatcher.after_take")
        order, lease_s = taken
        return {
            "status": "order",
            "order": {
                "id": order.id,
                "attempt": order.attempts,
                "requested_at": order.requested_at,
                "event": event_fields(order),
            },
            "token": order.attempts,
            "lease_s": lease_s,
        }

    async def renew(self, *, order: str, token: int) -> dict[str, Any]:
        """Keep an order; "lost" where somebody else has it, or it has ended."""
        lease_s = await self._in_store(lambda book, now: book.renew(order, token, now))
        if lease_s is None:
            return {"status": "lost", "reason": "the lease ran out and the order was handed on, or it has ended"}
        return {"status": "renewed", "lease_s": lease_s}

    async def finish(
        self, *, order: str, token: int | None, outcome: str, reason: str | None, new_version: str | None
    ) -> dict[str, Any]:
        """Record how a retrain ended; safe to say again until it is recorded."""
        match outcome:
            case "done":
                ending: Done | Failed = Done(new_version, reason or "")
            case "failed":
                ending = Failed(reason or "the consumer gave no reason")
            case _:
                raise ValueError(f"outcome must be 'done' or 'failed', got {outcome!r}")

        def act(book: OrderBook, now: Instant) -> tuple[str, str]:
            failpoints.reach("dispatcher.before_finish")
            said = book.finish(order, token, ending, now)
            failpoints.reach("dispatcher.after_finish")
            return said

        status, why = await self._in_store(act)
        return {"status": status, "reason": why}

"""`channel`: an order waits in the store until a consumer takes it, under a lease that the consumer renews.

The dispatcher launches nothing: the consumer is the retrain. There is one live lease at a time. A consumer that is gone stops
renewing, the lease runs out, and the order goes to the next one with a raised `attempt`, which is the fencing token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from actors import failpoints
from actors.clock import Instant
from actors.replies import Renewed, Taken
from actors.retraining.commits import Handed
from actors.retraining.handlers.interface import event_fields
from actors.retraining.leases import Said
from actors.retraining.rules.delivery import Done, Failed
from actors.retraining.state import RetrainingState

T = TypeVar("T")

# Each waiting call holds one of the actor's places (Ray gives it 1,000); the others must find one too.
_MAX_WAITING: Final = 500
_FULL_RETRY_S: Final = 2.0


class InStore(Protocol):
    """Runs a function of the state in the thread that owns the store."""

    def __call__(self, act: Callable[[RetrainingState, Instant], T], /) -> Awaitable[T]:
        """Return what `act` returns."""


class Waiter:
    """A consumer's call that waits for an order, of `model` or of any."""

    def __init__(self, consumer: str, model: str | None) -> None:
        self.consumer = consumer
        self.model = model
        self.fate: asyncio.Future[Handed | None] = asyncio.get_running_loop().create_future()

    def settle(self, handed: Handed | None) -> None:
        """Hand it an order, or None: look again."""
        if not self.fate.done():
            self.fate.set_result(handed)


class ChannelRetrainHandler:
    """Hands orders to the consumers who wait: a waiting call returns as soon as an order is committed."""

    def __init__(self, in_store: InStore) -> None:
        self._in_store = in_store
        self._waiting: list[Waiter] = []
        self._calls = 0  # of `take`, wherever they are: counted before they wait for the store or for an order
        self._offers = 0

    def offer(self) -> None:
        """Let every waiting consumer look: an order may have come, or come back."""
        self._offers += 1
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.settle(None)

    def reserve(self, model: str) -> Waiter | None:
        """Take a waiting consumer out, to be given the order of `model` in the commit that makes it; then `settle` it.

        A consumer that waits for this model alone goes first; among others, the one that came first.
        """
        fitting = [waiter for waiter in self._waiting if waiter.model in {None, model}]
        if not fitting:
            return None
        chosen = next((waiter for waiter in fitting if waiter.model == model), fitting[0])
        self._waiting.remove(chosen)
        return chosen

    async def take(self, *, consumer: str, model: str | None, timeout_s: float) -> Taken:
        """Wait up to `timeout_s` for an order, and hand it over under a lease."""
        if self._calls >= _MAX_WAITING:
            reason = f"{_MAX_WAITING} consumers wait already; one stream without a model serves all models of a process"
            return {"status": "unavailable", "reason": reason, "retry_in_s": _FULL_RETRY_S}
        self._calls += 1
        try:
            return await self._taken(consumer, model, timeout_s)
        finally:
            self._calls -= 1

    async def _taken(self, consumer: str, model: str | None, timeout_s: float) -> Taken:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_s
        while True:
            offers = self._offers
            handed = await self._in_store(lambda state, now: _take(state, consumer, model, now))
            if handed is None and self._offers == offers and (left_s := give_up_at - loop.time()) > 0:
                handed = await self._wait(Waiter(consumer, model), left_s)
            if handed is not None:
                return _reply(handed)
            if loop.time() >= give_up_at:
                return {"status": "none"}

    async def _wait(self, waiter: Waiter, left_s: float) -> Handed | None:
        self._waiting.append(waiter)
        try:
            await asyncio.wait({waiter.fate}, timeout=left_s)
        finally:
            reserved = waiter not in self._waiting
            if not reserved:
                self._waiting.remove(waiter)
        # One that was reserved gets its answer with a commit that is under way: leaving now would lose the order for a lease.
        return await waiter.fate if reserved else None

    async def renew(self, *, order: str, token: int) -> Renewed:
        """Keep an order; "lost" where somebody else has it, or it has ended."""
        lease_s = await self._in_store(lambda state, now: state.leases.renew(order, token, now))
        if lease_s is None:
            return {"status": "lost", "reason": "the lease ran out and another consumer has the order, or the order has ended"}
        return {"status": "renewed", "lease_s": lease_s}

    async def finish(self, *, order: str, token: int | None, ending: Done | Failed) -> Said:
        """Record how a retrain ended; safe to repeat until it is recorded."""

        def act(state: RetrainingState, now: Instant) -> Said:
            failpoints.reach("dispatcher.before_finish")
            said = state.leases.finish(order, token, ending, now)
            failpoints.reach("dispatcher.after_finish")
            return said

        return await self._in_store(act)

    async def release(self, *, order: str, token: int, reason: str) -> Said:
        """Take an order back from its consumer; after a pause it goes to the next one."""
        return await self._in_store(lambda state, now: state.leases.release(order, token, reason, now))


def _take(state: RetrainingState, consumer: str, model: str | None, now: Instant) -> Handed | None:
    failpoints.reach("dispatcher.before_take")
    handed = state.leases.take(consumer, model, now)
    if handed is not None:
        failpoints.reach("dispatcher.after_take")
    return handed


def _reply(handed: Handed) -> Taken:
    order = handed.order
    return {
        "status": "order",
        "order": {
            "id": order.id,
            "attempt": order.attempts,
            "requested_at": order.requested_at,
            "event": event_fields(order),
        },
        "token": order.attempts,
        "lease_s": handed.lease_s,
    }

"""What every method of the dispatcher goes through: it waits for the store, or says that it is unavailable."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from actors.checks import brief
from actors.clock import Clock, Instant
from actors.replies import Admitted, Recorded, Unavailable
from actors.retraining.admissions import Admission
from actors.retraining.state import RetrainingState
from actors.storage import UNAVAILABLE, SchemaError, StoreError

logger = logging.getLogger(__name__)
T = TypeVar("T")

# After the store was unavailable.
STORE_RETRY_S: Final = 1.0
# Ray gives an actor 1,000 places; while the store is locked every call holds one, and a health ping must find one too.
_MAX_CALLS: Final = 900


class Calls(ABC):
    """A part of the dispatcher that takes calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls = 0

    @abstractmethod
    def _in_store(self, act: Callable[[RetrainingState, Instant], T], /) -> Awaitable[T]:
        """Run `act` on the state in the thread that owns it."""

    @abstractmethod
    def _wake(self) -> None:
        """Let launcher and consumers look: an order may have come, or come back."""

    async def _recorded(self, act: Callable[[RetrainingState, Instant], None]) -> Recorded | Unavailable:
        async def acted() -> Recorded:
            await self._in_store(act)
            self._wake()
            return {"status": "recorded"}

        return await self._or_unavailable(acted())

    async def _then_wake(self, act: Callable[[RetrainingState, Instant], Admission]) -> Admission:
        admission = await self._in_store(act)
        if admission.decision != "skipped":
            self._wake()
        return admission

    async def _admitted(self, act: Callable[[], Coroutine[Any, Any, Admission]], what: str) -> Admitted:
        admission = await act()
        if admission.decision == "skipped":
            logger.warning("retrain of %s skipped: %s", what, admission.reason)
        else:
            logger.info("retrain of %s %s: order %s", what, admission.decision, admission.order)
        return {
            "status": "recorded",
            "decision": admission.decision,
            "order": admission.order,
            "reason": admission.reason,
            "retry_in_s": admission.retry_in_s,
        }

    async def _or_unavailable(self, work: Coroutine[Any, Any, T]) -> T | Unavailable:
        if self._calls >= _MAX_CALLS:
            work.close()
            return {"status": "unavailable", "reason": f"{_MAX_CALLS} calls are in flight", "retry_in_s": STORE_RETRY_S}
        self._calls += 1
        try:
            return await work
        except (*UNAVAILABLE, StoreError, SchemaError) as error:
            return {"status": "unavailable", "reason": brief(error), "retry_in_s": STORE_RETRY_S}
        finally:
            self._calls -= 1

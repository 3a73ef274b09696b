"""The one thread of an actor that owns its store, so that commits follow each other and the loop answers while one waits.

It opens the store when it is first needed, and again until that succeeds: an actor's constructor must not fail, and a store
that cannot be reached now may be there in a second. A process that a successor has fenced off ends here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from actors import replies
from actors.checks import brief
from actors.cluster.actor import open_store
from actors.cluster.deployment import end_stale_process
from actors.storage import UNAVAILABLE, SchemaError, StaleEpochError, Store, StoreError

RETRY_S: Final = 0.5
# The errors that say that the store cannot serve now. Anything else that a store's thread raises is a mistake,
# the caller's or ours.
STORE_ERRORS: Final = (*UNAVAILABLE, StoreError, SchemaError)

S = TypeVar("S")
T = TypeVar("T")


class StoreThread(Generic[S]):
    """Runs functions on an actor's state, one after another, in the thread that owns the store.

    Args:
        storage: the store's URL.
        make: what the actor knows, made of the opened store; raising the epoch belongs to it. A ValueError (settings that
            another build has stored) counts as a store that cannot be opened.
        end_stale: ends the process; a unit test brings its own.
    """

    def __init__(
        self, storage: str, make: Callable[[Store], S], *, end_stale: Callable[[object], object] | None = None
    ) -> None:
        self._storage = storage
        self._make = make
        self._end_stale = end_stale or end_stale_process
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.store: Store | None = None
        self.state: S | None = None  # None: the store has not been opened yet

    async def do(self, act: Callable[[S], T]) -> T:
        """Run `act` on the state in the thread, and return what it returns.

        Raises:
            StaleEpochError: a successor has raised the epoch; the process ends.
            One of STORE_ERRORS: the store cannot be reached; nothing has changed.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._acted, act)
        except StaleEpochError as error:
            self._end_stale(error)
            raise

    def _acted(self, act: Callable[[S], T]) -> T:
        return act(self._open() if self.state is None else self.state)

    def _open(self) -> S:
        self.store = self.store or open_store(self._storage)
        try:
            self.state = self._make(self.store)
        except StoreError:
            raise
        except ValueError as error:
            raise StoreError(str(error)) from error
        return self.state


async def or_unavailable(work: Awaitable[T]) -> T | replies.Unavailable:
    """Return the reply of `work`, or "unavailable" if the store cannot be reached; nothing has changed then."""
    try:
        return await work
    except (*STORE_ERRORS, StaleEpochError) as error:
        return unavailable(error)


def unavailable(error: Exception, retry_in_s: float = RETRY_S) -> replies.Unavailable:
    """Return the reply that says that the store is unavailable."""
    return {"status": "unavailable", "reason": brief(error), "retry_in_s": retry_in_s}

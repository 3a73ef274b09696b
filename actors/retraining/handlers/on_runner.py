"""What `task` and `module:Class` share: an attempt is one Ray task, submitted by the `runner` so that it outlives us.

At most one attempt a time: its key holds the attempt's number, which is on record before it starts, and the runner puts a
key but once. The next attempt begins only when the runner says that the last one has ended, or knows nothing of it (then
the runner itself was lost, and its tasks with it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from actors.cluster.peers import PeerUnavailableError
from actors.plain import Arguments
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.rules.delivery import Done, Launched, Outcome, Retry, promise_of
from actors.retraining.rules.orders import Order

_CALL_S: Final = 20.0
_MAX_VERSION: Final = 200
# The configuration speaks like Ray, the runner with units.
_NAMES: Final = {"num_cpus": "cpu", "num_gpus": "gpu", "memory": "memory_bytes"}


def key_of(order: Order) -> str:
    """Name the present attempt of an order."""
    return f"{order.id}:{order.attempts}"


def task_options(resources: Mapping[str, float]) -> Arguments:
    """Return the runner's options of a task that needs `resources`; Ray must not repeat it on its own, attempts are ours."""
    return {"resources": {_NAMES.get(name, name): amount for name, amount in resources.items()}, "max_retries": 0}


class OnRunner:
    """What the runner does for a handler: `launch` is the handler's own, and calls `launched`."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    async def launched(self, order: Order, target: str, kwargs: Arguments, options: Arguments) -> Outcome:
        """Have the runner run `target(**kwargs)`; no reply means that `follow` will find out."""
        with contextlib.suppress(PeerUnavailableError):
            await self._runner("launch", order, target=target, kwargs=kwargs, options=options)
        return Launched()

    async def follow(self, order: Order) -> Outcome:
        """Ask the runner how the present attempt goes."""
        try:
            state = await self._runner("state", order)
        except PeerUnavailableError:
            return Launched()
        match state["state"]:
            case "running":
                return Launched()
            case "done":
                return ended(state.get("result"))
            case "failed":
                return Retry(f"the attempt failed: {state.get('error')}")
            case _:
                return Retry("the attempt was lost with the process that ran it, or never started", after_s=0)

    async def stop(self, order: Order) -> bool:
        """Have the runner kill the present attempt; return whether it has ended."""
        try:
            await self._runner("cancel", order, force=True)
            state = await self._runner("state", order)
        except PeerUnavailableError:
            return False
        return bool(state["state"] != "running")

    async def forget(self, order: Order) -> None:
        """Let the runner drop what it knows of the attempt."""
        await self._runner("forget", order)

    async def _runner(self, method: str, order: Order, **arguments: Any) -> Any:
        return await self._surroundings.peers.call("runner", method, timeout_s=_CALL_S, key=key_of(order), **arguments)


def ended(result: object) -> Done:
    """Return the ending that a function's return value says: a version, or a mapping with `new_version` and a promise."""
    said = result if isinstance(result, Mapping) else {"new_version": result} if isinstance(result, str) else {}
    if said.get("new_version") is None:
        return Done()
    version = str(said["new_version"])[:_MAX_VERSION]
    try:
        return Done(version, promise=promise_of(said.get("promise"), said.get("promise_n"), said.get("promise_source")))
    except ValueError as error:  # the retrain is through all the same
        return Done(version, reason=f"its promise is not used: {error}")

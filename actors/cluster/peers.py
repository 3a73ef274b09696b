"""How one actor calls another: by name, by keyword, within a time, and never blocking its own loop.

Actors hold a `Peers` and no Ray handle, so a unit test hands them a fake and plays both sides.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.cluster import card, deployment


class PeerUnavailableError(RuntimeError):
    """No reply: the outcome of the call is unknown, it may have been carried out."""


class Peers(Protocol):
    """The other actors of the system, by name."""

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        """Call `method` of the actor `name`.

        Raises PeerUnavailableError where no reply came in time, and what the method itself raised (ValueError, KeyError).
        """


class RayPeers:
    """The actors of one Ray namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        """Call by name; a handle is looked up once and again after a failure."""
        try:
            handle = self._handles.get(name) or await asyncio.to_thread(self._find, name)
            return await asyncio.wait_for(getattr(handle, method).remote(**arguments), timeout_s)
        except RayTaskError as error:
            raise error.cause from None
        except (TimeoutError, GetTimeoutError, RayActorError) as error:
            self._handles.pop(name, None)
            raise PeerUnavailableError(f"{name}.{method}: {type(error).__name__}") from error

    def _find(self, name: str) -> Any:
        try:
            handle = ray.get_actor(name, namespace=self._namespace)
        except ValueError as error:
            raise PeerUnavailableError(f"{name}: no such actor in namespace {self._namespace!r}") from error
        self._handles[name] = handle
        return handle


class BlockingPeers:
    """The same for a thread that may wait: what a client and a driver hold. Safe to use from several threads."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    def call(self, name: str, method: str, arguments: dict[str, Any], *, timeout_s: float) -> Any:
        """Call by name and wait; PeerUnavailableError and the method's own errors as in `Peers.call`.

        NoSystemError where no system is meant to run in the namespace.
        """
        # Ray would make a cluster of its own for whoever asks after the caller has left his: a thread of ours that goes on.
        if not ray.is_initialized():
            raise PeerUnavailableError(f"{name}.{method}: this process is connected to no Ray cluster (any more)")
        try:
            handle = self._handles.get(name) or self._found(name)
            return ray.get(getattr(handle, method).remote(**arguments), timeout=timeout_s)
        except RayTaskError as error:
            raise error.cause from None
        except (GetTimeoutError, RayActorError) as error:
            self._handles.pop(name, None)
            raise PeerUnavailableError(f"{name}.{method}: {type(error).__name__}") from error

    def _found(self, name: str) -> Any:
        handle = deployment.find(name, self._namespace)
        if handle is None:
            if card.read(self._namespace) is None:
                raise deployment.no_system(self._namespace)
            raise PeerUnavailableError(f"{name}: not there at the moment")
        self._handles[name] = handle
        return handle

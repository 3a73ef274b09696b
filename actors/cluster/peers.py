"""How one actor calls another: by name, by keyword, within a time, and never blocking its own loop.

Actors hold a `Peers` instead of Ray handles, so a unit test passes in a fake and plays both sides.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors import errors
from actors.cluster import card, connection
from actors.plain import Arguments


class PeerUnavailableError(RuntimeError):
    """No reply: the outcome of the call is unknown, it may have been carried out."""


class NotConnectedError(PeerUnavailableError, errors.NotConnectedError):
    """This process has no Ray connection of its own: never made, given up, or inherited through a fork."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {connection.lacking()}")


class Peers(Protocol):
    """The other actors of the system, by name."""

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        """Call `method` of the actor `name`.

        Raises PeerUnavailableError if no reply came in time, and what the method itself raised (ValueError, KeyError).
        """


class RayPeers:
    """The actors of one Ray namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, ActorHandle[Any]] = {}

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


class Ask(Protocol):
    """Calls an actor of the system by name and waits: `BlockingPeers`, or a fake in a test."""

    def call(self, name: str, method: str, arguments: Arguments, /, *, timeout_s: float) -> Any:
        """Return the reply; PeerUnavailableError where none came, and what the method raised."""


class BlockingPeers:
    """The same for a thread that may wait: what a client and a driver hold. Safe to use from several threads."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, ActorHandle[Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockingPeers, (self._namespace,)

    def call(self, name: str, method: str, arguments: Arguments, *, timeout_s: float) -> Any:
        """Call by name and wait; PeerUnavailableError and the method's own errors as in `Peers.call`.

        NoSystemError if no system is meant to run in the namespace, NotConnectedError if this process is connected to
        no cluster.
        """
        try:
            # Ray would start a cluster of its own for a thread of ours that calls after the process has disconnected.
            with connection.kept() as is_own:
                if not is_own:
                    raise NotConnectedError(f"{name}.{method}")
                handle = self._handles.get(name) or self._found(name)
                reply = connection.reply_to(getattr(handle, method).remote(**arguments))
            return reply(timeout_s)
        except connection.NoOwnConnectionError:
            raise NotConnectedError(f"{name}.{method}") from None
        except RayTaskError as error:
            raise error.cause from None
        except (GetTimeoutError, RayActorError) as error:
            self._handles.pop(name, None)
            raise PeerUnavailableError(f"{name}.{method}: {type(error).__name__}") from error

    def _found(self, name: str) -> Any:
        try:
            handle = ray.get_actor(name, namespace=self._namespace)
        except ValueError:
            if card.read(self._namespace) is None:
                from actors.cluster import deployment  # noqa: PLC0415  0.1 s that every cold worker of a study would pay

                raise deployment.no_system(self._namespace) from None
            raise PeerUnavailableError(f"{name}: not there at the moment") from None
        self._handles[name] = handle
        return handle

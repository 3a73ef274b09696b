"""How a client reaches the broadcaster: by name, whenever it is needed, so that a job may start first and outlives restarts."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from actors.cluster import connection
from actors.errors import NotConnectedError, ours
from actors.replies import Ingested
from actors.wire.messages import Message

logger = logging.getLogger(__name__)

_FIND_S: Final = 0.25
_HELLO_S: Final = 2.0


class Link(Protocol):
    """The client's interface to the system; a unit test passes its own."""

    def send(self, batches: list[Message]) -> Any | None:
        """Begin `ingest_many`; return a ticket, or None where no broadcaster can be found now."""

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        """Return those of the tickets whose reply is there, after at most `timeout_s`."""

    def reply(self, ticket: Any) -> list[Ingested] | None:
        """Return the reply, None where the outcome is unknown."""

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call another method and wait; ConnectionError where no reply came, the public errors for what it raised."""

    def schema(self) -> int | None:
        """Return the newest wire schema that the broadcaster reads; None if it does not answer now."""


class RayLink:
    """The broadcaster of a namespace, by name."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handle: Any = None
        self._schema: int | None = None  # of the broadcaster that `_handle` names
        self._look_at_s = 0.0

    def forked(self) -> None:
        """Learn that this process is a fork: the parent's connection is not ours."""
        self._lose()

    def send(self, batches: list[Message]) -> Any | None:
        """Begin the call."""
        handle = self._found()
        if handle is None:
            return None
        try:
            return handle.ingest_many.remote(batches=batches)
        except Exception:  # noqa: BLE001  a Ray that was shut down raises what it likes; we look for it again
            self._lose()
            return None

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        """Wait for the first of them."""
        if not self._is_connected():
            return list(tickets)
        try:
            ready, _ = ray.wait(tickets, num_returns=1, timeout=timeout_s)
            if ready and len(tickets) > 1:
                ready, _ = ray.wait(tickets, num_returns=len(tickets), timeout=0)
        except Exception:  # noqa: BLE001  the connection is gone: every reply is
            self._lose()
            return list(tickets)
        return list(ready)

    def reply(self, ticket: Any) -> list[Ingested] | None:
        """Take a reply."""
        if not self._is_connected():
            return None
        try:
            found: list[Ingested] = ray.get(ticket, timeout=0)
        except (RayActorError, RayTaskError, GetTimeoutError) as error:
            logger.debug("no reply from the broadcaster: %s", error)
            self._lose()
            return None
        except Exception:  # noqa: BLE001  the connection is gone
            self._lose()
            return None
        return found

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call and wait."""
        self._look_at_s = 0.0
        handle = self._found()
        connection.require_own(method)
        if handle is None:
            raise NotConnectedError(f"no broadcaster is running in namespace {self._namespace!r}")
        try:
            return ray.get(getattr(handle, method).remote(**arguments), timeout=timeout_s)
        except RayTaskError as error:
            raise ours(error.cause) from None
        except (RayActorError, GetTimeoutError) as error:
            self._lose()
            raise NotConnectedError(f"broadcaster.{method}: no reply within {timeout_s:g} s") from error

    def schema(self) -> int | None:
        """Ask once for each broadcaster that was found: one that has been replaced may be of another build."""
        if self._schema is None:
            try:
                self._schema = int(self.call("hello", _HELLO_S).get("wire", 1))
            except (ConnectionError, ValueError, TypeError):
                return None
        return self._schema

    def _lose(self) -> None:
        self._handle = self._schema = None

    def _is_connected(self) -> bool:
        """Return whether this process has a connection of its own: otherwise Ray starts one, or waits for ever in a fork."""
        if not connection.is_own():
            self._lose()
        return connection.is_own()

    def _found(self) -> Any:
        if self._is_connected() and self._handle is None and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _FIND_S
            try:
                self._handle = ray.get_actor("broadcaster", namespace=self._namespace)
            except (ValueError, RayError):
                return None
        return self._handle

"""How a client reaches the broadcaster: by name, whenever it is needed, so that a job may start first and outlives restarts."""

from __future__ import annotations

import inspect
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
# Ray's function without its start of a cluster for a process that is not connected. A wait goes on while the process may leave.
_wait: Any = inspect.unwrap(ray.wait)


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
        with connection.kept() as is_own:
            handle = self._found(is_own=is_own)
            if handle is None:
                return None
            try:
                return handle.ingest_many.remote(batches=batches)
            except Exception:  # noqa: BLE001  a connection that is lost raises what it likes; we look for it again
                self._lose()
                return None

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        """Wait for the first of them."""
        if not connection.is_own():  # no reply comes any more
            self._lose()
            return list(tickets)
        try:
            # Not by futures, as other calls: 1,300 instead of 800 replies a second.
            ready, _ = _wait(tickets, num_returns=1, timeout=timeout_s)
            if ready and len(tickets) > 1:
                ready, _ = _wait(tickets, num_returns=len(tickets), timeout=0)
        except Exception:  # noqa: BLE001  the connection is gone: every reply is
            self._lose()
            return list(tickets)
        return list(ready)

    def reply(self, ticket: Any) -> list[Ingested] | None:
        """Take a reply."""
        with connection.kept() as is_own:
            try:
                found: list[Ingested] | None = ray.get(ticket, timeout=0) if is_own else None
            except Exception as error:  # noqa: BLE001  the broadcaster's end, or that of the connection
                logger.debug("no reply from the broadcaster: %s", error)
                found = None
        if found is None:
            self._lose()
        return found

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call and wait."""
        self._look_at_s = 0.0
        with connection.kept() as is_own:
            handle = self._found(is_own=is_own)
            connection.require_own(method)
            if handle is None:
                raise NotConnectedError(f"no broadcaster is running in namespace {self._namespace!r}")
            reply = connection.reply_to(getattr(handle, method).remote(**arguments))
        try:
            return reply(timeout_s)
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

    def _found(self, *, is_own: bool) -> Any:
        """Return the broadcaster's handle, or None; where the connection is not ours, Ray would start one, or wait for ever."""
        if not is_own:
            self._lose()
        elif self._handle is None and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _FIND_S
            try:
                self._handle = ray.get_actor("broadcaster", namespace=self._namespace)
            except (ValueError, RayError):
                return None
        return self._handle

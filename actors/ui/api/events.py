"""Events of jobs that are not on Ray: checked by the wire's rules, acknowledged by the commit, so many a second a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import anyio

from actors import wire
from actors.replies import Broadcasted
from actors.ui.access import Visitor
from actors.ui.api import types
from actors.ui.api.operation import Asked, Operation
from actors.ui.api.problems import RefusedError, wrong
from actors.ui.api.rates import Rates

# Each waits in a thread for a commit; pages have threads of their own.
_CALLS: Final = 16
_RETRY_S: Final = 1.0


def operations(max_events_per_s: int, clock: Callable[[], float] = time.monotonic) -> tuple[Operation, ...]:
    """Return what posts events and what says where a producer goes on; they share one limit for each token."""
    posting = _Posting(Rates(max_events_per_s), clock)
    return (
        Operation(
            "POST", "/events", "events", "Count events; the answer comes after their commit", posting.do, Broadcasted,
            right="log", body=types.Events, packed=True, refuses=(400, 409, 413, 415, 422, 429),
            limiter=anyio.CapacityLimiter(_CALLS),
        ),
        Operation(
            "GET", "/sequence", "sequence", "The number of a producer's next event of a model", _sequence, types.SequenceShown,
            right="log", query=types.SequenceQuery, refuses=(409, 422),
        ),
    )  # fmt: skip


class _Posting:
    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self._rates, self._clock = rates, clock
        self._lock = threading.Lock()

    def do(self, asked: Asked) -> Broadcasted:
        body: types.Events = asked.body
        if (body.producer is None) != (body.sequence is None):
            missing = "producer" if body.producer is None else "sequence"
            raise wrong(422, missing, None, "must be given where the other of producer and sequence is")
        _need_system(asked)
        with self._lock:
            wait_s = self._rates.wait_s(_caller(asked.visitor), self._clock())
            if wait_s > 0:
                raise RefusedError(429, "more events than ui.max_events_per_s lets this token post", retry_in_s=wait_s)
            self._rates.spend(_caller(asked.visitor), len(body.events), self._clock())
        try:
            told = asked.backend.broadcast(body.events, body.producer, body.sequence)
        except ValueError as error:
            status = 409 if str(error).startswith("sequence must continue") else 422
            raise RefusedError(status, str(error)) from None
        if "status" in told:
            # A part may be counted: with a sequence the same call again counts nothing twice.
            raise RefusedError(
                503, f"the events could not all be taken: {told['status']}", retry_in_s=told.get("retry_in_s", _RETRY_S)
            )
        return told


def _need_system(asked: Asked) -> None:
    if asked.backend.system is None:
        raise RefusedError(409, "this API reads a store; events need a running system")


def _caller(visitor: Visitor) -> str:
    return f"{visitor.role} {visitor.name or ''}"


def _sequence(asked: Asked) -> types.SequenceShown:
    query: types.SequenceQuery = asked.query
    _need_system(asked)
    wire.check_model(query.model)
    return {"high_water": asked.backend.high_water(query.model, query.producer)}

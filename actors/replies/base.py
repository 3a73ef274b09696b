"""The common parts of all replies."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Unavailable(TypedDict):
    """The store cannot be reached now: nothing has changed, ask again after `retry_in_s`."""

    status: Literal["unavailable"]
    reason: str
    retry_in_s: float


class Reloaded(TypedDict):
    """The configuration has been read again."""

    status: Literal["reloaded"]


class Looked(TypedDict):
    """A source is read now."""

    status: Literal["looking"]


class Hello(TypedDict):
    """Who an actor is, what it speaks, and where it runs."""

    actor: str
    build: str
    epoch: int  # that every commit of it must find; 0 for an actor that owns nothing, and before it has opened its store
    schema: int  # of the store
    wire: int  # of packed batches: it takes these and older ones
    pid: int
    node: str
    boot_id: str
    problem: NotRequired[str]  # what keeps it from its work, as a port in use
    store_problem: NotRequired[str]  # a file that it has open was deleted or replaced, or became read-only

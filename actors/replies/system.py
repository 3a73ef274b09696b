"""The state of the whole system."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from actors.plain import Json


class ActorStatus(TypedDict):
    """One process; what does not answer is not alive."""

    pid: int | None
    node: str | None
    alive: bool
    epoch: int | None
    problem: NotRequired[str]  # what keeps it from its work, as its hello says
    store_problem: NotRequired[str]  # as its hello says


class Reload(TypedDict):
    """What a reload has changed: the actors that have read the new configuration, and why others have not yet, by name."""

    version: int
    changes: list[str]
    reloaded: list[str]
    problems: dict[str, str]


class StoredStatus(TypedDict):
    """What the store says of the state by itself, without any actor."""

    models: dict[str, Json]
    refused: Json
    clients: dict[str, Json]
    sources: dict[str, Json]  # by name: kind, state (new | ok | failing), problem, read, refused, rejected, waiting, last_at
    receivers: dict[str, Json]  # by name: state (new | ok | failing), problem, sent, failed, lost, waiting, retry_at, last_at
    unreadable: list[str]  # the rows of the store that cannot be read
    retrains: dict[str, int]
    tuner: dict[str, int]
    store_problem: NotRequired[str]  # the store did not answer, is not whole, or is another


class Status(StoredStatus):
    """The state of the system, as `System.status` returns it. Counts come from the store, not from memory."""

    namespace: str | None
    build: str | None
    storage: str
    pinned_to: str | None  # the node that holds a SQLite store
    actors: dict[str, ActorStatus]

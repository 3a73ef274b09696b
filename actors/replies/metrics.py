"""Replies about events: what became of batches and of raw events."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class Rejection(TypedDict):
    """Why one event was not counted; `index` counts within the call."""

    index: int
    field: str
    value: Any
    rule: str


class Ingested(TypedDict):
    """What became of one packed batch; every count is of events.

    `accepted`: it is counted, the commit has been. `gap`: it does not continue the producer's sequence, send from `high_water`.
    `refused`: it never will be. `busy` and `unavailable`: nothing has changed or the outcome is unknown; send the same again
    after `retry_in_s`.
    """

    status: Literal["accepted", "gap", "refused", "busy", "unavailable"]
    accepted: int
    duplicates: int
    rejected: list[Rejection]  # the first thousand of them; how many there are follows from the other counts
    high_water: int | None  # the next sequence number of the producer
    epoch: int  # of the process that replies: a reply of a lower epoch than one seen before counts nothing
    reason: NotRequired[str]
    retry_in_s: NotRequired[float]
    bad_values: NotRequired[int]  # of accepted events: no finite numbers, left out; `bad_value` is the first
    bad_value: NotRequired[Rejection]
    counted: NotRequired[bool]  # of a refused one: whether its model has counted the events as rejected


def ingested(
    status: Literal["accepted", "gap", "refused", "busy", "unavailable"],
    *,
    accepted: int = 0,
    duplicates: int = 0,
    rejected: list[Rejection] | None = None,
    high_water: int | None = None,
    epoch: int = 0,
    reason: str | None = None,
    retry_in_s: float | None = None,
) -> Ingested:
    """Return the reply to one packed batch.

    >>> ingested("busy", reason="too many bytes are in flight", retry_in_s=0.05)["accepted"]
    0
    """
    reply: Ingested = {
        "status": status,
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected": rejected or [],
        "high_water": high_water,
        "epoch": epoch,
    }
    if reason is not None:
        reply["reason"] = reason
    if retry_in_s is not None:
        reply["retry_in_s"] = retry_in_s
    return reply


class Broadcasted(TypedDict):
    """What became of raw events; counts are of events, an index counts within the call."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]
    bad_values: NotRequired[int]
    status: NotRequired[Literal["busy", "unavailable"]]  # nothing or only a part could be taken
    retry_in_s: NotRequired[float]
    models: NotRequired[dict[str, Ingested]]  # where only a part could be taken: what became of each model's events


class HighWater(TypedDict):
    """The next sequence number of a producer, 0 for an unknown one."""

    status: Literal["ok"]
    high_water: int

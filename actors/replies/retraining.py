"""Replies of the dispatcher."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from actors.plain import Json


class Recorded(TypedDict):
    """It is on record, now or already."""

    status: Literal["recorded"]


class Admitted(TypedDict):
    """What became of a request. A skipped one may ask again after `retry_in_s`; None: there is nothing to ask again for."""

    status: Literal["recorded"]
    decision: Literal["dispatched", "pending", "skipped"]
    order: str | None
    reason: str
    retry_in_s: float | None
    warning: NotRequired[str]  # of a person's request: the model has never logged


class Overtaken(TypedDict):
    """The order that expired because a new version has come, if one did."""

    status: Literal["recorded"]
    expired: str | None


class EndingRecorded(TypedDict):
    """Whether an ending is on record, or "stale" and why it is not."""

    status: Literal["recorded", "stale"]
    reason: str


class EventFields(TypedDict):
    """A RetrainEvent as plain values."""

    id: str
    model_name: str
    model_version: str
    metric: str
    observed_drift: float
    triggered_at: float
    episode: str
    explanation: Json


class TakenOrder(TypedDict):
    """An order as its consumer gets it."""

    id: str
    attempt: int
    requested_at: float
    event: EventFields


class Taken(TypedDict):
    """An order with its token and lease, "none", or "unavailable" where too many wait already."""

    status: Literal["order", "none", "unavailable"]
    order: NotRequired[TakenOrder]
    token: NotRequired[int]
    lease_s: NotRequired[float]
    reason: NotRequired[str]
    retry_in_s: NotRequired[float]


class Renewed(TypedDict):
    """The seconds of the renewed lease, or "lost" and why."""

    status: Literal["renewed", "lost"]
    lease_s: NotRequired[float]
    reason: NotRequired[str]


class SilenceMade(TypedDict):
    """The id of a silence that is in force now; a warning where it covers no model that has ever logged."""

    status: Literal["recorded"]
    silence: str
    warning: NotRequired[str]


class SilenceRow(TypedDict):
    """A silence in force; `model` is the pattern that it covers, `label` the selector, `by` the person who made it."""

    id: str
    model: str
    label: str
    comment: str
    by: str | None
    created_at: float
    remaining_s: float


class SilenceListing(TypedDict):
    """The silences in force."""

    status: Literal["ok"]
    silences: list[SilenceRow]


class OrderState(TypedDict):
    """How the order of a request stands, and what the new version promises."""

    order: str
    state: str
    reason: str
    new_version: str | None
    promise: float | None
    promise_n: float | None
    verdict: str | None


class ActRow(TypedDict):
    """A person's action on an order: triggered, retried, front or dismissed."""

    at: float
    act: str
    by: str | None
    comment: str | None


class OrderRow(TypedDict):
    """One order or decision of the history. Times are seconds since the epoch, or None."""

    id: str
    model: str
    version: str
    metric: str
    cause: str
    episode: str
    observed_drift: float | None
    lost: float | None
    price: float | None
    state: str
    reason: str
    handler: str
    requested_at: float
    dispatched_at: float | None
    finished_at: float | None
    attempts: int
    new_version: str | None
    promise: float | None
    promise_n: float | None
    promise_source: str | None
    verdict: str | None
    saved: float | None
    saved_error: float | None
    consumer: str | None
    acts: list[ActRow]


class OrderHistory(TypedDict):
    """The newest orders and decisions, oldest first."""

    status: Literal["ok"]
    rows: list[OrderRow]


class QueueRow(OrderRow):
    """An order that waits: its place in the line, from 1, and why it waits."""

    place: int
    why: str


class OrderQueue(TypedDict):
    """The orders that wait, the next one first, and how many run."""

    status: Literal["ok"]
    rows: list[QueueRow]


class AttemptRow(TypedDict):
    """One attempt of an order. Times are wall-clock seconds."""

    attempt: int
    handler: str
    consumer: str | None
    started_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


class OrderShown(OrderRow):
    """One order with its explanation, what a study found, and its attempts."""

    status: Literal["ok"]
    explanation: Json
    tuning: Json | None
    attempt_log: list[AttemptRow]


class CooldownListing(TypedDict):
    """The seconds that are left of every cooldown in force, by model; and the models that ask no more."""

    status: Literal["ok"]
    cooldowns: dict[str, float]
    gave_up: dict[str, int]

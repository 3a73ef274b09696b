"""Replies of the tuner."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from actors.plain import Json


class Submitted(TypedDict):
    """What `submit` did: a study of that name was begun, runs already, was taken up again, or has all its trials."""

    status: Literal["submitted", "running", "resumed", "done"]
    study: str
    name: str
    seed: int
    warnings: list[str]


class StudyEnded(TypedDict):
    """What `stop_study` and `delete_study` of the tuner did; `ended` where there was nothing to stop."""

    status: Literal["stopped", "ended", "deleted"]


class StudySummary(TypedDict):
    """State, counts and best trial of a study."""

    study: str
    name: str
    state: str
    error: str | None
    trials: int
    done: int
    counts: dict[str, int]
    workers: int
    best: int | None
    best_value: float | None
    mode: str
    seed: int
    space: Json
    strategy: str | Json
    first: int
    retry_in_s: NotRequired[float]  # too many callers wait already: ask again after this time


class StudyListing(TypedDict):
    """One study in the list of all."""

    study: str
    name: str
    state: str
    error: str | None
    created_at: float
    finished_at: float | None


class TrialRow(TypedDict):
    """One trial, parameters decoded."""

    id: int
    params: Json
    value: float | None
    state: str
    attempts: int
    error: str | None
    seconds: float | None
    node: str | None
    finished_at: float | None


Lease = list[Any]  # [trial, attempt, parameters as JSON]


class StepAnswered(TypedDict):
    """The answer to a worker's step: its new leases, and the trials among those it holds that are not worth finishing."""

    status: Literal["ok"]
    leases: list[Lease]
    ahead: bool
    stop: list[int]
    retry_in_s: NotRequired[float]  # it asked for leases and there are none now


class Gone(TypedDict):
    """The study has ended, or the worker counts as lost: it ends."""

    status: Literal["gone"]


class WorkerTerms(TypedDict):
    """The data that a worker needs to start."""

    objective: bytes
    executor: str
    seed: int
    context: Json | None
    timeout_s: float | None
    resources: dict[str, float] | None

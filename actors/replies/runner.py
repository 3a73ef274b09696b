"""Replies of the runner."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Launched(TypedDict):
    """What became of a `launch`; `instance` names the life of the runner that the task belongs to."""

    status: Literal["launched", "exists"]
    instance: str


class TaskState(TypedDict):
    """What became of a task."""

    state: Literal["running", "done", "failed", "unknown"]
    error: str | None
    result: Any


class TasksEnded(TypedDict):
    """Tasks that have ended, as [key, error or None]; ask again with `next`."""

    instance: str
    ended: list[list[str | None]]
    next: int


class TaskStatus(TypedDict):
    """What became of a `cancel` or a `forget`."""

    status: Literal["cancelled", "unknown", "forgotten", "running"]


class Capacity(TypedDict):
    """How many tasks of one shape the nodes could run at once, were they idle."""

    tasks: int

"""A happening, as a record: for notifications, the page and reports."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from actors.plain import Json

Severity = Literal["info", "warning", "critical"]
HappeningKind = Literal[
    "alarm",
    "warning",
    "recovered",
    "no_data",
    "order_launched",
    "order_done",
    "order_failed",
    "order_dead",
    "gave_up",
    "verdict",
    "promoted",
    "rolled_back",
    "acknowledged",
    "judged",
    "silenced",
    "triggered",
    "retried",
    "dismissed",
    "store_trouble",
    "actor_down",
]


class Happening(TypedDict):
    """One thing that happened. `id` is the same however often it is written; `recovered` has the `subject` that it closes."""

    id: str
    at: float
    kind: HappeningKind
    severity: Severity
    model: str | None
    version: str | None
    metric: str | None
    subject: str | None  # the id of an episode, an order, a study or a silence
    by: str | None
    comment: str | None
    data: Json


class NumberedHappening(Happening):
    """The same with the part that holds it, and its number there: a reader goes on after the last number that it has seen."""

    part: str
    number: int


def happening(
    kind: HappeningKind,
    key: str,
    at: float,
    severity: Severity = "info",
    *,
    model: str | None = None,
    version: str | None = None,
    metric: str | None = None,
    subject: str | None = None,
    by: str | None = None,
    comment: str | None = None,
    data: Json | None = None,
) -> Happening:
    """Return the record of one thing that happened; `key` tells it from all others of its kind.

    >>> happening("order_done", "o-1", 12.0, model="fraud", subject="o-1")["id"]
    'order_done:o-1'
    """
    return {
        "id": f"{kind}:{key}",
        "at": at,
        "kind": kind,
        "severity": severity,
        "model": model,
        "version": version,
        "metric": metric,
        "subject": subject,
        "by": by,
        "comment": comment,
        "data": data or {},
    }

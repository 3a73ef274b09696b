"""The happenings in a commit of a model's records: alarms, recoveries, and actions of people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from actors.replies import Decision, Episode, Happening, HappeningKind, Json, Severity, happening

_KINDS: Final[dict[str, tuple[HappeningKind, Severity]]] = {
    "open": ("alarm", "warning"),
    "close": ("recovered", "info"),
    "flag": ("warning", "warning"),
    "acknowledged": ("acknowledged", "info"),
    "judged": ("judged", "info"),
}
_REPEATED: Final = frozenset({"flag", "judged"})  # may be decided of an episode more than once


def in_records(records: Iterable[Episode], at: float) -> list[Happening]:
    """Return the decisions at `at`, the time of this commit, on the episodes that it writes."""
    return [
        _of(record, decision)
        for record in records
        for decision in record["decisions"]
        if decision["at"] == at and decision["decision"] in _KINDS
    ]


def _of(record: Episode, decision: Decision) -> Happening:
    what, at = decision["decision"], decision["at"]
    kind, severity = _KINDS[what]
    by = comment = None
    data: Json = {"why": decision["why"], "cause": record.get("cause", "alarm")}
    if what == "open":
        data["numbers"] = decision["numbers"]
    elif what == "close":
        data["closed_by"] = record["closed_by"]
    elif what == "acknowledged":
        by = record.get("acknowledged_by")
    elif what == "judged" and (judged := record.get("judged")) is not None:
        by, comment = judged["by"], judged["comment"]
        data["verdict"] = judged["verdict"]
    return happening(
        kind,
        f"{record['id']}:{at!r}" if what in _REPEATED else record["id"],
        at,
        severity,
        model=record["model"],
        version=record["version"],
        metric=record["metric"],
        subject=record["id"],
        by=by,
        comment=comment,
        data=data,
    )

"""What people say of a model's alarms, counted against the false alarms that it was allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection
from typing_extensions import TypedDict

from actors.config import Duration, Settings, format_duration
from actors.detection.stored import read_judgements

_DAY_S: Final = 86_400.0
# Three times the usual budget of one false alarm.
DAYS: Final = 90


class Judged(TypedDict):
    """The true and the false alarms of so many `days`; one false alarm is allowed in `stated`, like 30d or 10000 events."""

    true: int
    false: int
    days: int
    stated: str


def count(connection: Connection, now_s: float) -> dict[str, dict[str, int]]:
    """Return the verdicts of one part on the alarms of the 90 days before `now_s`, by model."""
    return read_judgements(connection, now_s - DAYS * _DAY_S)


def against_the_budget(counts: Mapping[str, Mapping[str, int]], settings: Settings) -> dict[str, Judged]:
    """Return the counts with what the configuration states of each model."""
    return {
        model: {"true": found["true"], "false": found["false"], "days": DAYS, "stated": _stated(settings, model)}
        for model, found in counts.items()
    }


def _stated(settings: Settings, model: str) -> str:
    budget = settings.for_model(model).false_alarm_every
    return format_duration(budget.seconds) if isinstance(budget, Duration) else f"{budget:g} events"

"""The types of the schema's values: each checks its input, and writes it out again in the same form."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from actors.checks import shown
from actors.config.seasons import Season, parse_season, written_season
from actors.config.values import Duration, format_duration, parse_duration

_TARGET: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _positive_duration(value: object) -> float:
    seconds = parse_duration(value)
    if not seconds >= 0.001:
        raise ValueError(f"must be at least 1ms, got {shown(value)}")
    return seconds


def _optional_duration(value: object) -> float | None:
    return None if value is None else _positive_duration(value)


def _false_alarms(value: object) -> float | Duration:
    if isinstance(value, str):
        return Duration(_positive_duration(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 100):
        raise ValueError(f"must be a number of events, 100 or more, or a duration like 30d, got {shown(value)}")
    return float(value)


def checked_target(value: str) -> str:
    """Return `module:name`; ValueError otherwise."""
    if not _TARGET.fullmatch(value):
        raise ValueError(f"must be 'module:name', got {shown(value)}")
    return value


def _printable(value: str) -> str:
    if not 1 <= len(value) <= 200 or _CONTROL.search(value):
        raise ValueError(f"must have 1 to 200 characters, none a control character, got {shown(value)}")
    return value


def _false_alarms_written(value: float | Duration) -> float | str:
    return format_duration(value.seconds) if isinstance(value, Duration) else value


def _optional_written(value: float | None) -> str | None:
    return None if value is None else format_duration(value)


# Seconds inside, written with their unit.
Seconds = Annotated[float, PlainValidator(parse_duration), PlainSerializer(format_duration)]
PositiveSeconds = Annotated[float, PlainValidator(_positive_duration), PlainSerializer(format_duration)]
OptionalSeconds = Annotated[float | None, PlainValidator(_optional_duration), PlainSerializer(_optional_written)]
FalseAlarms = Annotated[float | Duration, PlainValidator(_false_alarms), PlainSerializer(_false_alarms_written)]
SeasonEntry = Annotated[Season | int | None, PlainValidator(parse_season), PlainSerializer(written_season)]
Target = Annotated[str, AfterValidator(checked_target)]
Name = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One mapping of the document: unknown keys are errors, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

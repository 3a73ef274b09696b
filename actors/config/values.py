"""The values that a configuration is written in: durations, and references to the environment.

Durations are written with their unit (`30m`, `6h`, `90d`, `1h30m`) and are seconds inside. `${NAME}` in a text stands for a
variable of the environment. It stays a reference in the settings and in the store, and is expanded only where the value is
used (`expand`), so no secret is in a stored text, a status or a history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.checks import shown

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time where a number would mean something else: `false_alarm_every: 90d` beside `10000` events."""

    seconds: float


def parse_duration(value: object) -> float:
    """Return the seconds of a text like `30m`, `6h`, `90d`, `1h30m`; 0 stands for itself. ValueError otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    if not isinstance(value, str) or not _DURATION.fullmatch(value.replace(" ", "")):
        hint = ": add the unit" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        raise ValueError(f"must be a duration like 30m, 6h or 90d, got {shown(value)}{hint}")
    parts = _DURATION_PART.findall(value.replace(" ", ""))
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds <= _UNITS_S["d"] * 36525:
        raise ValueError(f"must be at most 100 years, got {shown(value)}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` as `parse_duration` reads it, in the largest unit that fits evenly."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds / _UNITS_S[unit]:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Put the environment's values in the place of `${NAME}`, in texts however deep. ValueError names a missing one."""

    def found(match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise ValueError(f"${{{match[1]}}}: the environment of this process has no {match[1]}") from None

    if isinstance(value, str):
        return REFERENCE.sub(found, value)
    if isinstance(value, Mapping):
        return {key: expand(item, environment) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [expand(item, environment) for item in value]
    return value

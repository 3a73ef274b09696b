"""Seasons by the calendar: the schema of `season`, and the phase of an event within its period, by the clocks of a zone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from actors.checks import shown
from actors.config.values import format_duration, parse_duration
from actors.drift.distinct import distinct
from actors.wire import Floats

_UTC: Final = "UTC"
_NAMED: Final = {"day": 86_400.0, "week": 7 * 86_400.0}
_SHORTEST_S, _LONGEST_S = 600.0, 31 * 86_400.0
_STEP_S: Final = 900.0  # clocks are set at whole quarters of an hour
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S, _LAST_S = -6.0e10, 2.5e11  # the range of datetime, less any offset


@dataclass(frozen=True, slots=True)
class Season:
    """A pattern that repeats every `period_s` by the clocks of `zone`.

    >>> Season(86_400.0, "Europe/Berlin").turns(np.array([1_784_930_400.0]))  # 2026-07-25, midnight in Berlin
    array([20659.])
    """

    period_s: float
    zone: str = _UTC

    def turns(self, times: Floats) -> Floats:
        """Return how many periods have passed at `times: float64[n]`, in seconds since the epoch; the rest is the phase."""
        if self.zone == _UTC:
            turns: Floats = times / self.period_s
            return turns
        quarters = np.floor(np.clip(times, _FIRST_S, _LAST_S) / _STEP_S)
        known, _ = distinct(quarters)
        offsets = np.array([_offset_s(self.zone, quarter) for quarter in known.tolist()])
        local: Floats = times + offsets[np.searchsorted(known, quarters)]
        return local / self.period_s

    def __str__(self) -> str:
        """Return the season as a person reads it."""
        name = next((name for name, period_s in _NAMED.items() if period_s == self.period_s), format_duration(self.period_s))
        return name if self.zone == _UTC else f"{name}, {self.zone}"


@functools.lru_cache(maxsize=4096)
def _offset_s(zone: str, quarter: float) -> float:
    moment = _EPOCH + timedelta(seconds=quarter * _STEP_S)
    return (moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()).total_seconds()


def parse_season(value: object) -> Season | int | None:
    """Return the season that is written as `day`, `week` or `{period: 24h, zone: Europe/Berlin}`; ValueError otherwise.

    A whole number is a number of events: it is for the detector.

    >>> parse_season({"period": "week", "zone": "Asia/Tokyo"})
    Season(period_s=604800.0, zone='Asia/Tokyo')
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, Season):
        return value
    if isinstance(value, str):
        return Season(_period_s(value))
    if not isinstance(value, Mapping) or "period" not in value or value.keys() - {"period", "zone"}:
        raise ValueError(f"must be day, week, a mapping of period and zone, or a whole number of events, got {shown(value)}")
    zone = value.get("zone", _UTC)
    check_zone(zone)
    return Season(_period_s(value["period"]), zone)


def written_season(season: Season | int | None) -> str | int | dict[str, str] | None:
    """Return a season as `parse_season` reads it."""
    if not isinstance(season, Season):
        return season
    period = next((name for name, period_s in _NAMED.items() if period_s == season.period_s), format_duration(season.period_s))
    if season.zone == _UTC and season.period_s in _NAMED.values():
        return period
    return {"period": period} if season.zone == _UTC else {"period": period, "zone": season.zone}


def _period_s(value: object) -> float:
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]
    try:
        period_s = parse_duration(value)
    except ValueError:
        raise ValueError(f"period must be day, week or a duration like 12h, got {shown(value)}") from None
    if not _SHORTEST_S <= period_s <= _LONGEST_S:
        raise ValueError(f"period must be from 10m to 31d, got {shown(value)}")
    return period_s


def check_zone(zone: object) -> None:
    """Raise ValueError where this machine knows no such time zone."""
    try:
        if not isinstance(zone, str):
            raise TypeError(zone)
        ZoneInfo(zone)
    except (TypeError, ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name is an OSError
        raise ValueError(f"zone must be a time zone known to this machine, like Europe/Berlin, got {shown(zone)}") from None

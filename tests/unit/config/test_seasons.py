"""`season` in the configuration: what may be written, what a model gets, and where in its period an event stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.config import Season, parse
from actors.config.reading import differences, document

DAY = 86_400.0


def watched(*layers: Any) -> Any:
    models = {"m": {"watch": {"load": layers[1]}}} if len(layers) > 1 else {}
    said = {"defaults": {"watch": {"load": layers[0]}}, "models": models}
    return parse(said, "test").for_model("m").watch["load"]


@pytest.mark.parametrize(
    ("said", "season"),
    [
        ("day", Season(DAY)),
        ("week", Season(7 * DAY)),
        ("12h", Season(DAY / 2)),
        ({"period": "24h"}, Season(DAY)),
        ({"period": "week", "zone": "Asia/Tokyo"}, Season(7 * DAY, "Asia/Tokyo")),
        (None, None),
    ],
)
def test_a_season_by_the_calendar_is_a_period_and_a_zone(said: Any, season: Season | None) -> None:
    got = watched({"season": said})
    assert (got.season, dict(got.options)) == (season, {})


def test_a_whole_number_is_of_events_and_an_option_of_the_detector() -> None:
    got = watched({"season": 24})
    assert (got.season, dict(got.options)) == (None, {"season": 24})


def test_the_more_specific_entry_takes_the_other_kind_s_place() -> None:
    assert watched({"season": 24}, {"season": "day"}).written() == {"detector": "default", "direction": "both", "season": "day"}
    assert watched({"season": "day"}, {"season": 24}).season is None
    assert watched({"season": "day"}, {"direction": "up"}).season == Season(DAY)
    assert watched({"season": "day"}, {"season": None}).season is None


def test_what_is_written_is_read_again() -> None:
    said = {"defaults": {"watch": {"load": {"season": {"period": "12h", "zone": "Europe/Berlin"}}}}}
    settings = parse(said, "test")
    assert differences(settings, parse(json.loads(document(settings)), "again")) == []


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("month", "period must be day, week or a duration like 12h, got 'month'"),
        ("1m", "period must be from 10m to 31d, got '1m'"),
        ({"period": "40d"}, "period must be from 10m to 31d, got '40d'"),
        ({"period": 0}, "period must be from 10m to 31d, got 0"),
        ({"zone": "UTC"}, "must be day, week, a mapping of period and zone, or a whole number of events"),
        ({"period": "day", "phase": 3}, "must be day, week, a mapping"),
        ({"period": "day", "zone": "Europe/Bärlin"}, "zone must be a time zone known to this machine, like Europe/Berlin"),
        ({"period": "day", "zone": "../../etc/passwd"}, "zone must be a time zone"),
        ({"period": "day", "zone": "Europe"}, "zone must be a time zone"),
        ({"period": "day", "zone": 2}, "zone must be a time zone"),
        (True, "must be day, week, a mapping"),
        (1.5, "must be day, week, a mapping"),
        (1, "season must be"),
    ],
)
def test_a_bad_season_is_named_with_its_path(said: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=r"test: defaults\.watch\.load") as raised:
        watched({"season": said})
    assert rule in str(raised.value)


@given(
    st.lists(st.floats(-3e9, 4e9), min_size=1, max_size=20),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]),
)
def test_the_phase_is_the_local_time_of_day(times: list[float], zone: str) -> None:
    turns = Season(DAY, zone).turns(np.array(times))
    for moment, turn in zip(times, turns.tolist(), strict=True):
        # Zones of long ago were set by the second; events then are none of the calendar's.
        local = datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone))
        if local.year < 1972:
            continue
        seconds = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
        assert abs((turn - np.floor(turn)) * DAY - seconds) % DAY == pytest.approx(0, abs=0.01) or seconds < 0.01


def test_times_without_a_calendar_do_no_harm() -> None:
    assert np.isfinite(Season(DAY, "Europe/Berlin").turns(np.array([-1e15, 0.0, 1e15]))).all()

"""The budget of a model: a duration becomes events by the rate that was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import wire
from actors.config import parse
from actors.detection.rules.monitor import Monitor

DAY_S = 86_400.0


def logged(events: int, every_s: float, false_alarm_every: str | int = "30d") -> Monitor:
    """Return a model that has logged `events` at equal distances, its rate looked at once."""
    monitor = Monitor(parse({"defaults": {"false_alarm_every": false_alarm_every}}, "test").for_model("m"))
    batch = wire.batch_of_columns(
        {"accuracy": np.full(events, 0.9)}, version="1", timestamps=np.arange(events) * every_s, now_s=0.0
    )
    monitor.take(batch, None, 0)
    monitor.follow_rate()
    return monitor


def budget_of(monitor: Monitor) -> float:
    return float(monitor.memory()["budget"])


@given(st.integers(12, 500), st.floats(0.05, 10 * DAY_S))
def test_the_stated_time_holds_and_no_more_than_its_double_is_given(events: int, every_s: float) -> None:
    budget = budget_of(logged(events, every_s))
    asked = max(30 * DAY_S * events / ((events - 1) * every_s), 300.0)
    assert asked * (1 - 1e-9) <= budget <= 2 * asked * (1 + 1e-9)


def test_a_dozen_daily_values_make_the_least_budget_of_a_duration() -> None:
    assert budget_of(logged(12, DAY_S)) == 300.0


def test_fewer_than_a_dozen_events_or_no_time_between_them_tell_no_rate() -> None:
    assert budget_of(logged(11, DAY_S)) == budget_of(logged(100, 0.0)) == 10_000.0


@pytest.mark.parametrize("asked", [100, 250, 10_000])
def test_a_number_of_events_is_taken_as_it_is(asked: int) -> None:
    assert budget_of(logged(500, 1.0, asked)) == asked

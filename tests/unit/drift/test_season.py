"""Seasons by the calendar: learned by time, through gaps and changing rates, without the level becoming part of them."""

from __future__ import annotations

import doctest
import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.drift import Seasonal, SeasonProfile, create, knots_of
from actors.drift.season import PERIODS


def pattern(turns: Any) -> Any:
    phase = turns - np.floor(turns)
    return 3.0 * np.sin(2 * np.pi * phase) + 2.0 * ((phase > 0.35) & (phase < 0.7))


def stream(n: int, *, seed: int = 0, kept: Any = 0.6) -> Any:
    """Return the times, in days, and values of hourly events of which two fifths are missing, a week at a time too."""
    rng = np.random.default_rng(seed)
    hours = np.arange(int(2 * n / kept) + 400)
    there = rng.random(len(hours)) < kept
    there[400:568] = False
    turns = 20_000.3 + hours[there][:n] / 24
    return turns, pattern(turns) + rng.standard_normal(n)


def test_the_pattern_is_learned_through_gaps() -> None:
    turns, values = stream(4000)
    profile = SeasonProfile(24)
    profile.learn(turns, values)
    profile.fit()
    hours = 5.0 + np.arange(240) / 240
    expected = pattern(hours) - pattern(hours).mean()
    assert np.sqrt(np.mean((profile.at(hours) - expected) ** 2)) < 0.35  # of 2.4; its steps are sharper than an hour
    assert profile.at(hours).mean() == pytest.approx(0, abs=1e-9)


def test_a_level_that_changes_between_periods_is_no_part_of_the_pattern() -> None:
    turns, values = stream(2400)
    flat, moved = SeasonProfile(24), SeasonProfile(24)
    flat.learn(turns, values)
    moved.learn(turns, values + 50.0 * np.floor(turns - 20_000))
    flat.fit()
    moved.fit()
    hours = np.arange(48) / 48
    assert moved.at(hours) == pytest.approx(flat.at(hours), abs=1e-6)


def test_a_season_is_no_drift_and_a_shift_is_found_as_soon_as_without_one() -> None:
    quiet, delays, bare = 0, [], []
    for seed in range(12):
        turns, values = stream(3000, seed=seed)
        quiet += not Seasonal(create("default")).update(values, turns)
        values[2500:] -= 1.5
        found = [a.index - 2500 for a in Seasonal(create("default")).update(values, turns) if a.index >= 2500]
        delays.append(found[0])
        bare.append(next(a.index - 2500 for a in create("default").update(values - pattern(turns)) if a.index >= 2500))
    assert quiet >= 9  # of 12; three false alarms in 36,000 events
    assert np.mean(delays) <= 1.5 * np.mean(bare) + 2


def test_many_events_an_hour_are_drift_every_day_unless_the_season_is_known() -> None:
    turns = np.arange(12_000) / 1000
    values = 3.0 * np.sin(2 * np.pi * turns) + np.random.default_rng(3).standard_normal(12_000)
    assert len(create("default").update(values)) > 20
    assert len(Seasonal(create("default")).update(values, turns)) <= 3


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=12), seed=st.integers(0, 5))
def test_the_cut_of_the_calls_does_not_matter_and_a_state_continues_exactly(cuts: Any, seed: int) -> None:
    turns, values = stream(1500, seed=seed)
    values[1200:] -= 3.0
    turns[700] -= 9.0  # one that comes late
    whole, cut = Seasonal(create("default")), Seasonal(create("default"))
    expected = [(a.index, a.statistic) for a in whole.update(values, turns)]
    assert expected
    found, at, i = [], 0, 0
    while at < len(values):
        part = slice(at, at + cuts[i % len(cuts)])
        found += [(at + a.index, a.statistic) for a in cut.update(values[part], turns[part])]
        again = Seasonal(create("default"))
        again.restore(cut.state())
        assert again.state() == cut.state()
        cut, at, i = again, part.stop, i + 1
    assert found == expected
    assert cut.state() == whole.state()


def test_while_it_learns_there_is_no_alarm_and_progress_says_so() -> None:
    detector = Seasonal(create("default"))
    turns = np.arange(72) / 24
    assert detector.update(np.where(np.arange(72) < 36, 0.0, 100.0), turns) == []
    assert detector.progress()["state"] == "learning"
    assert detector.progress()["seen"] == 72
    rng = np.random.default_rng(1)
    detector.update(rng.standard_normal(60), 3.0 + np.arange(60) / 24)
    assert detector.progress()["state"] == "stable"
    detector.reset()
    assert detector.progress()["seen"] == 0


def test_one_value_a_period_has_no_season() -> None:
    turns = np.arange(400.0)
    values = np.random.default_rng(2).standard_normal(400)
    values[300:] += 4.0
    seasonal = Seasonal(create("default")).update(values, turns)
    assert next(a.index for a in seasonal) in range(300, 306)


def test_a_gap_of_many_periods_is_none_to_the_pattern() -> None:
    turns, values = stream(800)
    turns[500:] += 1000.0
    assert Seasonal(create("default")).update(values, turns) == []


def test_the_state_is_small() -> None:
    turns, values = stream(9000)
    for knots, most in ((24, 45_000), (56, 60_000)):
        detector = Seasonal(create("default"), knots=knots)
        detector.update(values, turns / (7 if knots == 56 else 1))
        assert len(detector.state()) < most


def test_bad_input_is_named_and_changes_nothing() -> None:
    detector = Seasonal(create("default"))
    turns, values = stream(200)
    detector.update(values, turns)
    before = detector.state()
    for bad_values, bad_turns in (
        ([1.0], [math.nan]),
        ([1.0], [1.0, 2.0]),
        ([1.0, 2.0], [[1.0], [2.0]]),
        ([math.inf], [1.0]),
        ([1.0], ["x"]),
    ):
        with pytest.raises(ValueError, match=r"^(turns|values) must"):
            detector.update(bad_values, bad_turns)
    assert detector.state() == before
    with pytest.raises(ValueError, match="knots must be"):
        Seasonal(create("default"), knots=2)
    with pytest.raises(ValueError, match="period_s must be"):
        knots_of(0)
    with pytest.raises(ValueError, match="state must"):
        detector.restore(Seasonal(create("default"), knots=12).state())
    assert detector.state() == before


def test_a_week_has_more_knots_than_a_day() -> None:
    assert knots_of(PERIODS["week"]) > knots_of(PERIODS["day"]) == knots_of(3600)


def test_the_examples_hold() -> None:
    results = doctest.testmod(importlib.import_module("actors.drift.season"))
    assert results.attempted > 4
    assert results.failed == 0

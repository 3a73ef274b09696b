from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import config, wire
from actors.rehearsal import Rehearsal

DAY_S = 86_400.0
LEVELS = {"stable": 0.93, "fallen": 0.80, "lower": 0.65}


def stream(*levels: str, n: int = 600, seed: int = 0) -> wire.Floats:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.clip(rng.normal(LEVELS[each], 0.02, n), 0, 1) for each in levels])


def batch(values: wire.Floats, *, version: str = "v1", start_s: float = 0.0, step_s: float = 60.0) -> wire.Batch:
    times = start_s + step_s * np.arange(1, len(values) + 1)
    return wire.batch_of_columns({"accuracy": values}, version=version, timestamps=times, now_s=0.0)


def rehearse(*batches: wire.Batch, takes_s: float = 0.0, **defaults: Any) -> Any:
    said = {"watch": {"accuracy": {"direction": "both"}}, "cooldown": "30m", "false_alarm_every": 1_000_000} | defaults
    rehearsal = Rehearsal("m", config.parse({"defaults": said}, "test").for_model("m"), takes_s=takes_s)
    for each in batches:
        rehearsal.take(each)
    return rehearsal.outcome()


def test_a_stable_stream_asks_for_nothing() -> None:
    found = rehearse(batch(stream("stable", "stable")))
    assert found.summary() | {"alarms": 0, "episodes": 0, "retrains": 0} == found.summary()
    assert found.events == 1200


def test_each_new_level_is_one_retrain_and_says_how_late_it_was_seen() -> None:
    found = rehearse(batch(stream("stable", "fallen", "lower")))
    assert [each.ordered_at is not None for each in found.episodes] == [True, True]
    first = found.episodes[0]
    assert 600 * 60 < first.opened_at < 700 * 60
    assert 1 <= first.delay_events <= 100
    assert first.alarm["direction"] == "down"
    assert found.summary()["median_wait_s"] == 0.0


def test_a_long_cooldown_holds_the_second_back_until_it_is_over() -> None:
    values = batch(stream("stable", "fallen", "lower"), step_s=3600.0)  # 1,800 events: 75 days
    found = rehearse(values, cooldown="35d")
    first, second = found.episodes
    assert second.skips
    assert second.ordered_at is None or second.ordered_at - first.ordered_at >= 35 * DAY_S
    assert rehearse(values, cooldown="1h").episodes[1].skips == []


def test_an_open_order_holds_every_other_back_until_a_version_comes() -> None:
    slow = rehearse(batch(stream("stable", "fallen", "lower")), takes_s=1e9)
    assert slow.summary()["retrains"] == 1
    two = rehearse(
        batch(stream("stable", "fallen")),
        batch(stream("stable", "fallen", seed=1), version="v2", start_s=1200 * 60.0),
        takes_s=1e9,
    )
    assert [(each.version, each.closed_by) for each in two.episodes] == [("v1", "new version"), ("v2", None)]
    assert two.summary()["retrains"] == 2


def test_a_given_baseline_is_what_a_version_is_compared_with() -> None:
    sample = {"v1": {"accuracy": stream("stable")}}
    plain = config.parse({"defaults": {"watch": {"accuracy": {"direction": "down"}}}}, "test").for_model("m")
    with_sample, without = Rehearsal("m", plain, baselines=sample), Rehearsal("m", plain)
    for each in (with_sample, without):
        each.take(batch(stream("fallen")))
    assert [len(each.outcome().episodes) for each in (with_sample, without)] == [1, 0]


def test_rows_that_do_not_count_are_not_seen() -> None:
    values = stream("stable", "fallen")
    ok = np.arange(len(values)) < 600
    rehearsal = Rehearsal("m", config.Settings().for_model("m"))
    rehearsal.take(batch(values), ok, 10)
    assert rehearsal.outcome().events == 590
    assert rehearsal.outcome().episodes == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 17), max_size=6), st.sampled_from(["0s", "5h", "20h"]))
def test_two_orders_are_never_closer_than_the_cooldown_however_the_events_are_cut(hundreds: Any, cooldown: Any) -> None:
    values, times = stream("stable", "fallen", "lower"), 60.0 * np.arange(1, 1801)
    cuts = sorted({100 * each for each in hundreds})
    parts = zip(np.split(values, cuts), np.split(times, cuts), strict=True)
    batches = [wire.batch_of_columns({"accuracy": v}, version="v1", timestamps=t, now_s=0.0) for v, t in parts]
    found = rehearse(*batches, cooldown=cooldown)
    orders = sorted(each.ordered_at for each in found.episodes if each.ordered_at is not None)
    assert all(late - early >= config.parse_duration(cooldown) for early, late in pairwise(orders))
    whole = rehearse(batch(values), cooldown=cooldown)
    assert found.summary() == whole.summary()


def test_a_retrain_cannot_take_less_than_no_time() -> None:
    with pytest.raises(ValueError, match="takes_s must be >= 0, got -1"):
        Rehearsal("m", config.Settings().for_model("m"), takes_s=-1)

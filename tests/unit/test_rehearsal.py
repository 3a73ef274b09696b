from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import config, wire
from actors.detection.rules.promises import Promise
from actors.rehearsal import Rehearsal
from actors.retraining.rules.queue import Limits, Waiting
from actors.retraining.rules.timetable import Timetable

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


def weighed(*rates: float, n: int = 200, windows: int = 60, version: str = "v1", start_s: float = 0.0) -> wire.Batch:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.binomial(n, rate, windows) / n for rate in rates])
    times = start_s + 3600.0 * np.arange(1, len(values) + 1)
    return wire.batch_of_columns({"accuracy": values}, version=version, timestamps=times, now_s=0.0, n=n)


def rehearsal_of(**retrain: Any) -> Rehearsal:
    said = {"watch": {"accuracy": {"direction": "down"}}, "cooldown": "30m", "false_alarm_every": 1_000_000, "retrain": retrain}
    return Rehearsal("m", config.parse({"defaults": said}, "test").for_model("m"))


def promised(value: float = 0.87, n: float = 2500, version: str = "v1") -> Promise:
    return Promise(version, {"accuracy": value}, n, "cross_validation")


def test_the_rule_orders_when_a_retrain_pays_and_says_what_was_lost() -> None:
    rehearsal = rehearsal_of(price=200)
    rehearsal.promise(promised())
    rehearsal.take(weighed(0.87, 0.80))
    found = rehearsal.outcome()
    orders = [each for each in found.episodes if each.ordered_at is not None]
    assert {each.cause for each in orders} == {"shortfall"}
    assert orders[0].opened_at > 60 * 3600.0
    assert found.missing == []
    # 60 windows of 200 rows lose 7 points: 840 errors, of which chance takes some.
    assert found.errors_lost is not None
    assert 550 < found.errors_lost < 1000
    alarms = [each for each in found.episodes if each.cause == "alarm"]
    assert alarms
    assert all(each.ordered_at is None for each in alarms)  # they inform


@pytest.mark.parametrize("cuts", [1, 7, 60])
def test_the_rule_decides_the_same_however_the_events_are_cut(cuts: int) -> None:
    whole = weighed(0.87, 0.80)
    rehearsal = rehearsal_of(price=200)
    rehearsal.promise(promised())
    columns, weights = whole.columns["accuracy"].values, whole.weights
    assert weights is not None
    for start in range(0, whole.rows, cuts):
        part = {"accuracy": columns[start : start + cuts]}
        times = whole.times[start : start + cuts]
        rehearsal.take(wire.batch_of_columns(part, version="v1", timestamps=times, now_s=0.0, n=200))
    once = rehearsal_of(price=200)
    once.promise(promised())
    once.take(whole)
    keys = [(each.id, each.opened_at, each.ordered_at) for each in once.outcome().episodes if each.cause == "shortfall"]
    assert keys
    assert [(e.id, e.opened_at, e.ordered_at) for e in rehearsal.outcome().episodes if e.cause == "shortfall"] == keys


def test_without_a_promise_alarms_order_and_the_outcome_says_what_is_missing() -> None:
    rehearsal = rehearsal_of(price=200)
    rehearsal.take(weighed(0.87, 0.60))
    found = rehearsal.outcome()
    assert found.missing == ["promise"]
    assert [each.cause for each in found.episodes if each.ordered_at is not None] == ["alarm"]
    assert found.errors_lost is None


def test_a_version_of_age_is_retrained_and_never_when_nothing_is_asked_for() -> None:
    rehearsal = rehearsal_of(when="never", max_age="1d")
    rehearsal.take(weighed(0.87, 0.60))
    found = rehearsal.outcome()
    assert len(found.aged) == found.summary()["of_age"] == 4  # 120 hours
    assert all(later - earlier >= DAY_S for earlier, later in pairwise(found.aged))
    assert found.summary()["retrains"] == 4
    rehearsal = rehearsal_of(when="never")
    rehearsal.take(weighed(0.87, 0.60))
    assert rehearsal.outcome().summary()["retrains"] == 0


def test_orders_of_several_models_wait_in_one_queue_and_the_dearest_goes_first() -> None:
    rule = {"retrain": {"price": 25}, "cooldown": "1m"}
    queue = Timetable(Limits(max_running=1))
    settings = config.parse({"defaults": rule}, "test")
    models = {
        name: Rehearsal(name, settings.for_model(name), takes_s=3600.0, queue=queue) for name in ("first", "dear", "dearer")
    }
    for name, hits in (("first", [120]), ("dear", [160, 140]), ("dearer", [160, 60])):
        models[name].promise(Promise("v1", {"accuracy": 0.87}, 2500.0, "cross_validation"))
        for at_s, each in enumerate(hits):
            values = {"accuracy": np.array([each / 200])}
            times = np.array([100.0 + at_s])
            models[name].take(wire.batch_of_columns(values, version="v1", timestamps=times, now_s=0.0, n=np.array([200.0])))
    queue.advance(10_000.0)
    seen = {name: each.outcome().episodes[0] for name, each in models.items()}
    ordered_at = {name: each.ordered_at for name, each in seen.items()}
    started_at = {name: each.started_at for name, each in seen.items()}
    assert ordered_at == {"first": 100.0, "dear": 101.0, "dearer": 101.0}
    assert started_at == {"first": 100.0, "dearer": 3700.0, "dear": 7300.0}
    assert models["dear"].outcome().summary()["median_queue_s"] == 7199.0


def test_an_order_that_never_left_the_queue_is_no_retrain() -> None:
    queue = Timetable(Limits(max_running=1))
    queue.ask(Waiting("other"), at_s=0.0, takes_s=1e9, begin=lambda _at_s: None)
    settings = config.parse({"defaults": {"retrain": {"price": 25}}}, "test")
    rehearsal = Rehearsal("m", settings.for_model("m"), queue=queue)
    rehearsal.promise(Promise("v1", {"accuracy": 0.87}, 2500.0, "cross_validation"))
    values = {"accuracy": np.array([0.5])}
    rehearsal.take(wire.batch_of_columns(values, version="v1", timestamps=np.array([100.0]), now_s=0.0, n=np.array([200.0])))
    summary = rehearsal.outcome().summary()
    assert (summary["retrains"], summary["never_started"]) == (0, 1)

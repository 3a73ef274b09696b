"""When a stream is back at the level it had before an alarm."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.detection.rules.recovery import RecoveryWatch, events_needed
from actors.drift import NormalScoresGLR


def noise(n: int, seed: int = 0, level: Any = 0.9) -> Any:
    return level + 0.03 * np.random.default_rng(seed).standard_normal(n)


def alarm_of(drop: Any) -> Any:
    detector = NormalScoresGLR()
    detector.update(noise(1500))
    return detector.update(noise(4000, seed=1, level=0.9 - drop))[0]


@pytest.mark.parametrize("drop", [0.01, 0.03, 0.1])
def test_a_stream_that_stays_down_has_not_recovered_and_one_that_is_back_has(drop: Any) -> None:
    alarm = alarm_of(drop)
    for seed in range(20):
        watch = RecoveryWatch.after(alarm)
        assert not watch.update(noise(3000, seed=seed + 10, level=0.9 - drop))
        assert watch.update(noise(6 * watch.events, seed=seed + 40))


def test_overshooting_to_a_third_level_is_no_recovery() -> None:
    watch = RecoveryWatch.after(alarm_of(0.1))
    assert not watch.update(noise(2000, level=1.05))


def test_it_takes_at_least_twenty_events() -> None:
    watch = RecoveryWatch.after(alarm_of(0.5))
    assert not watch.update(noise(19))
    assert watch.update(noise(6 * watch.events))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.integers(0, 100))
def test_cuts_and_saving_do_not_matter(sizes: Any, seed: int) -> None:
    values = noise(sum(sizes), seed=seed)
    alarm = ALARM
    whole, cut = RecoveryWatch.after(alarm), RecoveryWatch.after(alarm)
    whole.update(values)
    at = 0
    for size in sizes:
        cut.update(values[at : at + size])
        cut = RecoveryWatch.from_dict(json.loads(json.dumps(cut.as_dict())))
        at += size
    assert cut.recovered == whole.recovered
    assert cut.level == pytest.approx(whole.level, rel=1e-12)


ALARM = alarm_of(0.05)


def test_recovery_from_a_wider_spread_is_judged_by_the_spread() -> None:
    detector = NormalScoresGLR(spread=True)
    detector.update(noise(2000))
    wide = noise(200, seed=3)
    alarm = detector.update(0.9 + 3 * (wide - 0.9))[0]
    assert alarm.extra["what"] == "spread"
    watch = RecoveryWatch.after(alarm)
    assert not watch.update(0.9 + 3 * (noise(800, seed=4) - 0.9))
    assert watch.update(noise(20 * watch.events, seed=5))


def test_noise_and_autocorrelation_ask_for_more_events() -> None:
    assert events_needed(shift=0.1, sd=0.03) < events_needed(shift=0.03, sd=0.03) < events_needed(shift=0.01, sd=0.03)
    assert events_needed(shift=0.03, sd=0.03, phi=0.5) == pytest.approx(3 * events_needed(shift=0.03, sd=0.03), abs=3)
    assert events_needed(shift=0.0, sd=0.0) == events_needed(shift=0.1, sd=0.0) == 20

"""Values of any size a float64 can have: what is no more than rounding is no change, and nothing overflows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.drift import create
from actors.drift.interface import Floats
from actors.drift.level_sums import LevelSums
from actors.drift.score_map import ScoreMap

NAMES = ["default", "cusum", "page-hinkley", "ewma", "sliding-window"]
SIZES = st.integers(-300, 299).map(lambda power: 10.0**power)
SIGNS = st.sampled_from([-1.0, 1.0])


def alarms(values: Floats, name: str = "default", *, parts: int = 7, **options: Any) -> list[int]:
    detector = create(name, **options)
    found, at = [], 0
    for part in np.array_split(values, parts):
        found += [at + alarm.index for alarm in detector.update(part)]
        at += len(part)
    again = create(name, **options)
    again.restore(detector.state())
    assert again.progress() == detector.progress()
    return found


@settings(max_examples=60, deadline=None)
@given(size=SIZES, sign=SIGNS, noise=st.floats(1e-16, 3e-11), seed=st.integers(0, 99), spread=st.booleans())
@example(size=1e6, sign=1.0, noise=1e-12, seed=0, spread=False)
def test_noise_below_a_billionth_of_the_level_is_no_change_to_the_default(
    size: float, sign: float, noise: float, seed: int, spread: bool
) -> None:
    values = sign * size * (1.0 + noise * np.random.default_rng(seed).standard_normal(1500))
    values[700:] *= 1.0 + 2e-10  # nor is a lasting shift of that size
    assert alarms(values, spread=spread) == []


@settings(max_examples=40, deadline=None)
@given(size=SIZES, sign=SIGNS, noise=st.sampled_from([0.0, 1e-12]))
def test_a_step_off_a_constant_is_found_at_any_size(size: float, sign: float, noise: float) -> None:
    values = sign * size * (1.0 + noise * np.random.default_rng(0).standard_normal(600))
    values[500:] *= 0.99
    (found,) = alarms(values)
    assert 500 <= found <= 520


@pytest.mark.parametrize("to", [5e-324, 1e-300, 1e-9, 1.0, 1e300, -1e300])
def test_whatever_is_not_zero_is_a_change_after_nothing_but_zeros(to: float) -> None:
    (found,) = alarms(np.concatenate((np.zeros(500), np.full(40, to))))
    assert 500 <= found <= 520


@settings(max_examples=60, deadline=None)
@given(power=st.integers(-1040, 995), level=st.sampled_from([0.0, 1.0, -3.0]), spread=st.booleans())
def test_the_default_finds_the_same_at_any_size(power: int, level: float, spread: bool) -> None:
    rng = np.random.default_rng(3)
    values = level + np.concatenate((0.03 * rng.standard_normal(600), 0.09 + 0.03 * rng.standard_normal(150)))
    values = np.round(values * 4096.0) / 4096.0  # of so few bits that the smallest numbers there are can hold them
    # As few bits below the smallest number as there are: multiplying by a power of two is exact down to 2**-1074.
    with np.errstate(under="ignore"):
        scaled = values * math.ldexp(1.0, power)
    assert alarms(scaled, spread=spread) == alarms(values, spread=spread) != []


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.floats(-1e308, 1e308),
            st.sampled_from([0.0, 5e-324, -5e-324, 1e-310, 1e-300, 1e-9, 1.0, 1.0 + 1e-12, 1e300, -1e300, 1.7e308]),
        ),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 9),
)
def test_no_mixture_of_sizes_overflows_or_depends_on_the_cut(name: str, values: list[float], seed: int) -> None:
    """Every warning is an error here, so an overflow would raise."""
    stream = np.random.default_rng(seed).choice(values, 260)
    assert alarms(stream, name, parts=1) == alarms(stream, name, parts=11) == alarms(stream, name, parts=260)


@settings(max_examples=60, deadline=None)
@given(power=st.integers(-1000, 990), rounding=st.sampled_from([0.0, 1e-9]), ties=st.booleans())
def test_one_score_is_the_score_of_a_batch_at_any_size(power: int, rounding: float, ties: bool) -> None:
    rng = np.random.default_rng(7)
    sample: Floats = 1.0 + (1e-10 * rng.integers(0, 5, 300).astype(np.float64) if ties else 0.1 * rng.standard_normal(300))
    unit = math.ldexp(1.0, power)
    learned, scores = ScoreMap.fit(sample * unit, cap=4.0, caution=0.0, rounding=rounding * unit)
    some = np.concatenate((sample[:50], [0.0, -2.0, 1.0 + 3e-9, 1.05, 300.0])) * unit
    some = np.concatenate((some, [1e300, -1e300, 5e-324]))
    again = ScoreMap.from_dict(learned.as_dict())
    assert learned.raw_scores(some).tolist() == [again.raw_score(value) for value in some.tolist()]
    assert learned.raw_scores(sample * unit).tolist() == scores.tolist()
    plain, _ = ScoreMap.fit(sample, cap=4.0, caution=0.0, rounding=rounding)
    assert learned.raw_scores(sample * unit) == pytest.approx(plain.raw_scores(sample))


def test_a_map_that_an_earlier_build_kept_is_read_as_it_was() -> None:
    learned, _ = ScoreMap.fit(np.random.default_rng(0).standard_normal(200), cap=4.0, caution=0.0)
    saved = learned.as_dict()
    del saved["unit"]
    assert ScoreMap.from_dict(saved).raw_score(0.3) == learned.raw_score(0.3)


@pytest.mark.parametrize("origin", [0.0, 1.0, 5e-324, 1e-300, 1e300])
def test_sums_of_squares_stay_finite_whatever_comes(origin: float) -> None:
    sums, one_by_one = LevelSums(), LevelSums()
    values = np.array([origin, 1e300, -1e300, 5e-324, 3.0])
    sums.begin(origin)
    one_by_one.begin(origin)
    sums.add(values)
    for value in values.tolist():
        one_by_one.add_one(value)
    assert sums.as_list() == one_by_one.as_list()
    mean, sd = sums.without(values[:1], n=5)
    assert np.isfinite([mean, sd]).all()

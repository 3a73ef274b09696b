"""The test that decides between two versions: its fairness term by term, its verdicts, what it refuses."""

from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.drift import ChallengerTest
from actors.drift.challenger import _EFFECTS, _SHARES, _won


def chance(hits: int, n: int, p: float) -> float:
    return math.comb(n, hits) * p**hits * (1 - p) ** (n - hits)


def verdict(p_a: float, p_b: float, *, seed: int, periods: int, n: int = 200) -> str:
    rng = np.random.default_rng(seed)
    test = ChallengerTest()
    for _ in range(periods):
        answer = test.update(hits_a=int(rng.binomial(n, p_a)), n_a=n, hits_b=int(rng.binomial(n, p_b)), n_b=n)
    return answer


@given(
    rate=st.floats(0.001, 0.999),
    effect=st.sampled_from([*_EFFECTS, *(-effect for effect in _EFFECTS)]),
    n=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    p=st.floats(0, 1),
    gap=st.floats(0, 1),
)
@settings(max_examples=300, deadline=None)
def test_no_bet_gains_while_its_side_is_not_the_better_one(
    rate: float, effect: float, n: tuple[int, int], p: float, gap: float
) -> None:
    n_a, n_b = n
    # Bet on better, b at most as good as a; bet on worse, b at least as good. Over every outcome of the period.
    p_a, p_b = (p, p * (1 - gap)) if effect > 0 else (p * (1 - gap), p)
    mean = sum(
        chance(a, n_a, p_a) * chance(b, n_b, p_b) * math.exp(_won(rate, effect, (a, n_a), (b, n_b)))
        for a in range(n_a + 1)
        for b in range(n_b + 1)
    )
    assert mean <= 1 + 1e-9


def test_the_stake_is_spread_over_the_bets() -> None:
    assert sum(_SHARES) == pytest.approx(1)
    assert len(_SHARES) == len(_EFFECTS)


def test_a_better_version_is_found_and_a_worse_one_is_called_worse() -> None:
    for seed in range(20):
        assert verdict(0.82, 0.87, seed=seed, periods=40) == "better"
        assert verdict(0.87, 0.82, seed=seed, periods=40) == "worse"


def test_versions_that_are_alike_stay_undecided_however_often_one_looks() -> None:
    verdicts = [verdict(0.86, 0.86, seed=seed, periods=200) for seed in range(200)]
    assert verdicts.count("undecided") >= 190 - 2 * math.sqrt(10)


def test_both_rates_may_drift_together() -> None:
    decided = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        test = ChallengerTest()
        for i in range(200):
            p = 0.75 + 0.2 * math.sin(i / 9)
            test.update(hits_a=int(rng.binomial(100, p)), n_a=100, hits_b=int(rng.binomial(100, p)), n_b=100)
        decided += test.verdict != "undecided"
    assert decided <= 5 + 2 * math.sqrt(5)


def test_a_canary_with_a_twentieth_of_the_rows_is_judged_too() -> None:
    rng = np.random.default_rng(4)
    test = ChallengerTest()
    for _ in range(100):
        test.update(hits_a=int(rng.binomial(1900, 0.87)), n_a=1900, hits_b=int(rng.binomial(100, 0.80)), n_b=100)
    assert test.verdict == "worse"


def test_a_verdict_is_final() -> None:
    test = ChallengerTest()
    while test.update(hits_a=150, n_a=200, hits_b=180, n_b=200) != "better":
        pass
    for _ in range(100):
        assert test.update(hits_a=200, n_a=200, hits_b=0, n_b=200) == "better"
    assert test.comparison().n_b >= 20_000


def test_a_state_continues_exactly() -> None:
    rng = np.random.default_rng(7)
    one, other = ChallengerTest(), ChallengerTest()
    for _ in range(60):
        period = {"hits_a": int(rng.binomial(50, 0.86)), "n_a": 50, "hits_b": int(rng.binomial(30, 0.9)), "n_b": 30}
        again = ChallengerTest()
        again.restore(other.state())
        other = again
        assert one.update(**period) == other.update(**period)
        assert one.state() == other.state()
        assert one.comparison() == other.comparison()
    assert len(one.state()) < 400
    with pytest.raises(ValueError, match="level"):
        ChallengerTest(level=0.01).restore(one.state())


@pytest.mark.parametrize("n", [1, 10**12])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_extreme_periods_break_nothing(n: int, share: float) -> None:
    test = ChallengerTest()
    for _ in range(50):
        test.update(hits_a=round(share * n), n_a=n, hits_b=round(share * n), n_b=n)
    assert test.verdict == "undecided"
    assert test.update(hits_a=0, n_a=10**12, hits_b=10**12, n_b=10**12) == "better"
    assert math.isfinite(test.comparison().for_better)


def test_a_period_of_one_version_says_nothing() -> None:
    test = ChallengerTest()
    test.update(hits_a=0, n_a=0, hits_b=90, n_b=100)
    test.update(hits_a=10, n_a=100, hits_b=0, n_b=0)
    found = test.comparison()
    assert [found.for_better, found.for_worse] == pytest.approx([1, 1])
    assert found.difference == pytest.approx(0.8)
    assert ChallengerTest().comparison().difference is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n_a": -1}, "n_a"),
        ({"n_b": math.nan}, "n_b"),
        ({"n_b": 2e12}, "n_b"),
        ({"n_a": 10.5}, "n_a"),
        ({"hits_a": 101}, "hits_a"),
        ({"hits_b": 33.3}, "hits_b"),
        ({"hits_b": -1}, "hits_b"),
        ({"hits_b": None}, "hits_b"),
    ],
)
def test_bad_periods_are_named_and_change_nothing(change: dict[str, object], field: str) -> None:
    test = ChallengerTest()
    period: dict[str, object] = {"hits_a": 80, "n_a": 100, "hits_b": 90, "n_b": 100}
    test.update(**period)  # type: ignore[arg-type]
    before = test.state()
    with pytest.raises(ValueError, match=f"^{field} must be"):
        test.update(**period | change)  # type: ignore[arg-type]
    assert test.state() == before


@pytest.mark.parametrize("level", [0, 0.6, math.nan, "5%"])
def test_a_bad_level_is_named(level: object) -> None:
    with pytest.raises(ValueError, match=r"^level must be"):
        ChallengerTest(level=level)  # type: ignore[arg-type]


def test_the_examples_hold() -> None:
    results = doctest.testmod(importlib.import_module("actors.drift.challenger"))
    assert results.attempted > 2
    assert results.failed == 0

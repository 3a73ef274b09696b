"""The retrain rule: its statistic against the plain definition, what it costs, and what it refuses."""

from __future__ import annotations

import doctest
import importlib
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.drift import BudgetPrice, Shortfall, whole_hits

PROMISE: dict[str, Any] = {"promised": 0.87, "promised_n": 2500, "price": 25.0}


def plain_lost(windows: list[tuple[int, int]], promised: float, promised_n: float, z: float = 2.0) -> float:
    """Return the definition, term by term: the maximum over all stretches that end at the last window."""
    v = max(promised * (1 - promised), 0.01)
    best, short, rows = -math.inf, 0.0, 0
    for hits, n in reversed(windows):
        rows += n
        short += promised * n - hits
        best = max(best, short - z * math.sqrt(v * rows * (1 + rows / promised_n)))
    return best


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[int, int]]:
    windows = []
    for _ in range(draw(st.integers(1, 6))):  # each with a rate and a size of its own
        rate = draw(st.sampled_from([0.0, 0.5, 0.8, 0.85, 0.87, 0.9, 1.0]))
        size = draw(st.sampled_from([1, 3, 50, 1000]))
        noise = np.random.default_rng(draw(st.integers(0, 2**32)))
        fixed = draw(st.booleans())
        length = draw(st.integers(1, 40))
        windows += [(round(rate * size) if fixed else int(noise.binomial(size, rate)), size) for _ in range(length)]
    return windows


@given(
    windows=_streams(),
    promised=st.sampled_from([0.0, 0.3, 0.5, 0.87, 1.0]) | st.floats(0, 1),
    promised_n=st.sampled_from([1, 40, 2500, 10**9]),
    z=st.sampled_from([0.0, 1.0, 2.0, 3.5]),
)
@settings(max_examples=300, deadline=None)
def test_lost_is_the_maximum_over_all_stretches(
    windows: list[tuple[int, int]], promised: float, promised_n: int, z: float
) -> None:
    rule = Shortfall(promised=promised, promised_n=promised_n, price=1, z=z)
    for i, (hits, n) in enumerate(windows, start=1):
        due = rule.update(hits, n, at=float(i))
        want = plain_lost(windows[:i], promised, promised_n, z)
        assert rule.lost == pytest.approx(want, rel=1e-9, abs=1e-9)
        assert due == (rule.lost >= 1) == rule.due
        stretch = rule.stretch
        assert stretch is not None
        assert stretch.rows == sum(n for _, n in windows[i - stretch.windows : i])
        assert stretch.hits == sum(hits for hits, _ in windows[i - stretch.windows : i])
        assert stretch.lost == rule.lost
        assert stretch.since == i - stretch.windows + 1


@given(
    windows=_streams(),
    cuts=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    price=st.sampled_from([0.5, 5.0, 50.0]),
    z=st.sampled_from([0.0, 2.0]),  # without a penalty the bound of the screen is the statistic itself
)
@settings(max_examples=200, deadline=None)
def test_many_windows_at_once_do_what_they_do_singly(
    windows: list[tuple[int, int]], cuts: list[int], price: float, z: float
) -> None:
    singly = Shortfall(promised=0.87, promised_n=2500, price=price, z=z)
    together = Shortfall(promised=0.87, promised_n=2500, price=price, z=z)
    at = 0
    while at < len(windows):
        part = windows[at : at + cuts[at % len(cuts)]]
        found = together.update_many([hits for hits, _ in part], [n for _, n in part], at=range(at, at + len(part)))
        first = None
        for i, (hits, n) in enumerate(part):
            if singly.update(hits, n, at=at + i) and first is None:
                first = (i, singly.stretch)
        assert found == first
        assert together.lost == singly.lost
        assert together.state() == singly.state()
        at += len(part)


@pytest.mark.parametrize("calls", [1, 7])
@pytest.mark.parametrize("rate", [0.87, 0.86, 0.7])
def test_a_long_column_does_what_its_windows_do_singly(rate: float, calls: int) -> None:
    hits = np.random.default_rng(5).binomial(40, rate, 20_000)
    singly, together = Shortfall(**PROMISE), Shortfall(**PROMISE)
    firsts = [i for i, each in enumerate(hits.tolist()) if singly.update(each, 40)][:1]
    found = [together.update_many(part, np.full(len(part), 40)) for part in np.array_split(hits, calls)]
    assert together.state() == singly.state()
    assert together.lost == singly.lost
    size = len(np.array_split(hits, calls)[0])
    assert [k * size + each[0] for k, each in enumerate(found) if each][:1] == pytest.approx(firsts, abs=calls)


@pytest.mark.parametrize("rate", [0.87, 0.868, 0.86, 0.84])
@pytest.mark.parametrize("n", [1, 10, 200])
def test_at_most_nine_starts_in_20_000_windows(rate: float, n: int) -> None:
    rule = Shortfall(promised=0.87, promised_n=2500, price=1e9)
    most = 0
    for hits in np.random.default_rng(n).binomial(n, rate, 20_000).tolist():
        rule.update(hits, n)
        most = max(most, rule.starts)
    assert most <= 9


def test_windows_that_are_all_alike_leave_few_starts() -> None:
    # Without the rule for a start between two others, each of the 1,500 windows would stay one.
    rule = Shortfall(promised=0.8715, promised_n=250_000, price=1e9)
    most = 0
    for _ in range(1500):
        rule.update(87, 100)
        most = max(most, rule.starts)
    assert most <= 2
    assert rule.lost == pytest.approx(plain_lost([(87, 100)] * 1500, 0.8715, 250_000), rel=1e-9)


def test_state_after_100_000_windows_is_small_and_continues_exactly() -> None:
    hits = np.random.default_rng(1).binomial(50, 0.865, 100_200)
    rule = Shortfall(**PROMISE)
    rule.update_many(hits[:100_000], np.full(100_000, 50))
    saved = rule.state()
    assert len(saved) <= 1024
    again = Shortfall(**PROMISE | {"price": 99})
    again.restore(saved)
    assert (again.lost, again.stretch, again.price) == (rule.lost, rule.stretch, 99)
    for each in hits[100_000:].tolist():
        rule.update(each, 50)
        again.update(each, 50)
        assert again.lost == rule.lost
    assert again.state() == rule.state()


def test_a_state_of_another_promise_is_refused_and_changes_nothing() -> None:
    rule = Shortfall(**PROMISE)
    rule.update(150, 200)
    before = rule.state()
    other = Shortfall(promised=0.9, promised_n=2500, price=25)
    with pytest.raises(ValueError, match="promised"):
        rule.restore(other.state())
    with pytest.raises(ValueError, match="state"):
        rule.restore(b"nothing")
    assert rule.state() == before


def test_an_update_takes_well_below_20_microseconds() -> None:
    hits = np.random.default_rng(2).binomial(50, 0.865, 5000).tolist()
    best = math.inf
    for _ in range(3):
        rule = Shortfall(**PROMISE)
        start = time.process_time()
        for each in hits:
            rule.update(each, 50)
        best = min(best, (time.process_time() - start) / len(hits))
    assert best <= 20e-6


def test_a_version_that_keeps_its_promise_is_left_alone_and_a_worse_one_is_not() -> None:
    good = np.random.default_rng(3).binomial(25, 0.87, 900)  # nine training sets
    worse = np.random.default_rng(3).binomial(25, 0.80, 900)
    columns = np.full(900, 25)
    assert Shortfall(**PROMISE).update_many(good, columns) is None
    found = Shortfall(**PROMISE).update_many(worse, columns)
    assert found is not None
    index, stretch = found
    assert 25 * index < 2500
    assert stretch.drift < -2
    assert stretch.rate == pytest.approx(0.80, abs=0.03)
    assert stretch.standard_error == pytest.approx(math.sqrt(0.87 * 0.13 * (1 / stretch.rows + 1 / 2500)))


def test_a_retrain_that_did_not_help_goes_on_losing() -> None:
    rule = Shortfall(**PROMISE)
    due = [rule.update(30, 50) for _ in range(50)]
    assert due[-1]
    assert due == sorted(due)


def test_the_price_may_change_at_any_time() -> None:
    rule = Shortfall(**PROMISE)
    rule.update(0, 40)
    lost = rule.lost
    assert not rule.due or lost >= 25
    rule.price = lost
    assert rule.due
    rule.price = lost + 0.1
    assert not rule.due
    with pytest.raises(ValueError, match="price must be > 0, got 0"):
        rule.price = 0
    assert rule.price == lost + 0.1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"promised": -0.1}, "promised"),
        ({"promised": 1.1}, "promised"),
        ({"promised": math.nan}, "promised"),
        ({"promised": None}, "promised"),
        ({"promised": True}, "promised"),
        ({"promised_n": 0}, "promised_n"),
        ({"promised_n": math.inf}, "promised_n"),
        ({"promised_n": None}, "promised_n"),
        ({"price": 0}, "price"),
        ({"price": -1}, "price"),
        ({"price": math.nan}, "price"),
        ({"price": math.inf}, "price"),
        ({"price": "1%"}, "price"),
        ({"price": 10**400}, "price"),
        ({"promised_n": 10**400}, "promised_n"),
        ({"z": -1}, "z"),
    ],
)
def test_bad_options_are_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Shortfall(**PROMISE | change)


@pytest.mark.parametrize(
    ("hits", "n", "field"),
    [
        (1, 0, "n"),
        (1, -5, "n"),
        (1, math.nan, "n"),
        (1, math.inf, "n"),
        (1, 1.1e12, "n"),
        (1, 10.5, "n"),
        (1, True, "n"),
        (1, "10", "n"),
        (10.5, 50, "hits"),
        (33.3, 100, "hits"),
        (-1, 50, "hits"),
        (51, 50, "hits"),
        (math.nan, 50, "hits"),
        (math.inf, 50, "hits"),
        (None, 50, "hits"),
    ],
)
def test_bad_windows_are_named_and_change_nothing(hits: Any, n: Any, field: str) -> None:
    rule = Shortfall(**PROMISE)
    rule.update(40, 50)
    before = rule.state()
    with pytest.raises(ValueError, match=f"^{field} must be"):
        rule.update(hits, n)
    if n is not True:  # a column of numbers holds no truth values
        with pytest.raises(ValueError, match=r"^(hits|n) "):
            rule.update_many([40, hits], [50, n])
    assert rule.state() == before


def test_bad_times_are_named_and_change_nothing() -> None:
    rule = Shortfall(**PROMISE)
    before = rule.state()
    wrong: list[Any] = [math.nan, "now", True]
    for bad in wrong:
        with pytest.raises(ValueError, match=r"^at must be"):
            rule.update(1, 2, at=bad)
    for column in ([1.0], [1.0, math.inf], ["a", "b"], 3.0):
        with pytest.raises(ValueError, match=r"^at must be a column of 2"):
            rule.update_many([1, 1], [2, 2], at=column)
    assert rule.state() == before


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Shortfall(**PROMISE).update_many([1, 2], [3])
    with pytest.raises(ValueError, match="window 1"):
        Shortfall(**PROMISE).update_many([1, 20], [3, 3])


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.float32, int, float])
def test_numbers_of_every_kind_are_taken(kind: type) -> None:
    rule, plain = Shortfall(**PROMISE), Shortfall(**PROMISE)
    assert rule.update(kind(40), kind(50)) == plain.update(40, 50)
    assert rule.state() == plain.state()
    numbers: dict[str, Any] = {"promised": np.float32(0.87), "promised_n": np.int64(2500), "price": np.float64(3)}
    Shortfall(**numbers)


def test_a_proportion_is_turned_into_whole_hits() -> None:
    for n in (1, 7, 200, 12_345, 10**6, 10**12):
        for hits in {0, 1, n // 3, n}:
            assert whole_hits(hits / n, n) == hits
    single: Any = np.float32(166 / 200)  # a number of numpy, as a column has them
    assert whole_hits(single, 200) == 166
    assert whole_hits(0.8333, 6) == 5
    for value, n in ((0.333, 100), (1.2, 10), (0.5, 0), (0.5, 1), (math.nan, 10)):
        with pytest.raises(ValueError, match=r"^(value|hits|n) must be"):
            whole_hits(value, n)


def test_the_largest_windows_cost_no_digits() -> None:
    rule = Shortfall(promised=0.5, promised_n=1e12, price=1)
    rule.update_many([5 * 10**11] * 10_000, [10**12] * 10_000)
    rule.update(0, 100)
    assert rule.hits == 5 * 10**15
    assert rule.rows == 10**16 + 100
    assert rule.lost == pytest.approx(50 - 2 * 0.5 * 10, rel=1e-9)


def test_a_budget_prices_a_retrain_by_the_plan() -> None:
    plan = BudgetPrice(promised_n=2500, every=30)
    assert plan.price(elapsed=0, retrains=0) == 75
    assert plan.price(elapsed=60, retrains=2) == pytest.approx(75)
    assert plan.price(elapsed=60, retrains=3) == pytest.approx(75 * math.e)
    assert plan.price(elapsed=60, retrains=1) == pytest.approx(75 / math.e)
    assert 0 < plan.price(elapsed=1e9, retrains=0) < 1e-9
    assert plan.price(elapsed=0, retrains=10**6) < math.inf
    for bad in ({"promised_n": 0, "every": 1}, {"promised_n": 10, "every": 0}, {"promised_n": 10, "every": math.nan}):
        with pytest.raises(ValueError, match="must be"):
            BudgetPrice(**bad)
    with pytest.raises(ValueError, match="elapsed must be"):
        plan.price(elapsed=-1, retrains=0)


def test_the_examples_hold() -> None:
    for name in ("shortfall", "windows"):
        results = doctest.testmod(importlib.import_module(f"actors.drift.{name}"))
        assert results.attempted > 5
        assert results.failed == 0

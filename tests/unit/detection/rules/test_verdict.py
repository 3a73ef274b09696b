"""Whether a retrain has paid: what it saved, against its price, by one yardstick."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.detection.rules.verdict import LONGEST_S, Payback


def a_payback(*, lost_per_row: float = 0.08, price: float = 30.0, z: float = 2.0) -> Payback:
    return Payback("a-r-1", promised=0.9, lost_per_row=lost_per_row, price=price, z=z, since=1000.0)


def test_a_version_that_keeps_the_old_promise_saves_what_the_old_one_lost() -> None:
    payback = a_payback()
    payback.add(hits=900, n=1000)
    saved, error, least = payback.savings()
    assert saved == pytest.approx(80.0)
    assert error == pytest.approx(math.sqrt(0.9 * 0.1 * 1000))
    assert least == pytest.approx(saved - 2 * error)


def test_it_has_paid_as_soon_as_the_least_it_saved_reaches_the_price() -> None:
    payback = a_payback()
    seen = []
    for _ in range(10):
        payback.add(hits=90, n=100)
        seen.append(payback.verdict(2000.0))
    first = seen.index("paid")
    assert first > 0
    assert seen[:first] == [None] * first


def test_a_version_as_bad_as_the_old_one_never_pays_and_did_not_after_ninety_days() -> None:
    payback = a_payback()
    payback.add(hits=82_000, n=100_000)
    assert payback.verdict(1000.0 + LONGEST_S - 1) is None
    assert payback.verdict(1000.0 + LONGEST_S) == "did not pay"


def test_the_next_order_closes_the_verdict() -> None:
    payback = a_payback()
    assert payback.closed() == "did not pay"
    payback.add(hits=900, n=1000)
    assert payback.closed() == "paid"


def test_nothing_is_saved_before_the_first_window() -> None:
    assert a_payback().savings() == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(50, 100)), max_size=20))
def test_memory_carries_all_of_it(windows: list[tuple[int, int]]) -> None:
    payback = a_payback()
    for hits, n in windows:
        payback.add(hits=hits, n=n)
    assert Payback.of_memory(payback.memory()) == payback


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(50, 100)), min_size=1, max_size=20))
def test_windows_count_the_same_one_by_one_or_together(windows: list[tuple[int, int]]) -> None:
    single, joined = a_payback(), a_payback()
    for hits, n in windows:
        single.add(hits=hits, n=n)
    joined.add(hits=sum(h for h, _ in windows), n=sum(n for _, n in windows))
    assert single.savings() == joined.savings()

"""Windows of predictions: all at once they are judged as one by one, and no sum loses a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.drift import whole_hits
from actors.drift.windows import CHUNK, Chunk, windows_of

_N = st.sampled_from([1.0, 2.0, 7.0, 200.0, 1e6, 1e12, 0.0, -3.0, 2.5, 1.1e12, float("nan"), float("inf")])
_VALUE = st.sampled_from([0.0, 0.5, 1.0, 1.2, -0.1, 0.3333, float("nan"), float("inf"), -float("inf")]) | st.floats(0, 1)


def judged_singly(value: float, n: float) -> int | None:
    try:
        return whole_hits(value, n)
    except ValueError:
        return None


@given(st.lists(st.tuples(_VALUE, _N), max_size=12), st.booleans())
@settings(max_examples=500, deadline=None)
def test_the_windows_that_can_be_judged_are_those_that_can_be_singly(pairs: list[tuple[float, float]], alike: bool) -> None:
    pairs = [(value, pairs[0][1]) for value, _ in pairs] if alike else pairs
    values, n = (np.array(column, dtype=np.float64) for column in (zip(*pairs, strict=True) if pairs else ([], [])))
    with np.errstate(invalid="ignore", over="ignore"):
        windows, good = windows_of(values, n)
    wanted = [judged_singly(value, of) for value, of in pairs]
    assert [hits is not None for hits in wanted] == (len(pairs) * [True] if good is None else good.tolist())
    assert windows.hits.tolist() == [hits for hits in wanted if hits is not None]
    assert windows.n.tolist() == [of for (_, of), hits in zip(pairs, wanted, strict=True) if hits is not None]
    assert windows.each is None or set(windows.n.tolist()) == {windows.each}


@pytest.mark.parametrize("n", [np.full(3 * CHUNK, 1e12), np.where(np.arange(3 * CHUNK) % 2, 1e12, 1e12 - 1)])
def test_sums_of_the_largest_windows_lose_no_row(n: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    windows, good = windows_of(np.ones(len(n)), n)
    assert good is None
    rows = sum(int(each) for each in n.tolist())
    assert windows.totals() == (rows, rows)
    first = windows.part(0, CHUNK)
    assert Chunk(first, 0.5).before(CHUNK) == first.totals()

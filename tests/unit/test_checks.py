"""What every border relies on: numbers of any library, sizes bounded without encoding, values shown whatever they are."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.checks import bounded, finite, plain, shown, whole
from tests.speed import slow

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("value", [3, np.int8(3), np.int64(3), np.uint32(3), np.array(3)])
def test_a_whole_number_of_any_library_is_one(value: Any) -> None:
    assert type(whole("n", value, 1, 5)) is int
    assert whole("n", value, 1, 5) == 3


@pytest.mark.parametrize("value", [0, 6, 3.0, np.float64(3), True, np.bool_(1), "3", None, [3], Broken()])
def test_what_is_no_whole_number_within_the_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="n must be a whole number from 1 to 5, got"):
        whole("n", value, 1, 5)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.array(2), 2.0),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
        (True, None),
        (np.bool_(1), None),
        ("1", None),
        (None, None),
        (np.array([1.0]), None),
        (np.ma.masked, None),  # what the mean of masked values is; the number in it is 0.0
        (np.ma.array(3.0, mask=True), None),
        (np.ma.array(3.0, mask=False), 3.0),
    ],
)
def test_a_finite_number_is_a_float_and_nothing_else_is(value: Any, number: float | None) -> None:
    assert finite(value) == number


@given(JSON)
def test_what_is_plain_already_stays_what_it_is(value: Any) -> None:
    assert json.dumps(plain(value)) == json.dumps(value)


def test_numpy_at_any_depth_becomes_what_json_knows() -> None:
    value = {"a": np.int64(1), "b": [np.float32(0.5), (np.bool_(1),)], "c": np.arange(3), np.str_("d"): np.str_("e")}
    assert plain(value) == {"a": 1, "b": [0.5, (True,)], "c": [0, 1, 2], "d": "e"}
    assert json.dumps(plain(value))


@given(JSON)
def test_the_size_without_encoding_is_near_the_size_as_json(value: Any) -> None:
    size = len(json.dumps(value, ensure_ascii=False))
    bounded("value", value, 20 * size + 100)
    if size > 400:
        with pytest.raises(ValueError, match="at most"):
            bounded("value", value, size // 40)


def test_a_value_far_beyond_its_bound_costs_no_more_than_the_bound() -> None:
    huge = {"x": {"choices": list(range(1_000_000))}, "y": ["z" * 1000] * 100_000}
    began_s = time.process_time()
    for _ in range(20):
        with pytest.raises(ValueError, match="plan must be at most 1000 bytes"):
            bounded("plan", huge, 1000)
    assert time.process_time() - began_s < slow(0.2)


def test_a_value_that_contains_itself_or_is_nested_too_deep_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="nested at most 100 levels"):
        bounded("plan", ring, 10_000)


@pytest.mark.parametrize(
    "value", ["x" * 10_000, list(range(100_000)), {"a": ["b" * 5000]}, 10**5000, Broken(), b"\0" * 999], ids=range(6)
)
def test_whatever_is_shown_is_short(value: Any) -> None:
    assert 0 < len(shown(value)) <= 80

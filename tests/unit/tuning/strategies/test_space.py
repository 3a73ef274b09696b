from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tuning.strategies.space import Choices, FloatRange, IntRange, parse

BAD: list[tuple[object, str]] = [
    ("not a space", "space must be a mapping"),
    (None, "space must be a mapping"),
    ([["lr", [0, 1]]], "space must be a mapping"),
    ({}, "at least one parameter"),
    ({1: [0, 1]}, "a parameter's name"),
    ({"": [0, 1]}, "a parameter's name"),
    ({"lr": 3}, "must be a pair"),
    ({"lr": "01"}, "must be a pair"),
    ({"lr": [1]}, "must be a pair"),
    ({"lr": [0, 1, 2]}, "followed by 'log' or 'int'"),
    ({"lr": [1, 2, "log", "log"]}, "followed by 'log' or 'int'"),
    ({"lr": ["0", 1]}, "min must be a number"),
    ({"lr": [0, None]}, "max must be a number"),
    ({"lr": [False, True]}, "min must be a number"),
    ({"lr": [0, math.nan]}, "max must be finite"),
    ({"lr": [-math.inf, 0]}, "min must be finite"),
    ({"lr": [0, 10**400]}, "max must be finite"),
    ({"lr": [1, 1]}, "min must be below max"),
    ({"lr": [2, 1]}, "min must be below max"),
    ({"lr": [-1.7e308, 1.7e308]}, "width"),
    ({"lr": [0, 1, "log"]}, "above 0 with 'log'"),
    ({"lr": [-1, 1, "log"]}, "above 0 with 'log'"),
    ({"n": [0.5, 3, "int"]}, "whole number with 'int'"),
    ({"n": [0, 2**60, "int"]}, "between -2**53 and 2**53"),
    ({"c": {"choices": []}}, "at least one value"),
    ({"c": {"choices": "abc"}}, "at least one value"),
    ({"c": {"choices": [1, 2, 1]}}, "twice"),
    ({"c": {"choices": [{1, 2}]}}, "every choice"),
    ({"c": {"choices": [(1, 2)]}}, "every choice"),
    ({"c": {"choices": [math.nan]}}, "every choice"),
    ({"c": {"choices": [{1: 2}]}}, "every choice"),
    ({"c": {"options": [1]}}, "nothing else"),
]


@pytest.mark.parametrize(("space", "rule"), BAD)
def test_a_bad_space_is_refused_with_the_rule(space: object, rule: str) -> None:
    with pytest.raises(ValueError, match="space") as refused:
        parse(space)
    assert rule in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_a_user_may_write() -> None:
    space = parse(
        {
            "a": [0, 1],
            "b": (1e-5, 1e-2, "log"),
            "c": [1, 8, "int"],
            "d": [1, 1024, "int", "log"],
            "e": {"choices": ["x", 1, 1.0, True, None, [1, 2], {"k": "v"}]},
            "f": [np.float32(0.5), Fraction(3, 2)],
            "g": [np.int64(1), 2.0, "int"],
        }
    )
    kinds = [type(parameter) for parameter in space.parameters]
    assert kinds == [FloatRange, FloatRange, IntRange, IntRange, Choices, FloatRange, IntRange]
    assert parse(json.loads(json.dumps(space.document()))) == space


def test_three_decades_sampled_uniformly_are_worth_a_warning() -> None:
    assert parse({"lr": [1e-5, 1e-2]}).warnings()[0].startswith("space['lr']")
    assert parse({"lr": [1e-5, 1e-2, "log"], "x": [1e-5, 0.9e-2], "y": [-1, 1000]}).warnings() == []


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
position = st.floats(0, 1)


@given(st.tuples(finite, finite).filter(lambda pair: pair[0] < pair[1]), position)
def test_a_float_stays_within_its_bounds(bounds: tuple[float, float], x: float) -> None:
    parameter = parse({"p": list(bounds)}).parameters[0]
    assert bounds[0] <= parameter.at(x) <= bounds[1]


@given(st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)).filter(lambda pair: pair[0] < pair[1]), position)
def test_a_logarithmic_float_stays_within_its_bounds(bounds: tuple[float, float], x: float) -> None:
    parameter = parse({"p": [*bounds, "log"]}).parameters[0]
    assert bounds[0] <= parameter.at(x) <= bounds[1]


@given(st.integers(-(2**52), 2**52), st.integers(1, 2**50), position, st.booleans())
def test_a_whole_number_stays_within_its_bounds(low: int, width: int, x: float, log: bool) -> None:
    low = abs(low) + 1 if log else low
    parameter = parse({"p": [low, low + width, "int", *(["log"] if log else [])]}).parameters[0]
    value = parameter.at(x)
    assert isinstance(value, int)
    assert low <= value <= low + width


def test_whole_numbers_include_both_ends_equally() -> None:
    parameter = parse({"p": [1, 4, "int"]}).parameters[0]
    found = [parameter.at((i + 0.5) / 400) for i in range(400)]
    assert {value: found.count(value) for value in set(found)} == {1: 100, 2: 100, 3: 100, 4: 100}

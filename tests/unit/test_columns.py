"""What people hand over as numbers, columns and times."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from actors import columns

NOON = 1_795_003_200.0
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  the very thing that is refused
AWARE = datetime.fromtimestamp(NOON, tz=UTC)


class Tensor:
    """As much of a torch tensor as is used: one element, a type, perhaps a gradient."""

    def __init__(self, *values: float) -> None:
        self._values = values
        self.dtype = "torch.float32"

    def item(self) -> float:
        if len(self._values) != 1:
            raise RuntimeError("a Tensor with several elements cannot be converted to a Scalar")
        return self._values[0]

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values, dtype=np.float32)


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        np.float16(0.5),
        np.float32(0.5),
        np.array(0.5),
        np.array(0.5, dtype=np.float16),
        Tensor(0.5),
        pd.Series([0.5]).iloc[0],
        pd.array([0.5], dtype="Float64")[0],
        pl.Series([0.5])[0],
    ],
)
def test_a_number_of_any_library_is_a_number(value: Any) -> None:
    assert columns.number(value) == 0.5
    assert type(columns.number(value)) is float


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), pd.array([3], dtype="Int64")[0]])
def test_a_whole_number_of_any_library_is_a_number(value: Any) -> None:
    assert columns.number(value) == 3


@pytest.mark.parametrize(
    "value",
    [
        True,
        "0.5",
        b"0.5",
        None,
        [0.5],
        np.array([0.5]),
        np.array([0.5, 0.6]),
        Tensor(0.5, 0.6),
        1j,
        np.complex64(1),
        {},
        np.timedelta64(3, "s"),
        np.datetime64("2026-01-01"),
        np.array("x"),
        timedelta(1),
        Decimal("0.5"),
        pd.Series([0.5, 0.6]),
    ],
)
def test_what_is_no_single_number_is_none(value: Any) -> None:
    assert columns.number(value) is None


def test_a_bool_of_numpy_is_a_number_and_one_of_python_is_not() -> None:
    assert (columns.number(np.bool_(True)), columns.number(np.array(False)), columns.number(True)) == (1, 0, None)


@pytest.mark.parametrize("value", [None, np.ma.masked, np.ma.array(3.0, mask=True), pd.NA])
def test_what_a_library_masks_is_absent_and_no_number(value: Any) -> None:
    assert columns.is_absent(value)
    assert columns.number(value) is None
    assert not columns.is_absent(math.nan)


@pytest.mark.parametrize(
    "value",
    [
        [0.0, 1.0, 2.0],
        (0, 1, 2),
        range(3),
        np.arange(3, dtype=np.int8),
        np.arange(3, dtype=np.float16),
        pd.Series([0, 1, 2]),
        pd.Series([0, 1, 2], dtype="Int16"),
        pd.array([0.0, 1.0, 2.0], dtype="Float32"),
        pd.Index([0, 1, 2]),
        pl.Series([0, 1, 2]),
        pl.Series([0.0, 1.0, 2.0], dtype=pl.Float32),
        np.ma.masked_array([0.0, 1.0, 2.0]),
        Tensor(0.0, 1.0, 2.0),
    ],
)
def test_a_column_of_any_library_is_float64(value: Any) -> None:
    values, present = columns.column("loss", value)
    assert (str(values.dtype), values.tolist(), present is None) == ("float64", [0.0, 1.0, 2.0], True)


@pytest.mark.parametrize(
    "value",
    [
        np.array([True, False]),
        pd.Series([True, False]),
        pd.Series([True, False], dtype="boolean"),
        pl.Series([True, False]),
    ],
)
def test_a_column_of_bools_of_a_library_is_of_ones_and_zeros(value: Any) -> None:
    assert columns.column("correct", value)[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([0.5, 9.0, 0.7], mask=[False, True, False]),
        pd.Series([0.5, None, 0.7], dtype="Float64"),
        pd.Series([1, None, 1], dtype="Int64"),
        pl.Series([0.5, None, 0.7]),
        pl.Series([1, None, 1]),
        pl.Series([True, None, True]),
    ],
)
def test_what_a_column_masks_is_absent(value: Any) -> None:
    values, present = columns.column("loss", value)
    assert present is not None
    assert present.tolist() == [True, False, True]
    assert np.isfinite(values).all()


def test_a_nan_is_a_value_and_not_absent() -> None:
    for value in ([0.5, math.nan], pd.Series([0.5, math.nan]), pl.Series([0.5, math.nan])):
        values, present = columns.column("loss", value)
        assert present is None
        assert math.isnan(values[1])


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("0.5", "got a text"),
        ([True, False], "dtype bool"),
        (["0.5"], "dtype"),
        (np.array([0.5, None], dtype=object), "dtype object"),
        (np.array(0.5), "one dimension, got 0"),
        ([[0.5]], "one dimension, got 2"),
        ([[1], [1, 2]], "column of numbers"),
        (np.array([1], dtype="timedelta64[s]"), "dtype timedelta64"),
        (np.array(["2026-01-01"], dtype="datetime64[s]"), "dtype datetime64"),
        (pd.Series([pd.Timedelta("1s")]), "dtype timedelta64"),
        (pl.Series(["a"]), "dtype"),
        (pd.Series(["a"]), "dtype"),
    ],
)
def test_what_is_no_column_of_numbers_raises_and_names_the_column(value: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^loss must .*{rule}"):
        columns.column("loss", value)


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        int(NOON),
        np.int64(NOON),
        np.array(NOON),
        AWARE,
        AWARE.astimezone(timezone(timedelta(hours=5, minutes=30))),
        pd.Timestamp(NOON, unit="s"),
        pd.Timestamp(NOON, unit="s", tz="Europe/Berlin"),
        np.datetime64(int(NOON), "s"),
        np.array(int(NOON * 1000), dtype="datetime64[ms]"),
    ],
)
def test_a_time_of_any_library_is_seconds_since_the_epoch(value: Any) -> None:
    assert columns.seconds(value) == NOON


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), "now", NAIVE, timedelta(1), np.timedelta64(1, "s"), pd.Timedelta("1s"), None, []]
)
def test_what_is_no_time_is_none(value: Any) -> None:
    assert columns.seconds(value) is None


def test_a_missing_time_is_a_bad_value() -> None:
    assert math.isnan(columns.seconds(pd.NaT) or 0.0)
    assert math.isnan(columns.seconds(np.datetime64("NaT")) or 0.0)


@pytest.mark.parametrize(
    "value",
    [
        [NOON, NOON + 0.5],
        [AWARE, AWARE + timedelta(milliseconds=500)],
        np.array([NOON, NOON + 0.5]),
        np.array([int(NOON * 1000), int(NOON * 1000) + 500], dtype="datetime64[ms]"),
        pd.Series(pd.to_datetime([NOON, NOON + 0.5], unit="s")),
        pd.DatetimeIndex(pd.to_datetime([NOON, NOON + 0.5], unit="s", utc=True)).tz_convert("Asia/Tokyo"),
        pd.Series(pd.to_datetime([NOON, NOON + 0.5], unit="s", utc=True)),
        pl.Series([AWARE, AWARE + timedelta(milliseconds=500)]),
        pl.Series([AWARE.replace(tzinfo=None), AWARE.replace(tzinfo=None) + timedelta(milliseconds=500)]),
    ],
)
def test_a_column_of_times_of_any_library_is_seconds_since_the_epoch(value: Any) -> None:
    assert columns.times("timestamps", value).tolist() == [NOON, NOON + 0.5]


@pytest.mark.parametrize(
    "value",
    [
        [True, True],
        np.array([True]),
        ["now"],
        [NAIVE],
        np.array([1], dtype="timedelta64[s]"),
        pd.Series([pd.Timedelta("1s")]),
        pd.Series([1.0, None], dtype="Float64"),
    ],
)
def test_what_is_no_column_of_times_raises(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^timestamps must"):
        columns.times("timestamps", value)

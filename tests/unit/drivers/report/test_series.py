"""A metric over time in a bounded number of points."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drivers.report.series import Series

VALUES = st.lists(st.tuples(st.floats(0, 1e8), st.floats(-1e3, 1e3)), min_size=1, max_size=60)


@given(rows=VALUES, pieces=st.integers(1, 5))
def test_points_are_bounded_and_keep_mean_least_and_greatest_however_the_log_is_cut(
    rows: list[tuple[float, float]], pieces: int
) -> None:
    series = Series()
    times, values = np.array([at for at, _ in rows]), np.array([value for _, value in rows])
    for part in np.array_split(np.arange(len(rows)), pieces):
        series.take(times[part], values[part])
    points = series.points()
    assert len(points) <= 402
    assert series.events == len(rows)
    assert min(point.low for point in points) == values.min()
    assert max(point.high for point in points) == values.max()
    assert all(point.low - 1e-9 <= point.mean <= point.high + 1e-9 for point in points)
    assert [point.at for point in points] == sorted(point.at for point in points)


def test_values_that_are_no_numbers_are_left_out() -> None:
    series = Series()
    series.take(np.array([0.0, 1.0, np.nan]), np.array([np.nan, 2.0, 3.0]))
    assert [(point.mean, point.low, point.high) for point in series.points()] == [(2.0, 2.0, 2.0)]

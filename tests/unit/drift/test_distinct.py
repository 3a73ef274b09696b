"""The distinct values of a sample, against numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.drift.distinct import distinct


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0]), min_size=1))
def test_they_are_numpy_s(sample: list[float]) -> None:
    values, counts = distinct(np.array(sample))
    expected = np.unique(np.array(sample), return_counts=True)
    assert values.tolist() == expected[0].tolist()
    assert counts.tolist() == expected[1].tolist()

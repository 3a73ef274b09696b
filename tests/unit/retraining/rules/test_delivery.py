from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.retraining.rules.delivery import Backoff


class Fixed:
    def __init__(self, value: Any) -> None:
        self.value = value

    def random(self) -> Any:
        return self.value


def test_pauses_double_up_to_the_ceiling_and_then_end() -> None:
    backoff = Backoff(first_s=1.0, ceiling_s=10.0, max_failures=6)
    longest = [backoff.delay_s(n, Fixed(1.0)) for n in range(1, 7)]
    assert longest == [1.0, 2.0, 4.0, 8.0, 10.0, None]
    assert [backoff.delay_s(n, Fixed(0.0)) for n in range(1, 6)] == [0.5, 1.0, 2.0, 4.0, 5.0]


@given(st.integers(1, 10_000), st.integers(0, 2**32 - 1))
def test_every_pause_is_within_its_bounds_and_the_same_under_the_same_seed(failures: Any, seed: int) -> None:
    backoff = Backoff(first_s=2.0, ceiling_s=600.0, max_failures=20_000)
    delay_s = backoff.delay_s(failures, np.random.default_rng(seed))
    assert delay_s is not None
    assert 1.0 <= delay_s <= 600.0
    assert delay_s == backoff.delay_s(failures, np.random.default_rng(seed))


def test_a_retry_after_is_obeyed_up_to_a_day_and_never_shortens_the_pause() -> None:
    backoff = Backoff(first_s=8.0)
    assert backoff.delay_s(1, Fixed(1.0), at_least_s=120.0) == 120.0
    assert backoff.delay_s(1, Fixed(1.0), at_least_s=1.0) == 8.0
    assert backoff.delay_s(1, Fixed(1.0), at_least_s=1e9) == 86_400.0


def test_zero_asks_at_once_but_not_for_ever() -> None:
    backoff = Backoff(max_failures=3)
    assert [backoff.delay_s(n, Fixed(1.0), at_least_s=0) for n in (1, 2, 3)] == [0.0, 0.0, None]


@pytest.mark.parametrize("wrong", [{"first_s": 0.0}, {"first_s": float("nan")}, {"factor": 0.5}, {"ceiling_s": 0.1}])
def test_a_schedule_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**wrong)
    with pytest.raises(ValueError, match="max_failures must be >= 1, got 0"):
        Backoff(max_failures=0)

"""Deadlines of the tests fit the machine: later on a slower one, never earlier than they were written."""

from __future__ import annotations

import pytest

from tests import speed


@pytest.mark.parametrize(("took_s", "factor"), [(0.01, 1.0), (0.2, 1.0), (0.6, 3.0), (60.0, 10.0)])
def test_a_machine_three_times_slower_gets_three_times_longer(took_s: float, factor: float) -> None:
    assert speed._measured(took_s) == pytest.approx(factor)


def test_it_is_measured_once_and_what_a_test_starts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(speed._KNOWN, raising=False)
    took = iter([0.7, 0.5, 0.6])  # a fourth time would end the test
    monkeypatch.setattr(speed, "_took_s", lambda: next(took))
    assert (speed.factor(), speed.slow(60.0)) == (2.5, 150.0)
    monkeypatch.setenv(speed._KNOWN, "4.00")
    assert speed.slow(60.0) == 240.0


def test_who_shares_the_machine_with_two_others_gets_three_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(speed._KNOWN, "2.00")
    speed.share(3)
    assert speed.slow(10.0) == 60.0

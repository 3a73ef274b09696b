from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tuning.rules.stopping import create
from tests.speed import slow


def test_halving_keeps_the_best_quarter_of_each_rung() -> None:
    rule = create({"name": "asha", "min_steps": 2, "reduction": 4})
    assert [rule.report(trial, 1, 9.0).stop for trial in range(4)] == [False] * 4  # below the first rung
    assert [rule.report(trial, 2, loss).stop for trial, loss in enumerate([5.0, 4.0, 3.0])] == [False] * 3  # too few to judge
    verdict = rule.report(3, 2, 6.0)
    assert verdict.stop
    assert verdict.seen == "rung 2: 6 is beyond 3, the best 1/4 of 4"
    assert not rule.report(4, 2, 1.0).stop
    assert rule.report(5, 3, 2.0).stop  # the first report beyond a rung counts for it
    assert not rule.report(4, 7, 99.0).stop  # a rung is entered once
    assert not rule.report(4, 8, 0.5).stop  # the next rung is at 2 * 4


def test_a_loss_that_is_no_number_is_stopped_at_the_first_rung() -> None:
    assert create("asha").report(0, 1, math.inf).stop
    assert create("median").report(0, 1, math.inf).stop


def test_the_median_rule_compares_with_completed_trials_only() -> None:
    rule = create({"name": "median", "min_trials": 3, "min_steps": 2})
    for trial, loss in enumerate([1.0, 2.0, 3.0]):
        for step in (1, 2, 3):
            assert not rule.report(trial, step, loss).stop
    assert not rule.report(9, 2, 99.0).stop  # nobody has completed yet
    for trial in range(3):
        rule.complete(trial)
    assert not rule.report(10, 1, 99.0).stop  # before min_steps
    assert not rule.report(10, 2, 2.0).stop  # equal to the median
    verdict = rule.report(11, 2, 2.1)
    assert verdict.stop
    assert "above 2, the median of 3 completed trials" in verdict.seen
    assert not rule.report(10, 3, 50.0).stop  # its best so far counts


@pytest.mark.parametrize(
    "bad",
    ["hyperband", 3, {"name": "asha", "reduction": 1}, {"name": "asha", "eta": 3}, {"name": "median", "min_trials": 0}, {}],
    ids=str,
)
def test_a_bad_rule_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="early_stopping"):
        create(bad)


class SlowMedian:
    """The median rule as the paper has it, with no thought of time: what the fast one is checked against."""

    def __init__(self, min_trials: int, min_steps: int) -> None:
        self.min_trials, self.min_steps = min_trials, min_steps
        self.reports: dict[int, list[tuple[int, float]]] = {}
        self.completed: set[int] = set()

    def stops(self, trial: int, step: int, loss: float) -> bool:
        self.reports.setdefault(trial, []).append((step, loss))
        if not math.isfinite(loss):
            return True
        means = []
        for other in self.completed:
            values = [value for at, value in self.reports.get(other, ()) if at <= step and math.isfinite(value)]
            means += [statistics.fmean(values)] if values else []
        if step < self.min_steps or len(means) < self.min_trials:
            return False
        return min(value for _, value in self.reports[trial]) > statistics.median(means)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 6), st.sampled_from([0.0, 1.0, 2.0, 4.0, 8.0, math.inf]), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_the_fast_median_gives_the_verdicts_of_the_slow_one(
    events: list[tuple[int, int, float, bool]], min_trials: int, min_steps: int
) -> None:
    fast, slow = create({"name": "median", "min_trials": min_trials, "min_steps": min_steps}), SlowMedian(min_trials, min_steps)
    ended: set[int] = set()
    for trial, step, loss, ends in events:
        if trial in ended:
            continue  # no trial reports after its end
        assert fast.report(trial, step, loss).stop == slow.stops(trial, step, loss)
        if ends:
            ended.add(trial)
            fast.complete(trial)
            slow.completed.add(trial)


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_report_does_not_cost_a_walk_through_all_trials(rule: str) -> None:
    judge = create(rule)
    for trial in range(20_000):
        judge.report(trial, 1, float(trial % 97))
        judge.complete(trial)
    began_s = time.process_time()
    for trial in range(20_000, 21_000):
        judge.report(trial, 1, float(trial % 97))
    assert time.process_time() - began_s < slow(1.0)  # a walk takes 5 ms each

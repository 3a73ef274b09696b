from __future__ import annotations

import math
from typing import Any

import pytest

from actors.tuning.rules.stopping import create


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

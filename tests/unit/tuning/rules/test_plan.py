from __future__ import annotations

import math
from typing import Any

import pytest

from actors.tuning.rules.plan import Plan, check

GOOD: dict[str, Any] = {"name": "s", "space": {"x": [0, 1]}, "trials": 10, "seed": 1}

BAD = [
    ("name", ""), ("name", "a*"), ("name", "a\nb"), ("name", "n" * 201), ("name", 7),
    ("trials", 0), ("trials", -1), ("trials", 2.0), ("trials", True), ("trials", "10"), ("trials", 10**8),
    ("seed", -1), ("seed", 1.5), ("seed", "x"), ("mode", "minimize"), ("mode", None),
    ("max_concurrent", 0), ("max_concurrent", 1.5), ("timeout_s", 0), ("timeout_s", -1), ("timeout_s", math.nan),
    ("timeout_s", math.inf), ("timeout_s", True), ("timeout_s", "3"), ("retries", -1), ("retries", 0.5),
    ("executor", "thread"), ("executor", None), ("resources", {"cpu": -1}), ("resources", {"gpu": math.nan}),
    ("resources", {"gpu": "1"}), ("resources", {"cpu": 1.5}), ("resources", [1]), ("resources", {1: 1}),
    ("early_stopping", "never"), ("early_stopping", 3), ("first", 3), ("first", [{"y": 1}]), ("first", [{"x": math.nan}]),
    ("context", {"x": object()}), ("context", [1]), ("context", {"x": "y" * 70_000}),
    ("strategy", "nonsense"), ("strategy", {"points": 3}), ("space", {}), ("space", {"x": [1, 0]}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_setting_is_refused_before_anything_runs(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        check(**GOOD | {field: value})


def test_auto_is_inline_and_child_where_there_is_a_time_out() -> None:
    assert check(**GOOD).executor == "inline"
    assert check(**GOOD, timeout_s=3).executor == "child"
    with pytest.raises(ValueError, match="cannot be interrupted"):
        check(**GOOD, timeout_s=3, executor="inline")


def test_a_plan_survives_its_document() -> None:
    plan = check(
        **GOOD, strategy={"name": "grid", "points": 3}, resources={"cpu": 0.5}, context={"a": [1]}, early_stopping="asha"
    )
    assert Plan.from_document(plan.document()) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [("space", {"x": [0, 2]}), ("seed", 2), ("mode", "max"), ("strategy", "grid"), ("early_stopping", "asha")],
)
def test_a_resume_with_another_search_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field} of the study 's' must stay"):
        check(**GOOD).continued_by(check(**GOOD | {field: value}))


def test_a_resume_may_change_limits_and_never_takes_trials_away() -> None:
    longer = check(**GOOD).continued_by(check(**GOOD | {"trials": 20}, retries=2, timeout_s=9))
    assert (longer.trials, longer.retries, longer.executor) == (20, 2, "child")
    assert longer.continued_by(check(**GOOD)).trials == 20

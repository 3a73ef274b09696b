from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from actors.tuning.rules.plan import Plan, check
from tests.speed import slow

GOOD: dict[str, Any] = {"name": "s", "space": {"x": [0, 1]}, "trials": 10, "seed": 1}

BAD = [
    ("name", ""),
    ("name", "a*"),
    ("name", "a\nb"),
    ("name", "n" * 201),
    ("name", 7),
    ("trials", 0),
    ("trials", -1),
    ("trials", 2.0),
    ("trials", True),
    ("trials", "10"),
    ("trials", 10**8),
    ("seed", -1),
    ("seed", 1.5),
    ("seed", "x"),
    ("mode", "minimize"),
    ("mode", None),
    ("max_concurrent", 0),
    ("max_concurrent", 1.5),
    ("timeout_s", 0),
    ("timeout_s", -1),
    ("timeout_s", math.nan),
    ("timeout_s", math.inf),
    ("timeout_s", True),
    ("timeout_s", "3"),
    ("retries", -1),
    ("retries", 0.5),
    ("executor", "thread"),
    ("executor", None),
    ("resources", {"cpu": -1}),
    ("resources", {"gpu": math.nan}),
    ("resources", {"gpu": "1"}),
    ("resources", {"cpu": 1.5}),
    ("resources", [1]),
    ("resources", {1: 1}),
    ("early_stopping", "never"),
    ("early_stopping", 3),
    ("first", 3),
    ("first", [{"y": 1}]),
    ("first", [{"x": math.nan}]),
    ("context", {"x": object()}),
    ("context", [1]),
    ("context", {"x": "y" * 70_000}),
    ("strategy", "nonsense"),
    ("strategy", {"points": 3}),
    ("space", {}),
    ("space", {"x": [1, 0]}),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_setting_is_refused_before_anything_runs(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        check(GOOD | {field: value})


def test_auto_is_inline_and_child_where_there_is_a_time_out() -> None:
    assert check(GOOD).executor == "inline"
    assert check(GOOD | {"timeout_s": 3}).executor == "child"
    with pytest.raises(ValueError, match="cannot be interrupted"):
        check(GOOD | {"timeout_s": 3, "executor": "inline"})


def test_a_plan_survives_its_document() -> None:
    plan = check(
        GOOD
        | {
            "strategy": {"name": "grid", "points": 3},
            "resources": {"cpu": 0.5},
            "context": {"a": [1]},
            "early_stopping": "asha",
        }
    )
    assert Plan.from_document(plan.document()) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [("space", {"x": [0, 2]}), ("seed", 2), ("mode", "max"), ("strategy", "grid"), ("early_stopping", "asha")],
)
def test_a_resume_with_another_search_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field} of the study 's' must stay"):
        check(GOOD).continued_by(check(GOOD | {field: value}))


def test_a_resume_may_change_limits_and_never_takes_trials_away() -> None:
    longer = check(GOOD).continued_by(check(GOOD | {"trials": 20, "retries": 2, "timeout_s": 9}))
    assert (longer.trials, longer.retries, longer.executor) == (20, 2, "child")
    assert longer.continued_by(check(GOOD)).trials == 20


SPACE = {"lr": [1e-5, 1e-2, "log"], "n": [1, 8, "int"], "kind": {"choices": ["rbf", 1, True, None, [1, 2]]}}
FITS = {"lr": 1e-3, "n": 8, "kind": "rbf"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"lr": 1.0}, r"first\[1\]\['lr'\] must be a number from 1e-05 to 0.01, got 1.0"),
        ({"lr": "1e-3"}, "must be a number from"),
        ({"lr": math.nan}, "must be a number from"),
        ({"lr": True}, "must be a number from"),
        ({"n": 9}, r"first\[1\]\['n'\] must be a whole number from 1 to 8, got 9"),
        ({"n": 2.5}, "must be a whole number"),
        ({"kind": "poly"}, r"first\[1\]\['kind'\] must be one of .*, got 'poly'"),
        ({"kind": 1.0}, "must be one of"),  # 1 is a choice, 1.0 is not
        ({"kind": object()}, "must be one of"),
        ({"more": 1}, "must be a mapping with the names lr, n, kind"),
    ],
)
def test_values_given_as_first_lie_in_the_space(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check(GOOD | {"space": SPACE, "first": [FITS, FITS | change]})


def test_values_given_as_first_are_kept_in_the_order_of_the_space() -> None:
    turned = {"kind": np.array([1, 2]), "n": np.int32(3), "lr": np.float32(0.001)}
    (first,) = check(GOOD | {"space": SPACE, "first": [turned]}).first
    assert list(first) == ["lr", "n", "kind"]
    assert (first["n"], first["kind"]) == (3, [1, 2])
    assert json.dumps(first)


def test_numpy_numbers_are_numbers_wherever_a_plan_takes_one() -> None:
    plain = {
        "trials": 12,
        "seed": 5,
        "max_concurrent": 3,
        "retries": 2,
        "timeout_s": 0.5,
        "resources": {"cpu": 2},
        "space": {"x": [0, 1], "n": [1, 4, "int"], "k": {"choices": [1, 2, 3]}},
        "context": {"now": 7, "of": [1, 2]},
        "strategy": {"name": "grid", "points": 4},
        "early_stopping": {"name": "asha", "min_steps": 2},
    }
    numpy = {
        "trials": np.int64(12),
        "seed": np.uint32(5),
        "max_concurrent": np.int8(3),
        "retries": np.int64(2),
        "timeout_s": np.float32(0.5),
        "resources": {"cpu": np.int64(2)},
        "space": {"x": np.array([0.0, 1.0]), "n": [np.int64(1), np.int64(4), "int"], "k": {"choices": np.arange(1, 4)}},
        "context": {"now": np.int64(7), "of": np.array([1, 2])},
        "strategy": {"name": "grid", "points": np.int64(4)},
        "early_stopping": {"name": "asha", "min_steps": np.int64(2)},
    }
    assert check(GOOD | numpy) == check(GOOD | plain)
    assert check(GOOD | numpy).document() == check(GOOD | plain).document()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("space", {"x": {"choices": list(range(1_000_000))}}),
        ("space", {"x": {"choices": np.arange(1_000_000)}}),
        ("space", {f"p{n}": {"choices": ["v" * 1000] * 5000} for n in range(10)}),
        ("context", {"x": ["y" * 100] * 1_000_000}),
        ("first", [{"x": 0.5}] * 1_000_000),
        ("first", [{"x": "v" * 50_000_000}]),
        ("strategy", {"name": "grid", "points": ["v" * 1000] * 50_000}),
        ("resources", {f"r{n}": 1 for n in range(1_000_000)}),
        ("name", "n" * 50_000_000),
    ],
)
def test_a_plan_of_tens_of_megabytes_is_refused_without_looking_at_all_of_it(field: str, value: Any) -> None:
    took_s: list[float] = []
    for _ in range(3):  # the least: in one of them Python may collect the garbage of the whole suite
        began_s = time.thread_time()
        with pytest.raises(ValueError, match=field) as refused:
            check(GOOD | {field: value})
        took_s.append(time.thread_time() - began_s)
        assert len(str(refused.value)) < 500
    assert min(took_s) < slow(0.5)


def test_the_same_search_written_otherwise_is_the_same_and_keeps_its_order() -> None:
    plan = check(GOOD | {"space": SPACE, "strategy": {"name": "random"}, "first": [FITS]})
    turned = dict(reversed(SPACE.items()))
    again = check(GOOD | {"space": turned, "strategy": "random", "first": [dict(reversed(FITS.items()))], "trials": 20})
    continued = plan.continued_by(again)
    assert list(continued.space) == list(SPACE)
    assert (continued.trials, continued.strategy) == (20, "random")
    other = {"x": {"choices": [1, 2]}}
    with pytest.raises(ValueError, match="space of the study 's' must stay"):
        check(GOOD | {"space": other}).continued_by(check(GOOD | {"space": {"x": {"choices": [1.0, 2.0]}}}))

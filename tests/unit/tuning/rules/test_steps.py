"""What a worker may say: everything else is refused before the ledger sees it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tuning.rules.steps import MAX_REPORTS, MAX_RESULTS, MAX_STEP, Result, Step, StepFields, study_of, worker_key

GOOD: dict[str, Any] = {"key": "s-w-1", "incarnation": "i", "sequence": 1}


def step(**fields: Any) -> Step:
    said: Any = GOOD | fields
    checked: StepFields = said
    return Step.from_wire(checked)


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 0},
        {"sequence": 1.0},
        {"sequence": True},
        {"sequence": MAX_STEP + 1},
        {"holding": -1},
        {"key": 7},
        {"incarnation": None},
        {"node": 7},
        {"load_error": b"x"},
        {"results": 7},
        {"results": [[1, 2]]},
        {"results": [None]},
        {"results": [[0, 1, "won", 1.0, 0.1, None]]},
        {"results": [[0, 0, "completed", 1.0, 0.1, None]]},
        {"results": [["0", 1, "completed", 1.0, 0.1, None]]},
        {"results": [[0, 1, "completed", 1.0, -0.1, None]]},
        {"results": [[0, 1, "completed", 1.0, math.nan, None]]},
        {"results": [[0, 1, "failed", None, 0.1, 7]]},
        {"results": [[0, 1, "completed", 1.0, 0.1, None]] * (MAX_RESULTS + 1)},
        {"reports": [[0, 1, 1]]},
        {"reports": [[0, 1, -1, 0.5]]},
        {"reports": [[0, 1, MAX_STEP + 1, 0.5]]},
        {"reports": [[0, 1, 1, 0.5]] * (MAX_REPORTS + 1)},
        {"reports": "0111"},
    ],
    ids=str,
)
def test_a_malformed_step_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="step: "):
        step(**fields)


def test_a_value_that_is_no_finite_number_is_none_and_an_error_is_cut() -> None:
    made = step(results=[[0, 1, "completed", math.inf, 1, None], [1, 1, "failed", "x", 0.5, "e" * 9000]])
    assert made.results[0] == Result(0, 1, "completed", None, 1.0, None)
    assert len(made.results[1].error or "") == 4000


@given(st.text(), st.text(alphabet="0123456789abcdef", min_size=1))
def test_a_worker_key_names_its_study_whatever_that_is_called(study: str, unique: str) -> None:
    assert study_of(worker_key(study, unique)) == study


def test_the_key_of_another_task_is_of_no_study() -> None:
    assert study_of("order-7") is None

"""A study in Optuna's own storage: Optuna reads it as one of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.replies import StudySummary, TrialRow
from actors.tuning.strategies.space import parse
from actors.tuning.study import Study

optuna: Any = pytest.importorskip("optuna")

SPACE: dict[str, Any] = {
    "lr": [1e-5, 1e-2, "log"],
    "n": [1, 9, "int"],
    "kind": {"choices": ["a", "b"]},
    "mixed": {"choices": [1, True, None]},
    "layers": {"choices": [[1, 2], [3]]},
}
STATES = ["COMPLETED", "COMPLETED", "FAILED", "PRUNED", "COMPLETED", "TIMED_OUT", "RUNNING", "PENDING"]


class Kept:
    """A study that is read again and again while it grows."""

    def __init__(self, *, mode: str = "min", trials: int = len(STATES), study: str = "s-1") -> None:
        self.trials = trials
        self.mode = mode
        self.id = study
        self.state = "RUNNING"
        space = parse(SPACE)
        self.rows: list[TrialRow] = [
            {
                "id": number,
                "params": space.at([(number + 1) / 10] * 5),
                "value": float(number) if state in {"COMPLETED", "PRUNED"} else None,
                "state": state,
                "attempts": 1,
                "error": "ValueError: no" if state == "FAILED" else None,
                "seconds": 0.5,
                "node": "n",
                "finished_at": 1000.0 + number,
            }
            for number, state in enumerate(STATES)
        ]

    def study(self) -> Study:
        return Study(self.summary, lambda: self.rows[: self.trials])

    def summary(self) -> StudySummary:
        return {
            "study": self.id,
            "name": "kept",
            "state": self.state,
            "error": None,
            "trials": 8,
            "done": 6,
            "counts": {},
            "workers": 0,
            "best": 0,
            "best_value": 0.0,
            "mode": self.mode,
            "seed": 7,
            "space": parse(SPACE).document(),
            "strategy": "random",
            "first": 0,
        }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.mark.parametrize(("mode", "best"), [("min", 0), ("max", 4)])
def test_optuna_reads_the_trials_with_their_values_states_and_best(storage: str, mode: str, best: int) -> None:
    kept = Kept(mode=mode)
    assert kept.study().to_optuna(storage) == 6
    found = optuna.load_study(study_name="kept", storage=storage)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED", "COMPLETE", "FAIL"]
    assert [trial.number for trial in found.trials] == list(range(6))
    assert found.best_trial.user_attrs["visutility:trial"] == best
    assert found.trials[4].params == kept.rows[4]["params"] | {
        "mixed": str(kept.rows[4]["params"]["mixed"]).lower(),
        "layers": str(kept.rows[4]["params"]["layers"]),
    }
    assert found.trials[2].user_attrs["visutility:error"] == "ValueError: no"
    assert found.trials[1].duration.total_seconds() == 0.5
    assert set(found.trials[0].distributions) == set(SPACE)


def test_another_export_adds_what_has_ended_since(storage: str) -> None:
    kept = Kept(trials=3)
    assert kept.study().to_optuna(storage) == 3
    assert kept.study().to_optuna(storage) == 0
    kept.trials = 8
    assert kept.study().to_optuna(storage) == 3
    found = optuna.load_study(study_name="kept", storage=storage)
    assert [trial.user_attrs["visutility:trial"] for trial in found.trials] == list(range(6))


def test_a_live_export_ends_with_the_study(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(trials=2)

    def later(_seconds: float) -> None:
        kept.trials, kept.state = 8, "DONE"

    monkeypatch.setattr("actors.tuning.optuna_export.time.sleep", later)
    assert kept.study().to_optuna(storage, live=True) == 6


def test_importances_are_computed_of_an_exported_study(storage: str) -> None:
    Kept().study().to_optuna(storage)
    found = optuna.load_study(study_name="kept", storage=storage)
    assert set(optuna.importance.get_param_importances(found)) <= set(SPACE)


def test_another_study_of_that_name_is_not_mixed_in(storage: str, tmp_path: Path) -> None:
    Kept().study().to_optuna(storage)
    with pytest.raises(ValueError, match="has another study named 'kept'"):
        Kept(study="s-2").study().to_optuna(storage)
    other = f"sqlite:///{tmp_path}/theirs.db"
    theirs = optuna.create_study(storage=other, study_name="kept")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="has another study named 'kept'"):
        Kept().study().to_optuna(other)
    with pytest.raises(ValueError, match="cannot be opened by Optuna"):
        Kept().study().to_optuna("nonsense://x")

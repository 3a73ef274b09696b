"""What a user holds of a study, and what of it can be read without a system."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from actors.replies import StudySummary, TrialRow
from actors.storage import Store, StoreError
from actors.tuning import tables as tuner_tables
from actors.tuning.offline import list_studies, read_study
from actors.tuning.rules.ledger import StudyLedger
from actors.tuning.rules.plan import check
from actors.tuning.rules.steps import Step
from actors.tuning.study import Study
from actors.tuning.tables import TUNER, ChangeWriter

SPACE = {"lr": [1e-5, 1e-2, "log"], "n": [1, 4, "int"], "kind": {"choices": ["rbf", [1, 2], None]}}


def kept(folder: Path, *, trials: int = 40, mode: str = "min", only_fail: bool = False) -> str:
    """Run a study by hand and keep it; gives the storage."""
    storage = f"sqlite:///{folder}/store"
    store = Store(storage)
    part = store.part(TUNER)
    plan = check({"name": "kept", "space": SPACE, "trials": trials, "seed": 1, "mode": mode})
    ledger = StudyLedger(f"{store.store_id}-s-1", plan)
    with part.write() as connection:
        connection.execute(
            tuner_tables.studies.insert().values(
                study=ledger.study_id, name="kept", plan=plan.document(), objective=b"", state="RUNNING", created_at=1.0
            )
        )
    ledger.expect("w", 0.0)
    results: list[list[Any]] = []
    for sequence in range(1, trials + 3):
        step = Step.from_wire({"key": "w", "incarnation": "i", "sequence": sequence, "results": results, "wanted": True})
        reply = ledger.step(step, now_s=1.0, wall_s=float(sequence))
        with part.write() as connection:
            ChangeWriter().write(connection, ledger.study_id, ledger.take_changes(), ledger.book.trials, 2.0)
        if reply["status"] == "gone":
            break
        results = []
        for trial, attempt, params in reply["leases"]:
            failed = only_fail or trial == 3
            value = None if failed else json.loads(params)["lr"]
            results.append(
                [trial, attempt, "failed" if failed else "completed", value, 0.5, "ValueError: no" if failed else None]
            )
    store.close()
    return storage


def test_a_finished_study_is_read_without_a_system(tmp_path: Path) -> None:
    storage = kept(tmp_path)
    study = read_study(storage, "kept")
    assert (study.state, study.mode, study.seed, study.space) == (
        "DONE",
        "min",
        1,
        check({"name": "k", "space": SPACE, "trials": 1, "seed": 0}).space,
    )
    assert study.counts() == {"COMPLETED": 39, "FAILED": 1}
    assert study.best.value == study.best.params["lr"] == min(trial.params["lr"] for trial in study.trials if trial.id != 3)
    assert [trial.id for trial in study.trials] == list(range(40))
    assert study.trials[3].error == "ValueError: no"
    assert [listed["name"] for listed in list_studies(storage)] == ["kept"]
    curve = [value for _, value in study.best_so_far()]
    assert curve == sorted(curve, reverse=True)
    assert repr(study) == f"Study('kept', DONE, 40 of 40 trials, best {study.best.value:.6g})"


def test_the_best_of_a_maximum_is_the_largest(tmp_path: Path) -> None:
    study = read_study(kept(tmp_path, mode="max"), "kept")
    assert study.best.value == max(trial.value for trial in study.trials if trial.value is not None)


def test_a_study_without_a_completed_trial_says_why_it_has_no_best(tmp_path: Path) -> None:
    study = read_study(kept(tmp_path, trials=3, only_fail=True), "kept")
    with pytest.raises(LookupError, match=r"no completed trial among 3; the last error: ValueError: no"):
        _ = study.best
    with pytest.raises(ValueError, match="no completed trial to draw"):
        study.plot(tmp_path / "x.png")


def test_exports_hold_every_trial(tmp_path: Path) -> None:
    study = read_study(kept(tmp_path), "kept")
    with study.to_csv(tmp_path / "kept.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert list(rows[0]) == [
        "id",
        "state",
        "value",
        "params.lr",
        "params.n",
        "params.kind",
        "attempts",
        "seconds",
        "node",
        "finished_at",
        "error",
    ]
    assert float(rows[5]["params.lr"]) == study.trials[5].params["lr"]
    assert {row["params.kind"] for row in rows} == {"rbf", "[1, 2]", "null"}
    document = json.loads(study.to_json(tmp_path / "kept.json").read_text())
    assert document["trials"][7]["params"] == study.trials[7].params
    assert document["state"] == "DONE"


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    study = read_study(kept(tmp_path), "kept")
    assert study.plot(tmp_path / "kept.png").stat().st_size > 10_000
    assert study.plot(tmp_path / "kept.svg").read_text().lstrip().startswith("<?xml")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    storage = kept(tmp_path)
    with pytest.raises(KeyError, match="got 'other'"):
        read_study(storage, "other")
    with pytest.raises(StoreError, match="storage must be the store of a system"):
        read_study(f"sqlite:///{tmp_path}/nowhere", "kept")
    assert not (tmp_path / "nowhere").exists()


def test_trials_are_read_once_and_when_asked_for(tmp_path: Path) -> None:
    read = read_study(kept(tmp_path), "kept")
    calls: list[str] = []

    def summary() -> StudySummary:
        calls.append("summary")
        return read._summary

    def trials() -> list[TrialRow]:
        calls.append("trials")
        return []

    study = Study(summary, trials)
    assert calls == ["summary"]
    assert study.trials == study.trials == []
    study.refresh()
    assert calls == ["summary", "trials", "summary"]

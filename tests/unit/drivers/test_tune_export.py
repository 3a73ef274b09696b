"""`visutility tune export` writes a study of a store, which it leaves as it is, to a storage of Optuna's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from drivers import cli
from drivers.commands import FINE, USAGE
from tests.unit.tuning.test_study import kept


def exported(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = cli.main(["tune", "export", *arguments, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_stored_study_is_exported_once_and_optuna_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna: Any = pytest.importorskip("optuna")
    storage, url = kept(tmp_path), f"sqlite:///{tmp_path}/optuna.db"
    asked = ["kept", "--optuna", url, "--storage", storage]
    assert exported(asked, capsys) == (FINE, {"study": "kept", "optuna": url, "written": 40})
    found = optuna.load_study(study_name="kept", storage=url)
    assert [trial.state.name for trial in found.trials].count("COMPLETE") == 39
    assert exported(asked, capsys) == (FINE, {"study": "kept", "optuna": url, "written": 0})
    assert exported([*asked, "--live"], capsys)[0] == FINE  # it has ended
    assert cli.main(["tune", "export", *asked]) == FINE
    assert capsys.readouterr().out == f"kept: 0 trials written to {url}\n"


def test_a_study_or_a_storage_that_is_not_there_is_a_usage_error_without_the_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    storage = kept(tmp_path)
    code, told = exported(["nope", "--optuna", f"sqlite:///{tmp_path}/o.db", "--storage", storage], capsys)
    assert (code, "study must be the name of a study" in told["error"]) == (USAGE, True)
    assert not (tmp_path / "o.db").exists()
    code, told = exported(["kept", "--optuna", "nonsense://me:secret@x", "--storage", storage], capsys)
    assert (code, "cannot be opened by Optuna" in told["error"]) == (USAGE, True)
    assert "secret" not in told["error"]


def test_without_optuna_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, told = exported(["kept", "--optuna", f"sqlite:///{tmp_path}/o.db", "--storage", kept(tmp_path)], capsys)
    assert (code, told) == (USAGE, {"error": "an export to Optuna needs it: pip install 'visutility[optuna]'"})

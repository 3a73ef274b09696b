"""`visutility advise` reads the history of a store, with no system running, and leaves it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import config, wire
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection import commands
from actors.detection.rules.promises import Promise
from actors.detection.state import DetectionState, Ingest
from actors.storage import Store
from drivers import cli
from drivers.commands import FINE, USAGE

NOW = 1_795_000_000.0


def written(folder: Path, *, promised: bool = True, weighed: bool = True) -> str:
    """Write a store in which model churn falls from its promise; return its URL."""
    url = f"sqlite:///{folder}/store"
    store, now = Store(url), Instant(NOW, 0.0, "boot")
    store_settings(store, config.parse({"models": {"churn": {"retrain": {"when": "never"}}}}, "test"), NOW)
    detection = DetectionState(store, "detector:churn", 0, now)
    rng = np.random.default_rng(5)
    for number, rate in enumerate((0.87, 0.87, 0.79, 0.79)):
        times = NOW - 3600.0 * (160 - 40 * number - np.arange(40))
        values = {"accuracy": rng.binomial(200, rate, 40) / 200}
        batch = wire.batch_of_columns(values, version="7", timestamps=times, now_s=NOW, n=200 if weighed else None)
        detection.commit([Ingest("churn", "p", 40 * number, wire.pack(batch))], now)
        if number == 0 and promised:
            detection.commit([commands.promise("churn", Promise("7", {"accuracy": 0.87}, 10_000, "cross_validation"))], now)
    store.close()
    return url


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = cli.main(["advise", *arguments, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_it_proposes_a_change_with_its_evidence_and_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = written(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").glob("*.db")}
    code, told = ran(["churn", "--storage", url], capsys)
    assert (code, told["model"], told["events"]) == (FINE, "churn", 160)
    tried = {each["configuration"]: each for each in told["tried"]}
    assert tried["now"]["retrains"] == 0
    assert tried[told["proposed"]]["retrains"] >= 1
    assert all(len(each["retrains_at"]) == each["retrains"] for each in told["tried"])
    assert tried["price 1%"]["retrain"] == {"when": "shortfall", "metric": "accuracy", "price": "1%", "budget": None}
    assert told["diff"].splitlines()[:4] == [" models:", "   churn:", "     retrain:", "-      when: never"]
    assert any("no data on a retrain that never happened" in each for each in told["limits"])
    assert cli.main(["advise", "churn", "--storage", url]) == FINE
    text = capsys.readouterr().out
    assert told["diff"] in text
    assert told["why"] in text
    assert all(each in text for each in told["limits"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").glob("*.db")} == before


def test_other_models_of_the_store_change_no_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = written(tmp_path)
    alone = ran(["churn", "--storage", url], capsys)
    store, now = Store(url), Instant(NOW, 1.0, "boot")
    detection = DetectionState(store, "detector:churn", 0, now)
    batch = wire.batch_of_columns(
        {"accuracy": np.full(500, 0.1)}, version="7", timestamps=NOW - np.arange(500.0), now_s=NOW, n=200
    )
    detection.commit([Ingest("another", "q", 0, wire.pack(batch))], now)
    store.close()
    assert ran(["churn", "--storage", url], capsys) == alone


@pytest.mark.parametrize(
    ("how", "lacks"),
    [({"promised": False}, "a cross-validated promise of accuracy"), ({"weighed": False}, "the number of predict")],
)
def test_what_is_missing_is_said(how: dict[str, bool], lacks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ran(["churn", "--storage", written(tmp_path, **how)], capsys)
    assert (code, lacks in told["error"]) == (USAGE, True), told


def test_a_model_or_a_store_that_is_not_there_and_bad_options_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = written(tmp_path)
    assert ran(["nobody", "--storage", url], capsys) == (USAGE, {"error": "there are no events of nobody in the history"})
    late = ran(["churn", "--storage", url, "--since", "2100-01-01"], capsys)
    assert late == (USAGE, {"error": "there are no events of churn in the history"})
    assert ran(["churn", "--storage", url, "--takes", "soon"], capsys)[0] == USAGE
    assert ran(["churn", "--storage", f"sqlite:///{tmp_path}/nowhere"], capsys)[0] == USAGE
    assert not (tmp_path / "nowhere").exists()

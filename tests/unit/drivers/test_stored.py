"""Commands with `--storage` read a store with no system running, and leave it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import config, wire
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection.state import DetectionState, Ingest
from actors.retraining.rules.orders import DEAD, Order, Request
from actors.retraining.tables import DISPATCHER, put_new
from actors.storage import Store
from drivers import cli

NOW = 1_795_000_000.0
READING = (["status"], ["explain", "m"], ["retrains", "ls"], ["retrains", "show", "o-1"], ["tune", "ls"])


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a store in which model m drifts and has a dead order."""
    store = Store(f"sqlite:///{tmp_path}/store")
    detection = DetectionState(store, "detector:m", 0, Instant(NOW, 0.0, "boot"))
    random = np.random.default_rng(0)
    for i, level in enumerate([0.9] * 6 + [0.6]):
        values = np.clip(random.normal(level, 0.01, 100), 0, 1)
        batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW)
        detection.commit([Ingest("m", "p", 100 * i, wire.pack(batch))], Instant(NOW, 0.0, "boot"))
    with store.part(DISPATCHER).write() as connection:
        asked = Request("m", "v1", "accuracy", 4.0, NOW, "e-1", {"window_mean": 0.6})
        put_new(connection, [Order("o-1", asked, DEAD, "no answer", "webhook", {}, NOW)])
    store.close()
    return f"sqlite:///{tmp_path}/store"


def ran(arguments: list[str], url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = cli.main([*arguments, "--storage", url, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_each_reads_what_the_store_holds(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ran(["status"], url, capsys)
    assert (code, told["models"]["m"]["state"], told["actors"], told["namespace"]) == (1, "drifting", {}, None)
    code, story = ran(["explain", "m"], url, capsys)
    assert (code, story["model"]) == (0, "m")
    code, rows = ran(["retrains", "ls", "--model", "m"], url, capsys)
    assert (code, [(row["id"], row["state"]) for row in rows]) == (1, [("o-1", "dead")])
    assert ran(["retrains", "ls", "--state", "done"], url, capsys) == (0, [])
    code, order = ran(["retrains", "show", "o-1"], url, capsys)
    assert (code, order["explanation"], order["attempt_log"]) == (0, {"window_mean": 0.6}, [])
    assert ran(["tune", "ls"], url, capsys) == (0, [])


def test_a_label_leaves_the_models_that_have_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(url)
    store_settings(store, config.parse({"models": {"m*": {"labels": {"team": "risk"}}}}, "test"), NOW)
    store.close()
    for command in (["status"], ["models", "ls"], ["retrains", "ls"]):
        code, told = ran([*command, "--label", "team=risk"], url, capsys)
        assert (code, len(told["models"] if command == ["status"] else told)) == (1, 1), command
        _code, told = ran([*command, "--label", "team", "--label", "team!=risk"], url, capsys)
        assert len(told["models"] if command == ["status"] else told) == 0, command
        code, told = ran([*command, "--label", "team="], url, capsys)
        assert code == 2
        assert "--label must be a selector like team=risk,tier!=2" in told["error"]
    assert ran(["models", "show", "m"], url, capsys)[1]["labels"] == {"team": "risk"}


def test_what_is_not_there_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be an episode, an order or a model" in ran(["explain", "nobody"], url, capsys)[1]["error"]
    assert ran(["retrains", "show", "nope"], url, capsys)[0] == 2
    assert "state must be one of pending" in ran(["retrains", "ls", "--state", "died"], url, capsys)[1]["error"]
    assert ran(["tune", "show", "nope"], url, capsys)[0] == 2


@pytest.mark.parametrize("arguments", READING)
def test_a_store_is_neither_made_nor_changed_by_looking(
    arguments: list[str], url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"sqlite:///{tmp_path}/nowhere"
    code, told = ran(arguments, nowhere, capsys)
    assert (code, told) == (2, {"error": f"storage must be the store of a system, there is none at {nowhere}"})
    assert not (tmp_path / "nowhere").exists()
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").glob("*.db")}
    ran(arguments, url, capsys)
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").glob("*.db")} == before

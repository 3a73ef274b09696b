"""`visutility config`: what a file says, and what a model gets from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivers import config
from drivers.commands import FINE, USAGE


def test_config_check_prints_what_a_model_would_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "visutility.yaml"
    path.write_text("models: {fraud-*: {cooldown: 6h, handler: {kind: webhook, url: '${HOOK}'}}}")
    assert config.main(["check", str(path), "--model", "fraud-eu", "-o", "json"]) == FINE
    got = json.loads(capsys.readouterr().out)["models"]["fraud-eu"]
    assert (got["cooldown"], got["handler"]["url"], got["false_alarm_every"]) == ("6h", "${HOOK}", "30d")
    path.write_text("models: {m: {cooldwn: 6h}}")
    assert config.main(["check", str(path)]) == USAGE
    assert "models.m.cooldwn: unknown key, did you mean cooldown?" in capsys.readouterr().err


def test_config_check_finds_what_a_launch_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "visutility.yaml"
    path.write_text(
        "models: {m: {handler: {kind: tune, objective: 'm:f', space: {lr: [1, 0]}, then: {kind: webhook, url: 'http://'}}}}"
    )
    assert config.main(["check", str(path), "-o", "json"]) == USAGE
    lines = json.loads(capsys.readouterr().out)["error"].splitlines()
    assert [line.partition(" ")[2].partition(": ")[0] for line in lines] == ["models.m.handler", "models.m.handler.then.url"]
    path.write_text(
        "models: {m: {handler: {kind: task, target: 'nowhere:f'}}, w: {handler: {kind: webhook, url: '${NOT_SET}'}}}"
    )
    assert config.main(["check", str(path), "-o", "json"]) == FINE
    assert "must have NOT_SET" in json.loads(capsys.readouterr().out)["notes"][0]
    assert config.main(["check", str(path), "--import"]) == USAGE
    assert "nowhere:f cannot be imported here" in capsys.readouterr().err


def test_config_check_shows_which_way_each_metric_gets_worse_and_what_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "visutility.yaml"
    path.write_text(
        "defaults: {watch: {val_auc: {}}, retrain: {metric: rmse}}\n"
        "models: {fraud-*: {watch: {page_views: {}, p95_latency_ms: {direction: both}}}}"
    )
    assert config.main(["check", str(path), "-o", "json"]) == FINE
    told = json.loads(capsys.readouterr().out)["directions"]
    name, rule = "the metric's name", "the retrain rule: the metric's name"
    usual = [("accuracy", "down", name), ("val_auc", "down", name)]
    fraud = [("page_views", "both", "no table has the metric's name"), ("p95_latency_ms", "both", "models.fraud-*")]
    expected = {"any other model": usual, "fraud-*": usual + fraud}
    assert told == [
        {"model": model, "metric": metric, "direction": direction, "from": why}
        for model, rows in expected.items()
        for metric, direction, why in [*rows, ("rmse", "up", rule)]
    ]
    assert config.main(["check", str(path), "--model", "fraud-eu"]) == FINE
    printed = capsys.readouterr().out
    assert "no table has the metric's name" in printed
    assert "any other model" not in printed

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

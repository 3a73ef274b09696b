"""`visutility notify`: the routes, a test message, and a preview for an episode."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from actors import config
from actors.config.stored import store_settings
from actors.detection.tables import DETECTOR, happened
from actors.replies import happening
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, happenings
from drivers import cli

NOW = 1_795_003_200.0
EXAMPLE = Path(__file__).parents[2] / "plugin_example"
CONFIGURATION = """\
ui: {url: "https://page.example"}
notify:
  receivers:
    book: {kind: "visutility_halving:Notebook", options: {path: FOLDER/sent}}
    down: {kind: webhook, url: "http://127.0.0.1:9/"}
  routes:
    - {receivers: [book], models: fraud*, group_by: [model], quiet: {from: 22:00, to: 07:00, zone: Europe/Berlin}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    written = tmp_path / "visutility.yaml"
    written.write_text(CONFIGURATION.replace("FOLDER", str(tmp_path)))
    return written


@pytest.fixture
def url(file: Path) -> str:
    with contextlib.closing(Store(f"sqlite:///{file.parent}/store")) as store:
        store_settings(store, config.load(file), NOW)
        store.part(DISPATCHER)
        with store.part(DETECTOR, 0).write() as connection:
            alarm = happening("alarm", "e-1", NOW, "warning", model="fraud", version="7", metric="accuracy", subject="e-1")
            recovered = happening("recovered", "e-1", NOW + 90, model="fraud", subject="e-1")
            other = happening("alarm", "e-2", NOW, "warning", model="churn", subject="e-2")
            happenings.record(connection, happened, [alarm, recovered, other])
        return store.url


def test_ls_shows_how_each_receiver_does_and_who_is_told_what(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["notify", "ls", "--storage", url]) == 0
    shown = capsys.readouterr().out
    assert "visutility_halving:Notebook" in shown
    assert "fraud* warning or worse" in shown
    assert "quiet 22:00-07:00 Europe/Berlin" in shown


def test_preview_shows_the_alarm_and_its_end_to_those_who_would_get_them(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["notify", "preview", "e-1", "--storage", url, "-o", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["receiver"], first["title"]) == ("book", "fraud: accuracy has drifted")
    assert second["title"] == "Over: fraud: accuracy has drifted"
    assert second["text"].splitlines() == [
        "2026-11-18 12:00 UTC fraud 7: accuracy has drifted, over since 2026-11-18 12:01 UTC",
        "  https://page.example/episodes/e-1",
    ]
    assert cli.main(["notify", "preview", "e-2", "--storage", url]) == 0
    assert "nobody is told of e-2" in capsys.readouterr().out
    assert cli.main(["notify", "preview", "e-9", "--storage", url]) == 2


def test_a_test_sends_and_says_why_it_could_not(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["notify", "test", "book", "--config", str(file)]) == 0
    assert (file.parent / "sent").read_text().endswith(" system: a test, nothing has happened\n")
    assert cli.main(["notify", "test", "down", "--config", str(file)]) == 1
    assert "down: no answer: ConnectionRefusedError" in capsys.readouterr().out
    assert cli.main(["notify", "test", "nobody", "--config", str(file)]) == 2

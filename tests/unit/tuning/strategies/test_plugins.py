"""A strategy that another package brings along by an entry point: installed, named, used."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import Notification, config, drift, plugins
from actors.notify import receivers
from actors.retraining.handlers.task import loaded
from actors.sources import kinds
from actors.tuning.rules.plan import check
from actors.tuning.strategies.create import create
from drivers import cli

EXAMPLE = Path(__file__).parents[3] / "plugin_example"


def install(folder: Path, **points: str) -> None:
    """Lay a package out as an installer does: its module, and next to it what it says of itself."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "visutility_halving.py", folder)
    metadata = folder / f"visutility_halving-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    found = project["entry-points"]["visutility.strategies"] | points
    lines = "".join(f"{name} = {target}\n" for name, target in found.items())
    others = ""
    for kind in ("detectors", "handlers", "sources", "notifiers"):
        given = project["entry-points"][f"visutility.{kind}"]
        others += f"[visutility.{kind}]\n" + "".join(f"{name} = {target}\n" for name, target in given.items())
    (metadata / "entry_points.txt").write_text(f"[visutility.strategies]\n{lines}{others}")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path, broken="visutility_halving:Missing", no_strategy="pathlib:PurePath")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("visutility_halving", None)


@pytest.mark.usefixtures("installed")
def test_a_strategy_of_another_package_is_known_by_its_name() -> None:
    assert "halving" in plugins.names("strategies")
    plan = check({"name": "s", "space": {"x": [0, 8]}, "trials": 3, "seed": 1, "strategy": {"name": "halving", "factor": 4}})
    strategy = plan.strategy_made()
    assert [strategy.next_params()["x"] for _ in range(2)] == [2.0, 0.5]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        ({"name": "halving", "factor": 1}, "factor must be above 1"),
        ({"name": "halving", "more": 1}, "strategy 'halving': .*more"),
        ("broken", "strategies 'broken' of visutility_halving:Missing cannot be imported"),
        ("unheard", "strategy 'unheard' is unknown, expected random, .*, or broken, halving, no_strategy"),
    ],
    ids=str,
)
def test_what_is_wrong_with_it_is_named(strategy: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        create(strategy, {"x": [0, 1]}, seed=1)  # type: ignore[arg-type]


def test_without_it_the_name_is_unknown() -> None:
    with pytest.raises(ValueError, match="strategy 'halving' is unknown, expected random"):
        create("halving", {"x": [0, 1]}, seed=1)


@pytest.mark.usefixtures("installed")
def test_a_detector_a_handler_and_a_source_are_used_by_their_names() -> None:
    assert isinstance(drift.create("every-low"), drift.SlidingWindowDriftDetector)
    settings = config.load({"defaults": {"handler": {"kind": "printer"}}, "sources": {"s": {"kind": "coin"}}})
    handler = settings.for_model("m").handler
    assert config.read_handler(config.handler_document(handler)) == handler
    assert hasattr(loaded(handler.kind)(), "on_retrain")
    assert kinds.make(settings.sources["s"]).read(None, 1.0).place == 1
    with pytest.raises(ValueError, match="kind must be one of"):
        config.load({"defaults": {"handler": {"kind": "unheard"}}})


def test_a_notifier_of_another_package_gets_the_messages_of_its_receiver(installed: Path) -> None:
    said = {"kind": "notebook", "options": {"path": str(installed / "told")}}
    notify = config.load({"notify": {"receivers": {"book": said}, "routes": [{"receivers": ["book"]}]}}).notify
    told = Notification("n-1", "book", 1.0, "warning", {}, (), (), title="1 new: drift of fraud")
    receivers.make(notify.receivers["book"], {}).send(told)
    assert (installed / "told").read_text() == "n-1 1 new: drift of fraud\n"


@pytest.mark.usefixtures("installed")
def test_plugins_lists_what_is_there_and_what_cannot_be_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "-o", "json"]) == 1
    found = {(each["kind"], each["name"]): each for each in json.loads(capsys.readouterr().out)}
    assert found["sources", "coin"]["package"] == "visutility-halving 1.0"
    assert found["sources", "coin"]["problem"] is None
    assert "cannot be imported" in found["strategies", "broken"]["problem"]

"""Every command line that the README or the documentation of version 0.1 showed is still understood."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from drivers import cli
from drivers.commands import USAGE
from drivers.tune import modern

BRANIN = """drivers.objectives:branin --space '{"x": [-5, 10], "y": [0, 15]}'"""
PLAIN = """
visutility demo
visutility up
visutility up visutility.yaml
visutility down
visutility start
visutility start visutility.yaml
visutility start ~/settings/visutility.yaml
visutility start /etc/visutility/visutility.yaml
visutility stop
visutility reload visutility.yaml
visutility status
visutility status -o json
visutility explain last
visutility explain EPISODE
visutility config check visutility.yaml --model fraud-eu
visutility retrains ls
visutility retrains ls --state dead
visutility retrains show ID
visutility retrains retry ID
visutility retrains trigger fraud --reason "new labels"
visutility retrains done ID --new-version 8
visutility retrains failed ID --reason oom
visutility silence add 'fraud-*' --duration 2h --comment sale
visutility silence query
visutility silence query fraud
visutility silence expire ID
visutility replay --storage sqlite:///./demo-out/store --what-if other.yaml --plot what-if.png
visutility replay FILE --dry-run --config present.yaml
visutility tune my_module:objective --space space.json --trials 100 --name churn-lr --plot churn.png
visutility tune --show NAME --storage URL
visutility tune --show=NAME
visutility tune --list
visutility tune --watch NAME
visutility tune --stop NAME
visutility watch --every 2 --rounds 3
visutility reference --seed 1
"""
SHOWN = [
    *PLAIN.strip().splitlines(),
    f"visutility tune {BRANIN} --trials 200",
    f"visutility tune {BRANIN} --trials 200 --no-wait --seed 1 --csv trials.csv --json study.json",
    "visutility tune --space space.json --trials 3 my_module:objective",
]


@pytest.mark.parametrize("line", SHOWN)
def test_what_the_documentation_has_shown_is_still_understood(line: str) -> None:
    ctx = cli.ROOT.make_context("visutility", shlex.split(line)[1:])
    while isinstance(ctx.command, click.Group):
        name, found, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert found is not None
        ctx = found.make_context(name, rest, parent=ctx)
    assert not ctx.args


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m:f --space s --trials 9", "run m:f --space s --trials 9"),
        ("--space s --trials 9 m:f", "run --space s --trials 9 m:f"),
        ("-o json --list", "ls -o json"),
        ("--show churn --csv t.csv", "show churn --csv t.csv"),
        ("--watch=churn", "watch churn"),
        ("run m:f --space s --name --list", "run m:f --space s --name --list"),
        ("--help", "--help"),
        ("shwo churn", "shwo churn"),
        ("", ""),
    ],
)
def test_the_old_options_of_tune_become_its_commands(old: str, new: str) -> None:
    assert modern(old.split(), ["run", "show", "ls", "watch"]) == new.split()


def test_benchmarks_and_chaos_are_run_in_a_checkout_and_named_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "ingest"]) == USAGE
    assert "in a checkout run python -m tests.bench" in capfd.readouterr().err
    monkeypatch.chdir(Path(__file__).parents[3])
    assert cli.main(["bench", "--help"]) == 0
    assert "python -m tests.bench" in capfd.readouterr().out

"""What every driver's command line keeps: a pasteable first line of help, the exit codes, errors of one line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from drivers import cli, config
from drivers.arguments import FAILED, FINE, USAGE, Parser, run
from drivers.output import Output
from tests.bench import __main__ as bench

ROOT = Path(__file__).parents[2]
PRESENT = [name for name in cli.COMMANDS if find_spec(f"drivers.{name}") is not None]


@pytest.mark.parametrize("name", PRESENT)
def test_the_first_line_of_help_is_a_command_and_help_needs_no_ray(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == FINE
    assert capsys.readouterr().out.splitlines()[0].startswith((f"visutility {name}", f"python -m drivers.{name}"))


def test_the_command_lists_its_subcommands_and_what_they_say_of_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == FINE
    lines = capsys.readouterr().out
    assert "  status     Show the state of the system." in lines
    assert all(f"\n  {name}" in lines for name in PRESENT)


def test_an_unknown_subcommand_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["statsu"]) == USAGE
    assert "command must be one of" in capsys.readouterr().err
    assert bench.main(["nothing"]) == USAGE


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("a must be b"), USAGE, "a must be b"),
        (KeyError("model must be one"), USAGE, "model must be one"),
        (FileNotFoundError(2, "x", "f.yaml"), USAGE, "f.yaml: there is no such file"),
        (RuntimeError("no system"), FAILED, "no system"),
        (ConnectionError("no Ray"), FAILED, "no Ray"),
        (TimeoutError(), FAILED, "TimeoutError"),
        (KeyboardInterrupt(), FAILED, "interrupted"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_an_exit_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Parser("x", None, example="visutility x"), ["-o", "json"], raising(error)) == code
    captured = capsys.readouterr()
    assert captured.err == f"error: {told}\n"
    assert json.loads(captured.out) == {"error": told}


@pytest.mark.parametrize("asked", [["-o", "json"], ["--output=json"], ["-ojson"], []])
def test_a_wrong_command_line_is_told_to_a_program_too(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Parser("x", None, example="visutility x"), ["--no-such", *asked], raising(AssertionError())) == USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: visutility x")
    assert captured.err.endswith("error: unrecognized arguments: --no-such\n")
    assert captured.out == ('{"error": "unrecognized arguments: --no-such"}\n' if asked else "")


def raising(error: BaseException) -> Callable[[argparse.Namespace, Output], int]:
    def act(_arguments: argparse.Namespace, _output: Output) -> int:
        raise error

    return act


def test_config_check_prints_what_a_model_would_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "visutility.yaml"
    path.write_text("models: {fraud-*: {cooldown: 6h, handler: {kind: webhook, url: '${HOOK}'}}}")
    assert config.main(["check", str(path), "--model", "fraud-eu", "-o", "json"]) == FINE
    got = json.loads(capsys.readouterr().out)["models"]["fraud-eu"]
    assert (got["cooldown"], got["handler"]["url"], got["false_alarm_every"]) == ("6h", "${HOOK}", 10000)
    path.write_text("models: {m: {cooldwn: 6h}}")
    assert config.main(["check", str(path)]) == USAGE
    assert "models.m.cooldwn: unknown key, did you mean cooldown?" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["actors", "actors.drift", "actors.tuning", "drivers.cli", "drivers.config"])
def test_what_needs_no_ray_imports_none(module: str) -> None:
    code = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0

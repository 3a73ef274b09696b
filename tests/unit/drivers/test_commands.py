"""What every command keeps: a help that begins with lines to paste, the exit codes, errors of one line, JSON for programs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from drivers import cli
from drivers.commands import FAILED, FINE, USAGE, command, group, run
from drivers.output import Output
from tests.speed import slow

ROOT = Path(__file__).parents[3]
NAMES = [name for section in cli.SECTIONS.values() for name in section]
HELPS = dict(cli.helps())


@pytest.mark.parametrize("path", HELPS)
def test_the_first_line_of_every_help_is_a_command_line_of_it(path: str) -> None:
    first = HELPS[path].splitlines()[0]
    assert first.startswith(path) or path == "visutility tune"
    assert "Usage: " + path in HELPS[path]


@pytest.mark.parametrize("path", HELPS)
def test_every_example_is_understood(path: str) -> None:
    """Each example of a help is parsed by the command that it names, down to its own parameters."""
    import shlex

    for line in HELPS[path].splitlines():
        if not line:
            return
        parsed(shlex.split(line)[1:])


def parsed(arguments: list[str]) -> click.Context:
    """Parse a command line as `visutility` does, without running anything; UsageError where it is wrong."""
    ctx = cli.ROOT.make_context("visutility", list(arguments))
    while isinstance(ctx.command, click.Group):
        rest = [*ctx._protected_args, *ctx.args]
        if not rest:
            return ctx
        name, found, rest = ctx.command.resolve_command(ctx, rest)
        assert found is not None
        ctx = found.make_context(name, rest, parent=ctx)
    return ctx


def test_the_list_says_of_each_command_what_it_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == FINE
    listed = capsys.readouterr().out
    assert all(f"\n  {name}" in listed for name in NAMES)
    for section in cli.SECTIONS.values():
        for name, text in section.items():
            folder = ROOT / "drivers" / name
            file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            assert docstring.partition("\n")[0] == text, name


def test_each_command_is_a_module_that_runs_by_itself() -> None:
    for name in ("silence", "replay", "demo"):  # a file, and the two folders
        line = [sys.executable, "-m", f"drivers.{name}", "--help"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=slow(60), check=False)
        assert (done.returncode, done.stdout.partition(" ")[0]) == (0, "visutility"), name


@pytest.mark.parametrize("before", [True, False])
def test_an_unknown_command_is_a_usage_error_for_programs_too(before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-o", "json", "statsu"] if before else ["statsu", "-o", "json"]
    assert cli.main(asked) == USAGE
    captured = capsys.readouterr()
    assert "command must be one of up, " in captured.err
    assert captured.err.endswith("got 'statsu': did you mean status?\n")
    assert "got 'statsu'" in json.loads(captured.out)["error"]
    assert cli.main(["retrains", "lst"]) == USAGE
    assert "got 'lst': did you mean ls?" in capsys.readouterr().err
    assert cli.main(["silence"]) == USAGE
    assert "error: a command must follow: one of add, ls, expire\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("a must be b"), USAGE, "a must be b"),
        (KeyError("model must be one"), USAGE, "model must be one"),
        (FileNotFoundError(2, "x", "f.yaml"), USAGE, "f.yaml: there is no such file"),
        (FileNotFoundError(2, "no such file"), USAGE, "[Errno 2] no such file"),
        (KeyError(), USAGE, "KeyError"),
        (RuntimeError("no system"), FAILED, "no system"),
        (ConnectionError("no Ray"), FAILED, "no Ray"),
        (TimeoutError(), FAILED, "TimeoutError"),
        (KeyboardInterrupt(), FAILED, "interrupted"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_an_exit_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), ["-o", "json"]) == code
    captured = capsys.readouterr()
    assert captured.err == f"error: {told}\n"
    assert json.loads(captured.out) == {"error": told}


@pytest.mark.parametrize("asked", [["-o", "json"], ["--output=json"], ["--output", "json"], ["-ojson"], []])
def test_a_wrong_command_line_is_told_to_a_program_too(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(AssertionError()), ["--no-such", *asked]) == USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage: visutility x")
    assert captured.err.endswith("error: unrecognized arguments: --no-such\n")
    assert captured.out == ('{"error": "unrecognized arguments: --no-such"}\n' if asked else "")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["retrains", "show"], "the following arguments are required: ORDER"),
        (["retrains", "trigger", "m"], "the following arguments are required: --reason"),
        (["retrains", "ls", "--limit", "many"], "argument --limit: 'many' is not a valid integer."),
        (["retrains", "ls", "--modl", "m"], "unrecognized arguments: --modl: did you mean --model?"),
        (["stop", "now"], "unrecognized arguments: now"),
    ],
)
def test_a_usage_error_names_the_argument_and_what_is_wrong_with_it(
    asked: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(asked) == USAGE
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {told}"


def test_the_format_may_stand_before_or_after_the_command_and_the_last_one_counts(capsys: pytest.CaptureFixture[str]) -> None:
    def show(*, output: Output) -> int:
        output.line("for a person")
        output.result({"for": "a program"})
        return FAILED

    tree = group("x", "A group.", examples=["visutility x show"])
    tree.add_command(command("show", examples=["visutility x show"])(show))
    for asked in (["-o", "json", "show"], ["show", "-o", "json"], ["-o", "text", "show", "-o", "json"]):
        assert run(tree, asked) == FAILED
        assert capsys.readouterr().out == '{"for": "a program"}\n', asked
    assert run(tree, ["-o", "json", "show", "-o", "text"]) == FAILED
    assert capsys.readouterr().out == "for a person\n"


def raising(error: BaseException) -> click.Command:
    @command("x", examples=["visutility x"])
    def x(*, output: Output) -> int:
        raise error

    return x


def test_completion_offers_commands_options_and_choices() -> None:
    from click.shell_completion import BashComplete

    def offered(words: str, incomplete: str) -> list[str]:
        complete = BashComplete(cli.ROOT, {}, "visutility", "_VISUTILITY_COMPLETE")
        return [each.value for each in complete.get_completions(words.split(), incomplete)]

    assert offered("", "re") == ["reload", "report", "retrains", "replay", "restore", "reference"]
    assert offered("silence", "") == ["add", "ls", "expire"]
    assert "--duration" in offered("silence add", "--")
    assert offered("tune run --mode", "") == ["min", "max"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == FINE
    assert f"_VISUTILITY_COMPLETE={shell}_complete" in capsys.readouterr().out


MODULES = ["actors", "actors.drift", "actors.tuning", *(f"drivers.{name}" for name in ("cli", *NAMES))]


@pytest.mark.parametrize("module", MODULES)
def test_what_needs_no_ray_imports_none(module: str) -> None:
    heavy = "{'ray', 'sqlalchemy', 'pydantic', 'matplotlib', 'sklearn', 'pandas'}" if "drivers" in module else "{'ray'}"
    code = f"import sys, {module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=slow(60), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_status_imports_ray_and_nothing_else_that_is_heavy() -> None:
    modules = ("drivers.status", "actors.cluster.connection", "actors.cluster.peers", "actors.cluster.runner")
    code = (
        f"import sys, {', '.join(modules)}; sys.exit(' '.join({{'sqlalchemy', 'pydantic', 'numpy'}} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=slow(60), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

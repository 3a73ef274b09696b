"""No command breaks on what it prints to: ASCII, narrow, dumb, closed, full, or no terminal. Names are shown as they are."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers import cli
from drivers.commands import FAILED, FINE, USAGE
from drivers.names import plain
from drivers.output import Output
from tests.speed import slow
from tests.unit.drivers import every_command

ROOT = Path(__file__).parents[3]
LEAVES = [path.removeprefix("visutility ") for path in dict(cli.helps())]
CODES = {"": {FINE, FAILED, USAGE}, " -o json": {FINE, FAILED, USAGE}, " --help": {FINE}}


def test_every_command_is_among_those_that_are_tried(tmp_path: Path) -> None:
    groups = {path.rpartition(" ")[0] for path in LEAVES if " " in path}
    assert set(every_command.lines(tmp_path)) == set(LEAVES) - groups


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in {"LANG", "LC_ALL", "PYTHONUTF8", "COLUMNS", "TERM"}
    }
    return {**kept, **more}


def tried(tmp_path: Path, env: Mapping[str, str], **how: Any) -> dict[str, Any]:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.unit.drivers.every_command", str(report), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=dict(env), check=False, timeout=slow(120), **how)
    codes: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return codes


def assert_none_broke(codes: Mapping[str, Any]) -> None:
    for line, code in codes.items():
        form = next(suffix for suffix in (" -o json", " --help", "") if line.endswith(suffix))
        assert code in CODES[form], f"{line}: {code}"


def test_no_command_breaks_on_a_pipe_that_takes_ascii_only(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        env = environment(PYTHONIOENCODING="ascii", LC_ALL="C")
        assert_none_broke(tried(tmp_path, env, stdout=out, stderr=err))
    printed = (tmp_path / "out").read_bytes() + (tmp_path / "err").read_bytes()
    assert printed.isascii()
    assert b"Traceback" not in printed
    assert b"mod\\xe8le" in printed


@pytest.mark.parametrize(
    "env", [{"COLUMNS": "20", "TERM": "xterm"}, {"TERM": "dumb"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}]
)
def test_no_command_breaks_on_a_terminal_that_is_narrow_or_dumb_or_ascii(env: dict[str, str], tmp_path: Path) -> None:
    here, there = pty.openpty()
    seen: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunk = os.read(here, 65536)
            except OSError:  # the other side is closed
                return
            if not chunk:
                return
            seen.append(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    codes = tried(tmp_path, environment(**env), stdin=there, stdout=there, stderr=there)
    os.close(there)
    reader.join(slow(10))
    os.close(here)
    assert_none_broke(codes)
    printed = b"".join(seen)
    assert b"Traceback" not in printed
    assert printed.isascii() or "PYTHONIOENCODING" not in env
    assert b"\x1b[31m" not in printed  # a message does not command the terminal


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_command_breaks_on_a_stream_that_is_closed(closed: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    line = f'exec "$0" -m tests.unit.drivers.every_command "$1" "$2" {closed}'
    command = ["bash", "-c", line, sys.executable, str(report), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=False, timeout=slow(120), capture_output=True)
    assert_none_broke(json.loads(report.read_text(encoding="utf-8")))


def test_what_cannot_be_written_is_a_failure_and_not_a_success(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("defaults: {cooldown: 7m}\n")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "drivers.cli", "config", "check", str(config)]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=slow(60))
    assert done.returncode == FAILED
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fraud", "fraud"),
        ("fr\u0430ud", "fr\\u0430ud"),  # a Cyrillic a
        ("\u0430\u0441\u0435", "\\u0430\\u0441\\u0435"),  # all three letters Cyrillic
        ("\uff46raud", "\\uff46raud"),  # a full-width f
        ("\u043c\u043e\u0434\u0435\u043b\u044c-2", "\u043c\u043e\u0434\u0435\u043b\u044c-2"),  # a Russian word
        ("modèle", "modèle"),
        ("日本/fraud", "日本/fraud"),
        ("5 μs", "5 μs"),
        ("fraud\u200b", "fraud\\u200b"),
        ("a\u202eb", "a\\u202eb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\ud800", "\\ud800"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_names_that_look_alike_are_told_apart(name: str, shown: str) -> None:
    assert plain(name) == shown
    assert plain(shown) == shown


def test_whatever_is_printed_for_a_person_is_escaped_and_json_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    name = "fr\u0430ud"
    output = Output()
    output.line(f"model {name}")
    output.table("", ["model"], [[name], [[name]], [{name: name}]])
    output.note(name)
    output.error(name)
    captured = capsys.readouterr()
    assert name not in captured.out + captured.err
    assert captured.out.splitlines() == ["model fr\\u0430ud", "model", "fr\\u0430ud", "fr\\u0430ud", "fr\\u0430ud=fr\\u0430ud"]
    Output("json").result({"model": name})
    assert json.loads(capsys.readouterr().out) == {"model": name}

"""The border between logic and processes is guarded, and its guards can fail."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.speed import slow

ROOT = Path(__file__).parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {contract["id"]: contract for contract in CONFIGURATION["tool"]["importlinter"]["contracts"]}
LOGIC = CONTRACTS["logic-without-ray"]["source_modules"]

# Reading a clock or drawing without a seed by other ways than an import that the linter sees.
CALLS = ("SystemClock(", "default_rng()", "os.urandom(", "np.random.rand", "np.random.normal(", "np.random.seed(", "time.time(")


def sources() -> Iterator[Path]:
    for module in LOGIC:
        path = ROOT / module.replace(".", "/")
        yield from path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]


def forbidden_calls(source: str) -> list[str]:
    """Return the calls in `source` that logic must not make."""
    made = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in made if any(each in call for each in CALLS)]


def test_both_contracts_speak_of_the_same_modules_and_all_of_them_exist() -> None:
    assert CONTRACTS["logic-without-clock"]["source_modules"] == LOGIC
    assert all(path.exists() for path in sources())


def test_no_logic_reads_a_clock_or_draws_without_a_seed() -> None:
    found = {path.name: calls for path in sources() if (calls := forbidden_calls(path.read_text(encoding="utf-8")))}
    assert found == {}


@pytest.mark.parametrize("line", ["t = SystemClock().now()", "r = numpy.random.default_rng()", "x = os.urandom(4)"])
def test_the_look_at_calls_can_fail(line: str) -> None:
    assert forbidden_calls(line)


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=slow(120), check=False
    )


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [
        ("floor-plan", "actors/storage/fence.py", "import actors.cluster.deployment"),
        ("floor-plan", "actors/metrics/client.py", "import actors.tuning.client"),
        ("floor-plan", "actors/wire/names.py", "import actors.config"),
        ("one-direction", "actors/events.py", "import drivers.cli"),
        ("room", "actors/detection/tables.py", "import actors.detection.state"),
        ("room", "actors/retraining/rules/gate.py", "import actors.retraining.tables"),
        ("room", "actors/tuning/state.py", "import actors.tuning.tuner"),
        ("room", "actors/metrics/client.py", "import actors.metrics.broadcaster"),
        ("room-tuning", "actors/tuning/plot.py", "import actors.tuning.study"),
        ("logic-without-ray", "actors/drift/sliding_window.py", "import ray"),
        ("logic-without-ray", "actors/tuning/rules/book.py", "import actors.storage"),
        ("logic-without-ray", "actors/config/settings.py", "import actors.storage"),
        ("logic-without-clock", "actors/detection/rules/episodes.py", "import time"),
        ("logic-without-clock", "actors/retraining/rules/gate.py", "import os"),
    ],
)
def test_a_planted_breach_breaks_its_contract(contract: str, file: str, line: str, tmp_path: Path) -> None:
    """The negative control of each contract: one import that it forbids, put into a copy of the sources."""
    for name in ("actors", "drivers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = linted(tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"{CONTRACTS[contract]['name']} BROKEN" in done.stdout

"""The short chaos run: random faults leave no trace on either store, and every control that takes a protection away is caught.

Each run is the command itself, in a process with a Ray of its own. `make chaos` is the long version. How long anything took is
not asserted here: the command's own table does that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.speed import slow

ROOT = Path(__file__).parents[2]


def chaos(*arguments: str, timeout_s: float) -> dict[str, Any]:
    """Run `python -m tests.chaos ARGUMENTS -o json` and give what it told."""
    folder = tempfile.mkdtemp(prefix="vc-", dir="/tmp")  # short: the path of Ray's sockets below it may have 107 characters
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "VISUTILITY_"))}
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.chaos", *arguments, "-o", "json"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=inherited | settings, capture_output=True, text=True, timeout=slow(timeout_s), check=False
        )
        assert done.stdout, f"{arguments} broke off:\n{done.stderr[-4000:]}"
        told: dict[str, Any] = json.loads(done.stdout)
        assert "error" not in told, told["error"]
        return told
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("storage", "seconds"), [(None, 15), ("postgresql", 30)])
def test_random_faults_lose_nothing_and_do_nothing_twice(storage: str | None, seconds: int) -> None:
    where = ["--storage", storage] if storage else []
    told = chaos("--seconds", str(seconds), "--seed", "7", *where, timeout_s=230)
    assert not told["breached"], json.dumps({key: told[key] for key in ("rows", "examples")}, indent=1)
    assert told["faults"].get("actor kill", 0) >= 3
    assert told["acknowledged"] > 10_000
    assert told["orders"] > 0


@pytest.mark.timeout(240)
def test_a_protection_that_is_taken_away_is_missed() -> None:
    told = chaos("--control", "all", timeout_s=230)
    assert {name: caught for name, _, caught, _ in told["rows"]} == dict.fromkeys(
        ("no-trim", "no-fence", "no-put-if-absent", "no-rearm", "early-reply"), True
    ), json.dumps(told["rows"], indent=1)

"""Runs a scenario in a process of its own, because it needs a Ray of its own: several nodes, a token, a dashboard.

    alone("tests.cluster.scenarios.nodes", "spread", url=..., folder=...)

The session's Ray (conftest.py) goes on alongside it, unharmed: the scenario's Ray has its own temporary folder.
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

from tests.speed import slow

ROOT = Path(__file__).parents[2]


def alone(
    module: str, scenario: str, *, environment: dict[str, str] | None = None, timeout_s: float = 280, **arguments: str
) -> Any:
    """Run `module.scenario(**arguments)` in a new process and give what it returned, or fail with its output."""
    # Short: the path of Ray's sockets below it may have 107 characters.
    folder = tempfile.mkdtemp(prefix="vr-", dir="/tmp")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    reply = Path(folder) / "reply.json"
    command = [sys.executable, "-m", "tests.cluster.alone", module, scenario, str(reply)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=inherited | settings | (environment or {}),
            input=json.dumps(arguments),  # not on the command line: Ray notes that of every driver, and some are secrets
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=slow(timeout_s),
            check=False,
        )
        assert done.returncode == 0, f"{scenario} failed:\n{done.stdout[-6000:]}"
        return json.loads(reply.read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def chaos(*arguments: str, timeout_s: float) -> dict[str, Any]:
    """Run `python -m tests.chaos ARGUMENTS -o json`, which begins a Ray by itself, and return its output."""
    folder = tempfile.mkdtemp(prefix="vc-", dir="/tmp")
    # What the tests of this process set for their own systems is not for that one; how slow the machine is is.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "VISUTILITY_")) or name == "VISUTILITY_TESTS_SLOWER"
    }
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


def main(module: str, scenario: str, reply: str) -> None:
    import importlib

    found = getattr(importlib.import_module(module), scenario)(**json.load(sys.stdin))
    Path(reply).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

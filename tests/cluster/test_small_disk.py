"""A disk that fills up under a whole system: nothing acknowledged is lost, and it recovers when there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actors
from actors.system import System
from tests.speed import slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk of one's own needs root; tests/contracts/test_store_in_trouble.py has the same without")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a disk of one's own cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def events(system: System) -> int:
    return int(system.status()["models"]["m"]["events"])


def until(true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + slow(timeout_s)
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_a_full_disk_refuses_until_there_is_room_again(
    start: Callable[..., System], namespace: str, settings: dict[str, Any], disk: Path
) -> None:
    settings["storage"] = f"sqlite:///{disk}/store"
    system = start()
    metrics = actors.connect(namespace=namespace).metrics
    random = np.random.default_rng(1)
    logged = 0

    def log(n: int) -> None:
        nonlocal logged
        metrics.log_batch(
            {"accuracy": random.uniform(0.8, 0.9, n)}, model="m", version="v1", timestamps=random.uniform(0, 1e9, n)
        )
        logged += n

    log(5_000)
    assert metrics.flush(slow(20))["pending"] == 0
    log(400_000)  # more than 8 MB
    until(lambda: shutil.disk_usage(disk).free < 1_000_000, "the disk fills up")
    told = metrics.flush(3.0)
    assert told["pending"] > 0, "the disk takes more than it has"
    assert told["accepted"] == logged - told["pending"]
    assert told["dropped"] == told["rejected"] == 0
    # Read what the store has, now and after the repair: what was acknowledged is there, what was refused comes once.
    assert told["accepted"] <= events(system) <= logged
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    until(lambda: metrics.flush(1.0)["pending"] == 0, "the disk has room again, and nothing is taken")
    assert metrics.flush(0)["accepted"] + metrics.flush(0)["duplicate"] == logged == events(system)

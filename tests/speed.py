"""How much slower than the machine that the deadlines were written on this one is: measured once, at the start of a run.

    eventually(lambda: found(), "it is found", within_s=slow(60.0))

A deadline only says when to stop hoping. On a machine that is three times slower, or busy with something else, it comes three
times later; it never comes earlier than it was written. Where files of tests run side by side (`make test`), each gets a share
of the machine only, and its deadlines come as many times later.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import Final

# On two quiet cores: a loop in Python, hashing, and a new process, which is what the cluster tests mostly wait for.
_REFERENCE_S: Final = 0.2
_MOST: Final = 10.0
# The processes that a test starts measure nothing again.
_KNOWN: Final = "VISUTILITY_TESTS_SLOWER"


def factor() -> float:
    """Return how many times slower this machine is, 1 or more."""
    if _KNOWN not in os.environ:
        os.environ[_KNOWN] = f"{_measured(min(_took_s() for _ in range(3))):.2f}"
    return float(os.environ[_KNOWN])


def share(workers: int) -> None:
    """Let every process that begins after this expect a share of the machine among `workers`."""
    os.environ[_KNOWN] = f"{factor() * workers:.2f}"


def slow(seconds: float) -> float:
    """Return the deadline `seconds` as this machine needs it."""
    return seconds * factor()


def _measured(took_s: float) -> float:
    return min(max(took_s / _REFERENCE_S, 1.0), _MOST)


def _took_s() -> float:
    began_s = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number & 7
    hashlib.sha256(bytes(40_000_000)).digest()
    subprocess.run([sys.executable, "-c", "import json, logging, asyncio"], check=True)
    return time.perf_counter() - began_s

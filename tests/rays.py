"""Rays start one after another, whichever process of tests starts them.

    with start_alone():
        ray.init(address="local")

Ray gives each of its processes half a minute to answer. Two Rays that start at once on two cores need longer than that on a
slow machine, and the deadline is Ray's own. The lock is the machine's, not a run's: runs in two checkouts wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = Path(tempfile.gettempdir()) / f"visutility-tests-rays-{os.getuid()}.lock"


@contextmanager
def start_alone(lock: Path = _LOCK) -> Iterator[None]:
    """Wait until nobody else starts a Ray, and let others wait for this one. A process that is killed lets go of it."""
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield

"""Named places at which a test can make a process stop, wait or fail; nothing happens unless a test armed one.

A test sets `VISUTILITY_FAILPOINTS` to a folder before Ray starts and arms a point by writing an action into a file of that
name (`arm`): `exit` (like kill -9), `raise`, or `sleep SECONDS`. The first process that reaches it removes the file, so
an armed point strikes exactly once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_FOLDER = os.environ.get("VISUTILITY_FAILPOINTS")


class FailpointError(RuntimeError):
    """What an armed `raise` raises."""


def reach(name: str) -> None:
    """Mark the place `name`; costs one comparison unless failpoints are switched on."""
    if _FOLDER is not None:
        _strike(Path(_FOLDER) / name)


def arm(folder: Path, name: str, action: str) -> None:
    """Make the next process that reaches `name` carry out `action`."""
    waiting = folder / f".{name}"
    waiting.write_text(action, encoding="ascii")
    waiting.rename(folder / name)


def _strike(point: Path) -> None:
    try:
        action = point.read_text(encoding="ascii")
        point.unlink()
    except FileNotFoundError:
        return
    match action.split():
        case ["exit"]:
            os._exit(137)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["raise"]:
            raise FailpointError(point.name)
        case _:
            raise ValueError(f"failpoint {point.name}: unknown action {action!r}")

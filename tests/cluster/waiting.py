"""Waits for what Ray brings about in its own time: for the event, with a deadline, never for a guessed delay."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.speed import slow


def eventually(check: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Return what `check()` gives as soon as it gives something; AssertionError names `what` did not come."""
    within_s = slow(within_s)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")

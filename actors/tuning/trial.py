"""One trial of a study as a user reads it, and functions of several trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.plain import Json
from actors.tuning.rules.book import COMPLETED


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. `seconds` is the duration of its last attempt, `finished_at` seconds since the epoch, `node` Ray's node id."""

    id: int
    params: Json
    value: float | None
    state: str
    attempts: int
    error: str | None
    seconds: float | None
    node: str | None
    finished_at: float | None


def best_of(trials: Iterable[Trial], mode: str) -> Trial | None:
    """Return the completed trial with the best value, the earliest of equals; None where none has completed.

    >>> none = {"params": {}, "attempts": 1, "error": None, "seconds": 0.1, "node": None, "finished_at": None}
    >>> trials = [Trial(id=i, value=v, state="COMPLETED", **none) for i, v in enumerate([3.0, 1.0, 1.0])]
    >>> best_of(trials, "min").id
    1
    """
    sign = -1.0 if mode == "max" else 1.0
    completed = [trial for trial in trials if trial.state == COMPLETED and trial.value is not None]
    return min(completed, key=lambda trial: (sign * (trial.value or 0.0), trial.id), default=None)


def best_so_far(trials: Iterable[Trial], mode: str) -> list[tuple[int, float]]:
    """Return (trial, best value up to it) in the order of trials, completed ones only."""
    better = max if mode == "max" else min
    curve: list[tuple[int, float]] = []
    for trial in trials:
        if trial.state == COMPLETED and trial.value is not None:
            curve.append((trial.id, better(trial.value, curve[-1][1]) if curve else trial.value))
    return curve

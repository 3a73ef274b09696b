"""The replacement for a detector that cannot process its metric: it reports why, and watches nothing."""

from __future__ import annotations

import numpy.typing as npt

from actors.drift.interface import Alarm, Progress, pack_state, unpack_state

_REASON_CHARACTERS = 300


class Unusable:
    """The metric is in the state `error`: its events count, other metrics go on, and this one is watched no more.

    Args:
        detector: the name of the detector that it replaces.
        reason: what that detector said of the values.

    >>> Unusable("river:DDM", "values must be 0 or 1").progress()["state"]
    'error'
    """

    name = "unusable"

    def __init__(self, detector: str, reason: str) -> None:
        self.detector = detector
        self.reason = reason[:_REASON_CHARACTERS]

    def update(self, values: npt.ArrayLike) -> list[Alarm]:  # a detector's interface
        """Take nothing."""
        return []

    def baseline(self, values: npt.ArrayLike) -> None:
        """Learn nothing."""

    def progress(self) -> Progress:
        """Return the state `error`, with the reason."""
        return {
            "state": "error",
            "baseline": None,
            "recent": None,
            "seen": 0,
            "warmup": 0,
            "n_baseline": 0,
            "statistic": 0.0,
            "threshold": 0.0,
            "error": self.reason,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs."""
        return pack_state(self.name, {"detector": self.detector}, {"reason": self.reason})

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken; ValueError where it stood in for another detector."""
        self.reason = unpack_state(self.name, {"detector": self.detector}, state)["reason"]

    def reset(self) -> None:
        """Stay what it is: the values are those of the metric."""

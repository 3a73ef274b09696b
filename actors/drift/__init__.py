"""Drift detection: pure logic, one detector a file, made by name with `create`.

A detector is fed one metric's values in the order of the events and answers with alarms. `docs/explanation/detection.md` says
how well each of them does it.
"""

from actors.drift.budget import share_budget
from actors.drift.challenger import ChallengerTest, Comparison
from actors.drift.directions import usual_direction
from actors.drift.interface import Alarm, Direction, DriftStrategy, Progress
from actors.drift.ns_glr import NormalScoresGLR
from actors.drift.registry import check, create, describe, names
from actors.drift.season import Seasonal, SeasonProfile, knots_of
from actors.drift.shortfall import BudgetPrice, Shortfall, Stretch
from actors.drift.sliding_window import SlidingWindowDriftDetector
from actors.drift.windows import whole_hits

__all__ = [
    "Alarm",
    "BudgetPrice",
    "ChallengerTest",
    "Comparison",
    "Direction",
    "DriftStrategy",
    "NormalScoresGLR",
    "Progress",
    "SeasonProfile",
    "Seasonal",
    "Shortfall",
    "SlidingWindowDriftDetector",
    "Stretch",
    "check",
    "create",
    "describe",
    "knots_of",
    "names",
    "share_budget",
    "usual_direction",
    "whole_hits",
]

"""Tuning: the Tuner, its workers, and search strategies that serve without Ray.

The public names load on demand: the child process of a worker imports this package on its way to `executors` and needs none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.tuning.strategies.create import create
    from actors.tuning.strategies.grid import GridTuner
    from actors.tuning.strategies.interface import ExhaustedError, Learner, PastTrial, TuningStrategy
    from actors.tuning.strategies.random_search import RandomSearchTuner

__all__ = ["ExhaustedError", "GridTuner", "Learner", "PastTrial", "RandomSearchTuner", "TuningStrategy", "create"]

_HOMES = {
    "create": "create",
    "GridTuner": "grid",
    "ExhaustedError": "interface",
    "Learner": "interface",
    "PastTrial": "interface",
    "TuningStrategy": "interface",
    "RandomSearchTuner": "random_search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"actors.tuning.strategies.{_HOMES[name]}"), name)

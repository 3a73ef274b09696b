"""Tuning: the Tuner, its workers, and search strategies that serve without Ray.

The public names load on demand: the child process of a worker imports this package on its way to `executors` and needs none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.tuning.client import StudyError, Tuning
    from actors.tuning.executors.trial import RunningTrial
    from actors.tuning.offline import list_studies, read_study
    from actors.tuning.rules.plan import StudyOptions
    from actors.tuning.strategies.create import create
    from actors.tuning.strategies.grid import GridTuner
    from actors.tuning.strategies.interface import ExhaustedError, Learner, PastTrial, TuningStrategy
    from actors.tuning.strategies.random_search import RandomSearchTuner
    from actors.tuning.study import Study
    from actors.tuning.trial import Trial

__all__ = [
    "ExhaustedError",
    "GridTuner",
    "Learner",
    "PastTrial",
    "RandomSearchTuner",
    "RunningTrial",
    "Study",
    "StudyError",
    "StudyOptions",
    "Trial",
    "Tuning",
    "TuningStrategy",
    "create",
    "list_studies",
    "read_study",
]

_HOMES = {
    "create": "strategies.create",
    "GridTuner": "strategies.grid",
    "ExhaustedError": "strategies.interface",
    "Learner": "strategies.interface",
    "PastTrial": "strategies.interface",
    "TuningStrategy": "strategies.interface",
    "RandomSearchTuner": "strategies.random_search",
    "RunningTrial": "executors.trial",
    "StudyOptions": "rules.plan",
    "Study": "study",
    "Trial": "trial",
    "StudyError": "client",
    "Tuning": "client",
    "read_study": "offline",
    "list_studies": "offline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"actors.tuning.{_HOMES[name]}"), name)

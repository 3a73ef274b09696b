"""The plans of the negative controls: the few faults, at the right places, that the missing protection lets through.

The same plan without the control must leave no trace: that is the control of the controls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from drivers.chaos.campaign import Run

PHASE_S: Final = 5.0
COOLDOWN_S: Final = 3.5
SECONDS: Final = 12.0
_TIMES: Final = 3


def _replies_lost(run: Run) -> None:
    """Let commits come through whose replies do not: the producers send again."""
    for _ in range(_TIMES):
        run.faults.at_boundary("detector.before_reply")
        run.faults.recovered()


def _commits_lost(run: Run) -> None:
    """Let calls come in whose commits do not come through."""
    for _ in range(_TIMES):
        run.faults.at_boundary("detector.before_commit")
        run.faults.recovered()


def _zombies(run: Run) -> None:
    """Let succeeded processes commit."""
    random = np.random.default_rng(run.scenario.seed)
    run.zombies.of_a_detector(random)
    run.faults.recovered()
    run.zombies.of_the_dispatcher()


def _answers_cut(run: Run) -> None:
    """Let the receiver launch and its answer be lost (see `cuts_every`): the dispatcher sends again."""
    _wait_for_phases(run, 3)


def _effects_late(run: Run) -> None:
    """Let time pass between the claim, which arms the cooldown, and the effect."""
    for _ in range(2):
        run.faults.strike("dispatcher.before_effect", "sleep 3")
        _wait_for_phases(run, 2)


def _wait_for_phases(run: Run, phases: int) -> None:
    time.sleep(phases * run.scenario.phase_s)


DRILLS: Final[dict[str, Callable[[Run], None]]] = {
    "no-trim": _replies_lost,
    "early-reply": _commits_lost,
    "no-fence": _zombies,
    "no-put-if-absent": _answers_cut,
    "no-rearm": _effects_late,
}


def all_of_them(run: Run) -> None:
    """Do all that the controls' plans do."""
    for drill in DRILLS.values():
        drill(run)

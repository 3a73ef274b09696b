"""The plans of the negative controls: the few faults, at the right places, that the missing protection lets through."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from tests.chaos import checker
from tests.chaos.campaign import Plan, Run
from tests.speed import slow

PHASE_S: Final = 5.0
# As long as a phase, which opens one episode: the next request comes as the cooldown of the claim before it ends.
COOLDOWN_S: Final = 5.0
SECONDS: Final = 12.0
EVENTS: Final = 18_000
# The dispatcher tries again after a second: well within what is left of the phase, whose end expires an order not yet launched.
LATE_S: Final = 0.7
_TIMES: Final = 2
_CHANCES: Final = 4
# How long to wait for the orders of the webhook, and how often to look.
_PATIENCE_S: Final = slow(60.0)
_LOOK_S: Final = 0.2


def plan(names: Sequence[str]) -> Plan:
    """Return the plan that does what each of these controls needs."""

    def act(run: Run) -> None:
        for name in names:
            _DRILLS[name](run)

    return act


def crew(names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the producers and the number of consumers that are enough for it: each costs seconds to begin."""
    return ("packed", "plain") if "no-trim" in names else ("packed",), 1


def _replies_lost(run: Run) -> None:
    """Kill processes after a commit and before its reply: the producers send again."""
    for _ in range(_TIMES):
        run.faults.at_boundary("detector.before_reply")
        run.faults.recovered()


def _commits_lost(run: Run) -> None:
    """Kill processes before the commit of calls that have arrived."""
    for _ in range(_TIMES):
        run.faults.at_boundary("detector.before_commit")
        run.faults.recovered()


def _zombies(run: Run) -> None:
    """Let replaced processes commit."""
    run.zombies.of_a_detector(np.random.default_rng(run.scenario.seed))
    run.faults.recovered()
    run.zombies.of_the_dispatcher()


def _answers_cut(run: Run) -> None:
    """Let the receiver launch and its answer be lost (see `cuts_every`): the dispatcher sends again."""
    _wait_until(lambda: run.receiver.launched(times=2) > 0)


def _effects_late(run: Run) -> None:
    """Let time pass between the claim, which arms the cooldown, and the effect (see `late_s`); the next order comes on time.

    A slow machine may let the next one come late as well, which is no breach: it gets a few chances.
    """

    def seen() -> bool:
        gaps = run.receiver.after_late()
        return len(gaps) >= _CHANCES or any(gap < run.scenario.cooldown_s - checker.CLOCK_S for gap in gaps)

    _wait_until(seen)


def _wait_until(seen: Callable[[], bool]) -> None:
    """Wait for the event of the drill, not for a guessed time: on a loaded machine it comes later."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not seen() and time.monotonic() < deadline_s:
        time.sleep(_LOOK_S)


_DRILLS: Final[dict[str, Callable[[Run], None]]] = {
    "no-trim": _replies_lost,
    "early-reply": _commits_lost,
    "no-fence": _zombies,
    "no-put-if-absent": _answers_cut,
    "no-rearm": _effects_late,
}

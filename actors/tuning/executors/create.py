"""Makes an executor by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from actors.tuning.executors.inline import InlineExecutor
from actors.tuning.executors.trial import Assignment, TrialTerms
from actors.tuning.rules.steps import Outcome


class Executor(Protocol):
    """Runs one trial at a time."""

    def run(self, assignment: Assignment) -> Outcome:
        """Run one attempt to its outcome; raises nothing."""

    def cancel(self) -> bool:
        """Interrupt what runs, from another thread; False where that is impossible."""

    def close(self) -> None:
        """Free processes and files."""


def create(
    executor: str,
    shipped: bytes,
    terms: TrialTerms,
    *,
    reported: Callable[[Assignment, int, float], bool],
    seed_of: Callable[[int], int],
) -> Executor:
    """Make the executor of that name; LoadError where the objective cannot be opened.

    `reported` gets every `trial.report` and says whether to go on; `seed_of` gives a trial's seed.
    """
    if executor == "inline":
        return InlineExecutor(shipped, terms, reported=reported, seed_of=seed_of)
    from actors.tuning.executors.isolated import IsolatedExecutor  # noqa: PLC0415  0.03 s that an inline worker does without

    return IsolatedExecutor(shipped, terms, reported=reported, seed_of=seed_of, one_trial_per_child=executor == "fork")

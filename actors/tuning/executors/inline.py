"""The fastest executor: the objective runs in the worker itself, and can take the worker with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from actors.tuning.executors.trial import Assignment, Objective, RunningTrial, TrialTerms
from actors.tuning.rules.steps import Outcome


class InlineExecutor:
    """Runs trials in this process. It cannot interrupt one: no time-out, and a crash costs the worker."""

    def __init__(
        self,
        shipped: bytes,
        terms: TrialTerms,
        *,
        reported: Callable[[Assignment, int, float], bool],
        seed_of: Callable[[int], int],
    ) -> None:
        """Open the objective; LoadError where it cannot be opened."""
        self._objective = Objective(shipped)
        self._context = terms.context
        self._reported = reported
        self._seed_of = seed_of

    def run(self, assignment: Assignment) -> Outcome:
        """Run one attempt."""
        seed = partial(self._seed_of, assignment.trial)
        return self._objective(
            RunningTrial(assignment, seed=seed, context=self._context, reported=partial(self._reported, assignment))
        )

    def cancel(self) -> bool:
        """Say that nothing can be interrupted here."""
        return False

    def close(self) -> None:
        """Nothing to close."""

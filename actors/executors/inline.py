"""The fastest executor: the objective runs in the worker itself, and can take the worker with it."""

from __future__ import annotations

from collections.abc import Callable

from actors.executors.trial import Assignment, Objective, Outcome, Study


class InlineExecutor:
    """Runs trials in this process. It cannot interrupt one: no time-out, and a crash costs the worker."""

    def __init__(self, shipped: bytes, study: Study, reported: Callable[[Assignment, int, float], bool]) -> None:
        """Open the objective; LoadError where it cannot be opened."""
        self._objective = Objective(shipped)
        self._study = study
        self._reported = reported

    def run(self, assignment: Assignment) -> Outcome:
        """Run one attempt."""
        return self._objective(assignment, self._study, lambda step, value: self._reported(assignment, step, value))

    def cancel(self) -> bool:
        """Say that nothing can be interrupted here."""
        return False

    def close(self) -> None:
        """Nothing to close."""

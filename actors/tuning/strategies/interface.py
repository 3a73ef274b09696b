"""What every search strategy offers, and what a learning one offers besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from actors.replies import Json


class ExhaustedError(LookupError):
    """The strategy has no further parameters: every point of a grid has been given."""


@runtime_checkable
class TuningStrategy(Protocol):
    """Says what to try next: the nth call of `next_params` makes trial n.

    It reads no clock and no global randomness. Two optional methods make more of it: `tell` (see Learner) and `resume`
    (see Resumable); an attribute `size` bounds the number of trials.

    >>> class Halves:
    ...     def __init__(self, space, *, seed):
    ...         self.x = 1.0
    ...
    ...     def next_params(self):
    ...         self.x /= 2
    ...         return {"x": self.x}
    >>> isinstance(Halves({"x": [0, 1]}, seed=1), TuningStrategy)
    True
    """

    def next_params(self) -> Json:
        """Return the parameters of the next trial, as values that encode as JSON; ExhaustedError where there are none."""


@runtime_checkable
class Learner(Protocol):
    """A strategy that learns from results."""

    def tell(self, trial: int, loss: float | None) -> None:
        """Take the outcome of a trial: smaller is better whatever the study's mode; None where the trial failed."""


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial that was handed out before a restart."""

    params: Json
    finished: bool
    loss: float | None  # None: failed, or not finished yet


@runtime_checkable
class Resumable(Protocol):
    """A strategy that can take up a study where another process left it."""

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Take trials 0, 1, ... as handed out; called once, before anything else."""


def resume(strategy: TuningStrategy, past: Sequence[PastTrial]) -> None:
    """Bring a fresh `strategy` to where it was: by its own `resume`, else by asking again and telling again."""
    if isinstance(strategy, Resumable):
        strategy.resume(past)
        return
    for _ in past:
        strategy.next_params()
    if isinstance(strategy, Learner):
        for number, trial in enumerate(past):
            if trial.finished:
                strategy.tell(number, trial.loss)

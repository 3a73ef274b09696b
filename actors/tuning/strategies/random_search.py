"""Random search: independent uniform draws (Bergstra and Bengio, 2012, JMLR 13:281)."""

from __future__ import annotations

from collections.abc import Sequence

from actors.replies import Json
from actors.tuning.strategies.interface import PastTrial
from actors.tuning.strategies.seeds import fresh_seed, uniform_draws
from actors.tuning.strategies.space import parse


class RandomSearchTuner:
    """Draws every parameter of every trial independently; trial n is a function of (seed, n) alone.

    >>> tuner = RandomSearchTuner({"lr": [1e-5, 1e-2, "log"], "layers": [1, 8, "int"]}, seed=7)
    >>> tuner.next_params()["layers"]
    3
    """

    def __init__(self, space: object, *, seed: int | None = None) -> None:
        """Search `space`; without a seed each instance draws its own. ValueError names what is wrong with the space."""
        self.space = parse(space)
        self.seed = fresh_seed() if seed is None else seed
        self._next = 0

    def next_params(self) -> Json:
        """Return the parameters of the next trial."""
        params = self.params_of(self._next)
        self._next += 1
        return params

    def params_of(self, trial: int) -> Json:
        """Return the parameters of trial `trial`, whichever have been asked for before."""
        return self.space.at(uniform_draws(self.seed, trial, len(self.space.parameters)))

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Go on after the trials that were handed out."""
        self._next = len(past)

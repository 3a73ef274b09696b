"""SciPy's quasi-random sequences as strategies: `scipy:Sobol`, `scipy:Halton`, `scipy:LatinHypercube`.

They spread the first trials more evenly than chance does. They showed no consistent win over random search in our
measurements, so none of them is a default.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from actors.replies import Json
from actors.tuning.strategies.interface import PastTrial
from actors.tuning.strategies.seeds import fresh_seed
from actors.tuning.strategies.space import parse

ENGINES = ("Sobol", "Halton", "LatinHypercube")


class ScipyTuner:
    """Follows one scrambled sequence of scipy.stats.qmc; trial n is a function of (seed, n) alone."""

    def __init__(self, space: object, *, engine: str, seed: int | None = None, **options: Any) -> None:
        """Search `space` along `engine`; ValueError for an unknown one, or where SciPy is not installed."""
        if engine not in ENGINES:
            raise ValueError(f"strategy 'scipy:{engine}' is unknown, expected one of {', '.join(ENGINES)}")
        try:
            from scipy.stats import qmc  # noqa: PLC0415  an extra, and a second to import
        except ImportError:
            raise ValueError(f"strategy 'scipy:{engine}' needs SciPy: pip install 'visutility[scipy]'") from None
        self.space = parse(space)
        self.seed = fresh_seed() if seed is None else seed
        try:
            self._engine = getattr(qmc, engine)(d=len(self.space.parameters), rng=self.seed, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"strategy 'scipy:{engine}': {error}") from None

    def next_params(self) -> Json:
        """Return the next point of the sequence."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Sobol wants powers of two, a study of any length does not
            point = self._engine.random(1)[0]
        return self.space.at(point.tolist())

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Go on after the trials that were handed out; point by point, since not every engine skips the way it draws."""
        for _ in past:
            self.next_params()

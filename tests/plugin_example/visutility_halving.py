"""An example of a plug-in: a strategy that another package brings along."""

from __future__ import annotations

from typing import Any


class Halving:
    """Halves the first parameter from trial to trial, from the middle of its range on."""

    def __init__(self, space: dict[str, Any], *, seed: int, factor: float = 2.0) -> None:
        if not factor > 1:
            raise ValueError(f"strategy: factor must be above 1, got {factor!r}")
        self._name, (low, high, *_) = next(iter(space.items()))
        self._low, self._width, self._factor = low, (high - low), factor

    def next_params(self) -> dict[str, Any]:
        """Return the parameters of the next trial."""
        self._width /= self._factor
        return {self._name: self._low + self._width}

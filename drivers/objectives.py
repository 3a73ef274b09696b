"""Objectives to try the tuner with: two classical test functions and one real task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

BRANIN_SPACE: Final = {"x": [-5.0, 10.0], "y": [0.0, 15.0]}
BRANIN_MINIMUM: Final = 0.397887
HARTMANN6_SPACE: Final = {f"x{n}": [0.0, 1.0] for n in range(6)}
HARTMANN6_MINIMUM: Final = -3.32237
DIGITS_SPACE: Final = {"C": [1e-3, 1e3, "log"], "gamma": [1e-6, 1e-1, "log"]}

_ALPHA = (1.0, 1.2, 3.0, 3.2)
_A = ((10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14), (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14))
_P = (
    (1312, 1696, 5569, 124, 8283, 5886),
    (2329, 4135, 8307, 3736, 1004, 9991),
    (2348, 1451, 3522, 2883, 3047, 6650),
    (4047, 8828, 8732, 5743, 1091, 381),
)


def branin(params: Mapping[str, float]) -> float:
    """Return Branin's function (three minima of 0.397887) of `x` in [-5, 10] and `y` in [0, 15]."""
    x, y = params["x"], params["y"]
    a = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann6(params: Mapping[str, float]) -> float:
    """Return Hartmann's function of six dimensions (minimum -3.32237) of `x0` to `x5` in [0, 1]."""
    x = [params[f"x{n}"] for n in range(6)]
    return -sum(
        alpha * math.exp(-sum(a * (value - p / 10_000) ** 2 for a, value, p in zip(row, x, places, strict=True)))
        for alpha, row, places in zip(_ALPHA, _A, _P, strict=True)
    )


def digits(params: Mapping[str, float]) -> float:
    """Return the error of an RBF support vector machine on scikit-learn's digits, in 3-fold cross-validation."""
    from sklearn.model_selection import cross_val_score  # of the extra `demo`
    from sklearn.svm import SVC

    images, labels = _digits()
    return 1.0 - float(cross_val_score(SVC(C=params["C"], gamma=params["gamma"]), images, labels, cv=3).mean())


@cache
def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits  # of the extra `demo`

    data = load_digits()
    return data.data[::3], data.target[::3]

"""scikit-learn: the results of `cross_validate` are logged fold by fold, and their means are the promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.integrations.journal import Journal


class VisuTility:
    """Logs what `cross_validate` returns. The arguments are those of `Journal`; `n` is the rows of the training set.

    Example:
        found = cross_validate(estimator, X, y, scoring=["accuracy", "recall"], return_train_score=True)
        VisuTility("fraud", "v8", n=len(X)).log(found)
    """

    def __init__(self, model: str, version: str, **options: Any) -> None:
        self._journal = Journal(model, version, **options)

    def log(self, results: Mapping[str, Any], *, score: str = "accuracy") -> None:
        """Log each fold, then promise the mean over the folds; a fold that failed (NaN) leaves its metric out.

        Args:
            results: what `cross_validate` returned.
            score: what its `test_score` is, where it was given one scorer; a classifier's own is the accuracy.
        """
        tested = _columns(results, "test_", score)
        trained = _columns(results, "train_", score)
        rows, folds = self._journal.n, max((len(values) for values in tested.values()), default=0)
        for fold in range(folds):
            self._journal.trained({name: values[fold] for name, values in trained.items()})
            self._journal.n = rows / folds if rows else None
            self._journal.held_out({name: values[fold] for name, values in tested.items()}, is_cross_validated=True)
        self._journal.n = rows
        self._journal.promised({name: values.mean() for name, values in tested.items()})
        self._journal.finish()


def _columns(results: Mapping[str, Any], prefix: str, score: str) -> dict[str, Any]:
    found = {name.removeprefix(prefix): np.asarray(values) for name, values in results.items() if name.startswith(prefix)}
    return {score if name == "score" else name: values for name, values in found.items() if np.isfinite(values).all()}

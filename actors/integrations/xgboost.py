"""XGBoost: a callback of `train` and of `cv`, which gives a cross-validated promise.

xgboost.train(..., evals=[(train, "train"), (valid, "valid")], callbacks=[VisuTility("fraud", "v8", n=500)])
xgboost.cv(..., metrics="error", callbacks=[VisuTility("fraud", "v8", n=2500)])
"""

from __future__ import annotations

from typing import Any

from xgboost.callback import TrainingCallback

from actors.integrations.journal import Journal


class VisuTility(TrainingCallback):
    """Logs each round. The arguments are those of `Journal`; `n` is the rows held out, in `cv` all rows.

    The last evaluation set is the one that was held out, as for XGBoost's own early stopping, unless its name is `train`.
    `error` and `merror` promise an accuracy.
    """

    def __init__(self, model: str, version: str, **options: Any) -> None:
        super().__init__()
        self._journal = Journal(model, version, **options)

    def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, dict[str, list[Any]]]) -> bool:
        """Log the newest value of each metric; never stop the training."""
        last = list(evals_log)[-1] if evals_log else None
        for name, metrics in evals_log.items():
            newest = {metric: values[-1] for metric, values in metrics.items()}
            is_cv = any(isinstance(value, tuple) for value in newest.values())  # then (mean, deviation) over the folds
            values = {metric: value[0] if isinstance(value, tuple) else value for metric, value in newest.items()}
            if name == last and name not in {"train", "training"}:
                self._journal.held_out(values, is_cross_validated=is_cv)
            else:
                several = len(evals_log) > 2
                self._journal.trained({f"{name}_{each}" if several else each: value for each, value in values.items()})
        return False

    def after_training(self, model: Any) -> Any:
        """Log the promise."""
        self._journal.finish()
        return model

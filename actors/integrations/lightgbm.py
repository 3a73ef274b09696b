"""LightGBM: a callback of `train` and of `cv`, which gives a cross-validated promise.

with VisuTility("fraud", "v8", n=2500) as callback:
    lightgbm.cv(params, data, metrics="binary_error", callbacks=[callback])
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from lightgbm.callback import CallbackEnv

from actors.integrations.journal import Journal


class VisuTility:
    """Logs each round. The arguments are those of `Journal`; `n` is the rows held out, in `cv` all rows.

    LightGBM tells a callback of no end where another one stops early: the promise is given when the `with` block ends, or by
    `finish()`. The set named `training` or `train` is that of the training rows.
    """

    order = 20  # before early stopping, which ends the round for those after it
    before_iteration = False

    def __init__(self, model: str, version: str, **options: Any) -> None:
        self._journal = Journal(model, version, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.finish()

    def __call__(self, env: CallbackEnv) -> None:
        """Log the newest value of each metric."""
        trained: dict[str, float] = {}
        held_out: dict[str, float] = {}
        is_cv = False
        for name, metric, value, *rest in env.evaluation_result_list or ():
            is_cv = is_cv or len(rest) > 1  # then the deviation over the folds comes last
            (trained if name in {"training", "train"} else held_out)[metric] = value
        self._journal.trained(trained)
        self._journal.held_out(held_out, is_cross_validated=is_cv)

    def finish(self) -> None:
        """Log the promise."""
        self._journal.finish()

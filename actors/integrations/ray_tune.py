"""Ray Tune: a callback of a search that logs what its trials report, each trial as a version.

Tuner(train, run_config=RunConfig(callbacks=[VisuTility(model="fraud", n=500)]))
"""

from __future__ import annotations

from typing import Any, Final

from ray.tune import Callback

from actors.integrations.journal import Journal
from actors.integrations.ray_train import split

# What Tune adds to each result for itself.
_OWN: Final = frozenset(
    {
        "done",
        "iterations_since_restore",
        "pid",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "training_iteration",
    }
)


class VisuTility(Callback):
    """Logs each result of a trial under the version `{prefix}{trial id}`, and gives its promise when it is complete.

    The other arguments are those of `Journal`.
    """

    def __init__(self, model: str, prefix: str = "", **options: Any) -> None:
        super().__init__()
        self._model = model
        self._prefix = prefix
        self._options = options
        self._journals: dict[str, Journal] = {}
        self._of("check")  # what is wrong with the arguments is said before the search begins

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Log a result."""
        held_out, trained = split({name: value for name, value in result.items() if name not in _OWN})
        journal = self._journals.setdefault(trial.trial_id, self._of(trial.trial_id))
        journal.trained(trained)
        journal.held_out(held_out)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the promise of a trial."""
        journal = self._journals.pop(trial.trial_id, None)
        if journal is not None:
            journal.finish()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Forget a trial that failed."""
        self._journals.pop(trial.trial_id, None)

    def _of(self, trial: str) -> Journal:
        return Journal(self._model, f"{self._prefix}{trial}", **self._options)

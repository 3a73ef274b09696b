"""Ray Train: a callback of a run that logs what its first worker reports.

TorchTrainer(..., run_config=RunConfig(callbacks=[VisuTility(model="fraud", version="v8", n=500)]))
"""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from actors.integrations.journal import Journal

_PREFIXES = ("val_", "valid_", "eval_")


class VisuTility(UserCallback):
    """Logs every `ray.train.report`, in the controller's process. The arguments are those of `Journal`.

    Metrics reported as `val_...`, `valid_...` or `eval_...` count as held out. Ray Train tells a callback of no end, so
    the promise is renewed with each report: the last one stands.
    """

    def __init__(self, model: str, version: str, **options: Any) -> None:
        self._journal = Journal(model, version, **options)

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Log the report of the worker of rank 0."""
        held_out, trained = split(metrics[0] if metrics else {})
        self._journal.trained(trained)
        self._journal.held_out(held_out)
        if held_out:
            self._journal.finish()


def split(reported: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the held-out metrics, and the others, by their bare names.

    >>> split({"val_accuracy": 0.9, "loss": 0.3})
    ({'accuracy': 0.9}, {'loss': 0.3})
    """
    held_out, trained = {}, {}
    for name, value in reported.items():
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is None:
            trained[name.removeprefix("train_")] = value
        else:
            held_out[name.removeprefix(prefix)] = value
    return held_out, trained

"""Lightning: a callback that logs what `self.log` collects, and promises what the last validation said.

trainer = Trainer(callbacks=[VisuTility(model="fraud", version="v8")])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from actors.integrations.journal import Journal

_PREFIXES = ("val_", "val/", "valid_", "valid/")


class VisuTility(Callback):
    """Logs each validation and each epoch of training, from the first process only.

    The arguments are those of `actors.integrations.journal.Journal`. Without `n`, the rows of the validation loaders are
    counted. Metrics named `val_...`, `val/...` or `valid_...` count as held out, the others as of the training rows.
    """

    def __init__(self, model: str, version: str, **options: Any) -> None:
        self._journal = Journal(model, version, **options)
        self._counts_rows = self._journal.n is None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of a validation; ignore the check of two batches before the training."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self._counts_rows:
            self._journal.n = _rows(trainer.val_dataloaders)
        self._journal.held_out(_split(trainer.callback_metrics)[0])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics on training rows."""
        if trainer.is_global_zero:
            self._journal.trained(_split(trainer.callback_metrics)[1])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the promise."""
        if trainer.is_global_zero:
            self._journal.finish()


def _split(metrics: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    held_out, trained = {}, {}
    for name, value in metrics.items():
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is not None:
            held_out[name.removeprefix(prefix)] = value
        else:
            trained[name.removeprefix("train_").removeprefix("train/")] = value
    return held_out, trained


def _rows(loaders: Any) -> float | None:
    """Return how many rows the loaders have; None where one does not know."""
    try:
        found = loaders if isinstance(loaders, list | tuple) else [loaders]
        return float(sum(len(each.dataset) for each in found)) or None
    except (AttributeError, TypeError):
        return None

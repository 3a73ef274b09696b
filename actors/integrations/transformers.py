"""Hugging Face: a callback of `Trainer` that logs its training and its evaluations, and promises what the last one said.

trainer = Trainer(..., callbacks=[VisuTility(model="fraud", version="v8")])
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from actors.integrations.journal import Journal

# Of the speed of an evaluation, not of the model.
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_TRAINED = ("loss", "grad_norm", "learning_rate")


class VisuTility(TrainerCallback):
    """Logs from the first process only; the arguments are those of `actors.integrations.journal.Journal`.

    Without `n`, the rows of the evaluation loader are counted.
    """

    def __init__(self, model: str, version: str, **options: Any) -> None:
        self._journal = Journal(model, version, **options)
        self._counts_rows = self._journal.n is None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log what a step of the training said; an evaluation comes to `on_evaluate`."""
        if state.is_world_process_zero:
            self._journal.trained({name: value for name, value in (logs or {}).items() if name in _TRAINED})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Log what an evaluation said."""
        if not state.is_world_process_zero:
            return
        if self._counts_rows:
            rows: Any = getattr(eval_dataloader, "dataset", ())
            self._journal.n = float(len(rows)) or None if hasattr(rows, "__len__") else None
        said = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items() if name.startswith("eval_")}
        self._journal.held_out({name: value for name, value in said.items() if name not in _SPEED})

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Log the promise."""
        if state.is_world_process_zero:
            self._journal.finish()

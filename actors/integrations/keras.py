"""Keras: a callback that logs each epoch, and promises what the last one said of its validation rows.

model.fit(x, y, validation_data=(x_val, y_val), callbacks=[VisuTility(model="fraud", version="v8", n=len(x_val))])
"""

from __future__ import annotations

from typing import Any

import keras

from actors.integrations.journal import Journal


class VisuTility(keras.callbacks.Callback):
    """Logs each epoch. The arguments are those of `Journal`; Keras tells no callback how many rows `n` it held out."""

    def __init__(self, model: str, version: str, **options: Any) -> None:
        super().__init__()
        self._journal = Journal(model, version, **options)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log both halves of what Keras has computed."""
        said = logs or {}
        self._journal.trained({name: value for name, value in said.items() if not name.startswith("val_")})
        self._journal.held_out({name[4:]: value for name, value in said.items() if name.startswith("val_")})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Log the promise."""
        self._journal.finish()

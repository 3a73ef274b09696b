"""Journal: what a training logs of itself, and the promise that it gives at its end. What every callback has in common.

Values on training rows are logged as `train_<name>`, values on rows that were held out as `val_<name>`: the learning curve of a
version must not become the baseline of the `accuracy` that it has in production. The promise has the bare name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from actors import columns, wire
from actors.checks import brief

if TYPE_CHECKING:
    from actors.system import System

logger = logging.getLogger(__name__)

# What tools call the three metrics that a promise can be of, and the errors that are one minus the accuracy.
_NAMES: Final = {
    "acc": "accuracy",
    "binary_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
}
_ERRORS: Final = frozenset({"error", "merror", "binary_error", "multi_error"})
_PROMISED: Final = ("accuracy", "precision", "recall")
_PROMISE_S: Final = 10.0


class Recorder(Protocol):
    """The methods of `system.metrics` that a journal uses."""

    def log(self, metrics: Mapping[str, Any], *, model: str, version: str, n: float | None) -> None:
        """Log one event."""

    def promise(
        self, metrics: Mapping[str, float], *, n: float, model: str, version: str, source: str, timeout_s: float
    ) -> object:
        """Record what a version promises."""

    def flush(self, timeout_s: float) -> object:
        """Wait until all logged events are acknowledged."""


class Journal:
    """Logs the values of one training, of one version; nothing that the system does ends the training.

    Args:
        model: the model that is trained.
        version: the version that comes out of it.
        n: the rows that were held out, or that a cross-validation had; needed for a promise where the tool does not say.
        promise: the metrics that are promised at the end, of those that were computed on held-out rows.
        system: what `actors.connect()` returns; by default it is called once something is logged.

    Example:
        journal = Journal("fraud", "v8", n=500)
        journal.held_out({"accuracy": 0.91})    # logs val_accuracy
        journal.finish()                        # promises accuracy 0.91, from a hold-out of 500 rows
    """

    def __init__(
        self,
        model: str,
        version: str,
        *,
        n: float | None = None,
        promise: Iterable[str] = _PROMISED,
        system: System | None = None,
    ) -> None:
        self.model = wire.check_model(model)
        self.version = wire.check_version(version)
        self.n = n
        self._promised = tuple(promise)
        self._system = system
        self._last: dict[str, float] = {}
        self._source = "hold_out"

    def trained(self, values: Mapping[str, Any]) -> None:
        """Log values that were computed on training rows."""
        self._log({f"train_{name}": value for name, value in numbers(values).items()}, None)

    def held_out(self, values: Mapping[str, Any], *, is_cross_validated: bool = False) -> None:
        """Log values that were computed on rows that were held out; the last ones of each name are promised by `finish`."""
        found = numbers(values)
        self._source = "cross_validation" if is_cross_validated else "hold_out"
        self._last.update(_promisable(found))
        self._log({f"val_{name}": value for name, value in found.items()}, self.n)

    def promised(self, values: Mapping[str, Any]) -> None:
        """Note what `finish` will promise instead of the last values, as cross-validated: say the means of the folds."""
        self._source = "cross_validation"
        self._last = _promisable(numbers(values))

    def finish(self) -> None:
        """Record the promise, where there is one, and wait until everything is acknowledged, at most ten seconds each."""
        given = {name: self._last[name] for name in self._promised if 0.0 <= self._last.get(name, -1.0) <= 1.0}
        self._last = {}
        try:
            metrics = self._metrics()
            if given and self.n:
                metrics.promise(
                    given,
                    n=self.n,
                    model=self.model,
                    version=self.version,
                    source=self._source,
                    timeout_s=_PROMISE_S,
                )
            metrics.flush(_PROMISE_S)
        except (ConnectionError, ValueError) as error:
            logger.warning("%s %s: the promise was not recorded: %s", self.model, self.version, brief(error))

    def _log(self, values: dict[str, float], n: float | None) -> None:
        if not values:
            return
        try:
            self._metrics().log(values, model=self.model, version=self.version, n=n)
        except (ConnectionError, ValueError, TypeError) as error:
            logger.warning("%s %s: nothing was logged: %s", self.model, self.version, brief(error))

    def _metrics(self) -> Recorder:
        if self._system is None:
            from actors.system import connect  # noqa: PLC0415  a callback may be made where no Ray is, and pickled to where one is

            self._system = connect()
        return self._system.metrics


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number among the values that a tool hands over, as far as their names may be logged.

    >>> numbers({"loss": 0.5, "epoch_name": "first", "scores": [1, 2]})
    {'loss': 0.5}
    """
    found = {}
    for name, value in values.items():
        number = None if isinstance(value, bool) or columns.is_absent(value) else columns.number(value)
        if number is not None and wire.text_rule(name) is None:
            found[name] = float(number)
    return found


def _promisable(values: Mapping[str, float]) -> dict[str, float]:
    """Return values by the names that the system watches: an error is one minus the accuracy.

    >>> _promisable({"merror": 0.25, "auc": 0.9})
    {'accuracy': 0.75, 'auc': 0.9}
    """
    return {
        "accuracy" if name in _ERRORS else _NAMES.get(name, name): 1.0 - value if name in _ERRORS else value
        for name, value in values.items()
    }

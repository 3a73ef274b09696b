"""An example of plug-ins: a strategy, a detector, a handler, a source and a notifier that another package brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors import Notification
from actors.drift import SlidingWindowDriftDetector
from actors.sources.interface import Answer, Row


class Halving:
    """Halves the first parameter from trial to trial, from the middle of its range on."""

    def __init__(self, space: dict[str, Any], *, seed: int, factor: float = 2.0) -> None:
        if not factor > 1:
            raise ValueError(f"strategy: factor must be above 1, got {factor!r}")
        self._name, (low, high, *_) = next(iter(space.items()))
        self._low, self._width, self._factor = low, (high - low), factor

    def next_params(self) -> dict[str, Any]:
        """Return the parameters of the next trial."""
        self._width /= self._factor
        return {self._name: self._low + self._width}


class EveryLow(SlidingWindowDriftDetector):
    """The reference detector under another name: a detector has `update`, `state`, `restore` and `reset`."""


class Printer:
    """Writes an order down; `on_retrain` that returns has launched the retrain."""

    def on_retrain(self, event: Any) -> None:
        with Path("orders.txt").open("a", encoding="utf-8") as file:
            file.write(f"{event.id}\n")


class Coin:
    """Has one event each time it is asked; the place is how often."""

    def read(self, place: Any, now_s: float) -> Answer:
        """Return one more."""
        tossed = (place or 0) + 1
        return Answer([Row("coin", "1", now_s, {"accuracy": tossed % 2})], tossed)


class Notebook:
    """Writes messages down; `send` that returns has delivered one."""

    def __init__(self, *, path: str) -> None:
        self._path = Path(path)

    def send(self, notification: Notification) -> None:
        """Append its id and its title."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{notification.id} {notification.title}\n")

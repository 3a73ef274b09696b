"""Which batches the limits in bytes take out of the logs of one process: the oldest, whatever model they are of."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

Batch = tuple[int, float, int]  # number, when it was received, bytes of its payload


class Weighing:
    """Adds up the logs, each from its newest batch back, and says up to which number each one goes.

    Example:
        weighing = Weighing(model_bytes=None, store_bytes=100)
        weighing.add("m", 0, [(2, 11.0, 60), (1, 10.0, 60)])
        weighing.upto()  # {"m": 1}
    """

    def __init__(self, *, model_bytes: int | None, store_bytes: int | None) -> None:
        """None means no limit."""
        self._store_bytes = store_bytes
        self._most = min((limit for limit in (model_bytes, store_bytes) if limit is not None), default=math.inf)  # of a model
        self._bytes: dict[str, int] = {}
        self._received: dict[str, float] = {}  # the earliest of a model so far
        self._over: dict[str, int] = {}  # beyond that: up to this number
        self._stay = 0  # bytes that must stay
        # Of the batches that may go, perhaps a million: when each was received, its bytes, model and number.
        self._times, self._sizes = array("d"), array("q")
        self._models: list[str] = []
        self._numbers = array("q")

    @property
    def is_of_all(self) -> bool:
        """Whether the logs of all models are to be added, since they share a limit."""
        return self._store_bytes is not None

    def add(self, model: str, snapshot: int, batches: Sequence[Batch]) -> bool:
        """Add batches of a model, the newest first; False where those before them go in any case.

        What the snapshot does not know stays. A batch counts as received no later than those after it, so that what goes of a
        log is its beginning, also where a clock was stepped back.
        """
        for number, received_at, size in batches:
            total = self._bytes[model] = self._bytes.get(model, 0) + size
            if number > snapshot:
                self._stay += size
            elif total > self._most:
                self._over[model] = number
                return False
            else:
                received = self._received[model] = min(received_at, self._received.get(model, received_at))
                self._times.append(received)
                self._sizes.append(size)
                self._models.append(model)
                self._numbers.append(number)
        return True

    def upto(self) -> dict[str, int]:
        """Return, for each model of which batches go, the number up to which they do."""
        upto = dict(self._over)
        if self._store_bytes is not None:
            # The sort is stable, and of one model the newer batches stand first.
            order = np.argsort(-np.array(self._times), kind="stable")
            kept = np.cumsum(np.array(self._sizes)[order]) <= self._store_bytes - self._stay
            for at in order[np.count_nonzero(kept) :].tolist():
                model, number = self._models[at], self._numbers[at]
                upto[model] = max(number, upto.get(model, number))
        return upto

"""What the classical charts share: values standardised by a running mean and deviation, one event after the other."""

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.drift.interface import (
    RECENT,
    Alarm,
    Direction,
    Progress,
    as_values,
    check_count,
    check_direction,
    pack_state,
    unpack_state,
)

_SD_FLOOR = 1e-12  # of the mean's size: below it a stream counts as constant
_Z_CAP = 8.0  # of a standardised value: a new value after a constant stream has no finite one


class StandardisedChart:
    """Feeds z = (x - mean) / sd, both of all events before, to `_step`, which a chart defines.

    The first `warmup` events are only learned from. Under Gaussian noise z sqrt((n - 1) / n) is Student t with n - 2
    degrees of freedom, which a transformation makes normal (self-starting charts: Hawkins 1987), so that a table for
    known mean and deviation holds from the end of the warm-up on.
    """

    name: str

    def __init__(self, *, direction: Direction, warmup: int, threshold: float, learned_under: dict[str, Any]) -> None:
        self._direction = check_direction(direction)
        self._warmup = check_count("warmup", warmup, low=3, high=1_000_000)
        self._threshold = threshold
        self._learned_under = learned_under
        self.reset()

    # --- what a chart defines ---------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Forget the chart's own statistic."""
        raise NotImplementedError

    def _step(self, z: float, x: float) -> tuple[float, int, float] | None:
        """Take one event; on an alarm return the signed statistic and the length and mean of the window behind it."""
        raise NotImplementedError

    def _level(self) -> float:
        """Return the statistic now, >= 0."""
        raise NotImplementedError

    def _own_state(self) -> list[float]:
        raise NotImplementedError

    def _own_restore(self, saved: list[float]) -> None:
        raise NotImplementedError

    # --- what they share --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._n = 0
        self._seen = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean (Welford 1962)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._clear()

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and learn from this sample (`float64[n]`) instead of from the first events."""
        array = as_values(values)
        self.reset()
        for x in array.tolist():
            self._learn(x)

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        alarms: list[Alarm] = []
        for index, x in enumerate(as_values(values).tolist()):
            self._seen += 1
            self._recent.append(x)
            if self._n >= self._warmup:
                found = self._step(self._standardise(x), x)
                if found is not None:
                    alarms.append(self._alarm(index, *found))
                    self.reset()
                    continue
            self._learn(x)
        return alarms

    def _learn(self, x: float) -> None:
        self._n += 1
        step = x - self._mean
        self._mean += step / self._n
        self._squares += step * (x - self._mean)

    def _sd(self) -> float:
        return math.sqrt(self._squares / (self._n - 1)) if self._n > 1 else 0.0

    def _standardise(self, x: float) -> float:
        sd = self._sd()
        deviation = x - self._mean
        if sd <= _SD_FLOOR * max(abs(self._mean), 1e-300):
            return 0.0 if deviation == 0.0 else math.copysign(_Z_CAP, deviation)
        t = deviation / sd * math.sqrt(self._n / (self._n + 1.0))
        # Wallace 1959: normal scores of Student t, to 0.02 for 10 or more degrees of freedom.
        nu = self._n - 1.0
        z = math.sqrt(nu * math.log1p(min(t * t / nu, 1e300))) * (8.0 * nu + 1.0) / (8.0 * nu + 3.0)
        return math.copysign(z, t)

    def _alarm(self, index: int, signed: float, window_n: int, window_mean: float) -> Alarm:
        return Alarm(
            index=index,
            detector=self.name,
            statistic=abs(signed),
            threshold=self._threshold,
            direction="down" if signed < 0 else "up",
            baseline_n=self._n,
            baseline_mean=self._mean,
            baseline_sd=self._sd(),
            window_n=window_n,
            window_mean=window_mean,
            estimated_start=window_n,
            extra={"what": "level"},
        )

    def progress(self) -> Progress:
        """Say how far the detector has got and how close to an alarm it is."""
        return {
            "state": "learning" if self._n < self._warmup else "stable",
            "baseline": self._mean if self._n else None,
            "recent": float(np.mean(self._recent)) if self._recent else None,
            "seen": self._seen,
            "warmup": self._warmup,
            "n_baseline": self._n,
            "statistic": self._level(),
            "threshold": self._threshold,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; about 600 bytes."""
        body = {
            "counts": [self._n, self._seen],
            "moments": [self._mean, self._squares],
            "recent": list(self._recent),
            "own": self._own_state(),
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; ValueError when another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self.reset()
        self._n, self._seen = body["counts"]
        self._mean, self._squares = body["moments"]
        self._recent.extend(body["recent"])
        self._own_restore(body["own"])

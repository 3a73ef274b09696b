"""The common part of the classical charts: values standardised by a running mean and deviation, event by event."""

import math
from abc import ABC, abstractmethod
from collections import deque

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
from actors.drift.moments import ROUNDING, Moments
from actors.plain import Saved

_Z_CAP = 8.0  # of a standardised value: a new value after a constant stream has no finite one


class StandardisedChart(ABC):
    """Feeds z = (x - mean) / sd, both of all events before, to `_step`, which a chart defines.

    The first `warmup` events are only learned from. Under Gaussian noise z sqrt((n - 1) / n) is Student t with n - 2
    degrees of freedom, which a transformation makes normal (self-starting charts: Hawkins 1987), so that a table for
    known mean and deviation holds from the end of the warm-up on.
    """

    name: str

    def __init__(self, *, direction: Direction, warmup: int, threshold: float, learned_under: Saved) -> None:
        self._direction = check_direction(direction)
        self._warmup = check_count("warmup", warmup, low=3, high=1_000_000)
        self._threshold = threshold
        self._learned_under = learned_under
        self.reset()

    # --- what a chart defines ---------------------------------------------------------------------------------

    @abstractmethod
    def _clear(self) -> None:
        """Forget the chart's own statistic."""

    @abstractmethod
    def _step(self, z: float, x: float) -> tuple[float, int, float] | None:
        """Take one event; on an alarm return the signed statistic and the length and mean of the window behind it."""

    @abstractmethod
    def _level(self) -> float:
        """Return the statistic now, >= 0."""

    @abstractmethod
    def _own_state(self) -> list[float]:
        """Return the numbers that `_own_restore` takes."""

    @abstractmethod
    def _own_restore(self, saved: list[float]) -> None:
        """Go on from what `_own_state` returned."""

    # --- what they share --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._known = Moments()
        self._seen = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._clear()

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and learn from this sample (`float64[n]`) instead of from the first events."""
        array = as_values(values)
        self.reset()
        for x in array.tolist():
            self._known.add(x)

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        alarms: list[Alarm] = []
        for index, x in enumerate(as_values(values).tolist()):
            self._seen += 1
            self._recent.append(x)
            if self._known.n >= self._warmup:
                found = self._step(self._standardise(x), x)
                if found is not None:
                    alarms.append(self._alarm(index, *found))
                    self.reset()
                    continue
            self._known.add(x)
        return alarms

    def _standardise(self, x: float) -> float:
        known = self._known
        sd, deviation = known.sd, x - known.mean
        rounding = ROUNDING * abs(known.mean)
        if sd <= rounding:  # a constant
            return 0.0 if abs(deviation) <= rounding else math.copysign(_Z_CAP, deviation)
        t = deviation / sd * math.sqrt(known.n / (known.n + 1.0))
        # Wallace 1959: normal scores of Student t, to 0.02 for 10 or more degrees of freedom.
        nu = known.n - 1.0
        z = math.sqrt(nu * math.log1p(min(t * t / nu, 1e300))) * (8.0 * nu + 1.0) / (8.0 * nu + 3.0)
        return math.copysign(z, t)

    def _alarm(self, index: int, signed: float, window_n: int, window_mean: float) -> Alarm:
        return Alarm(
            index=index,
            detector=self.name,
            statistic=abs(signed),
            threshold=self._threshold,
            direction="down" if signed < 0 else "up",
            baseline_n=self._known.n,
            baseline_mean=self._known.mean,
            baseline_sd=self._known.sd,
            window_n=window_n,
            window_mean=window_mean,
            estimated_start=window_n,
            extra={"what": "level"},
        )

    def progress(self) -> Progress:
        """Return how far the detector has got and how close to an alarm it is."""
        return {
            "state": "learning" if self._known.n < self._warmup else "stable",
            "baseline": self._known.mean if self._known.n else None,
            "recent": float(np.mean(self._recent)) if self._recent else None,
            "seen": self._seen,
            "warmup": self._warmup,
            "n_baseline": self._known.n,
            "statistic": self._level(),
            "threshold": self._threshold,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; about 600 bytes."""
        body = {
            "seen": self._seen,
            "known": self._known.as_list(),
            "recent": list(self._recent),
            "own": self._own_state(),
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self.reset()
        if "moments" in body:  # of a build before the charts took values of any size
            n, self._seen = body["counts"]
            self._known = Moments.of_squares(n, *body["moments"])
        else:
            self._seen, self._known = int(body["seen"]), Moments.restored(body["known"])
        self._recent.extend(body["recent"])
        self._own_restore(body["own"])

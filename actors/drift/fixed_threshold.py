"""Fixed limits: the mean of the last few events leaves a range that somebody has set."""

import math
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
    check_number,
    pack_state,
    unpack_state,
)
from actors.drift.moments import Moments
from actors.plain import Saved


class FixedThreshold:
    """Alarm when the mean of the last `window` events falls below `lower` or rises above `upper`; then stay silent
    until it has been inside again.

    Nothing is learned, so no budget can be promised: `false_alarm_every` is accepted and has no effect, nor has
    `baseline` but for the figures of an alarm. At least one of `lower` and `upper` must be given, in the metric's units.

    >>> [alarm.index for alarm in FixedThreshold(lower=0.8, window=2).update([0.9, 0.75, 0.7, 0.7, 0.9, 0.9])]
    [2]
    """  # noqa: D205  # the claim takes two lines

    name = "threshold"

    def __init__(
        self,
        *,
        false_alarm_every: float = 10_000,
        direction: Direction = "both",
        lower: float | None = None,
        upper: float | None = None,
        window: int = 1,
    ) -> None:
        check_number("false_alarm_every", false_alarm_every, above=0)
        self._direction = check_direction(direction)
        if lower is None and upper is None:
            raise ValueError("lower or upper must be a number, got neither")
        self._lower = -math.inf if lower is None else check_number("lower", lower)
        self._upper = math.inf if upper is None else check_number("upper", upper)
        if not self._lower < self._upper:
            raise ValueError(f"lower must be < upper ({upper!r}), got {lower!r}")
        self._window = check_count("window", window, low=1, high=100_000)
        self._learned_under: Saved = {"window": self._window}
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._seen = 0
        self._outside = False
        self._last: deque[float] = deque(maxlen=max(self._window, RECENT))
        self._known = Moments()

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything; the sample only serves as the level that alarms are reported against."""
        array = as_values(values)
        self.reset()
        for x in array.tolist():
            self._known.add(x)

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        alarms: list[Alarm] = []
        for index, x in enumerate(as_values(values).tolist()):
            self._seen += 1
            self._last.append(x)
            if self._seen >= self._window:
                mean = self._window_mean()
                down = mean < self._lower and self._direction != "up"
                up = mean > self._upper and self._direction != "down"
                if (down or up) and not self._outside:
                    alarms.append(self._alarm(index, mean, down=down))
                self._outside = down or up
            self._known.add(x)
        return alarms

    def _window_mean(self) -> float:
        if self._window == 1:
            return self._last[-1]
        return math.fsum(list(self._last)[-self._window :]) / self._window

    def _alarm(self, index: int, mean: float, *, down: bool) -> Alarm:
        return Alarm(
            index=index,
            detector=self.name,
            statistic=mean,
            threshold=self._lower if down else self._upper,
            direction="down" if down else "up",
            baseline_n=self._known.n,
            baseline_mean=self._known.mean if self._known.n else mean,
            baseline_sd=self._known.sd,
            window_n=self._window,
            window_mean=mean,
            estimated_start=self._window,
            extra={"what": "level"},
        )

    def progress(self) -> Progress:
        """Return how far the detector has got; the threshold is the nearer of the two limits."""
        mean = self._window_mean() if self._seen >= self._window else None
        reference = self._known.mean if mean is None else mean
        nearer = min((self._lower, self._upper), key=lambda limit: abs(limit - reference))
        return {
            "state": "learning" if mean is None else "warning" if self._outside else "stable",
            "baseline": self._known.mean if self._known.n else None,
            "recent": float(np.mean(list(self._last)[-RECENT:])) if self._last else None,
            "seen": self._seen,
            "warmup": self._window,
            "n_baseline": self._known.n,
            "statistic": reference,
            "threshold": nearer,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; 9 bytes for each event of the window."""
        body = {
            "seen": self._seen,
            "outside": self._outside,
            "last": list(self._last),
            "known": self._known.as_list(),
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self.reset()
        self._seen, self._outside = int(body["seen"]), bool(body["outside"])
        self._last.extend(body["last"])
        if "moments" in body:  # of a build before values of any size were taken
            self._known = Moments.of_squares(*body["moments"])
        else:
            self._known = Moments.restored(body["known"])

"""The reference detector: the newest value against the mean and deviation of a sliding window."""

import numpy as np
import numpy.typing as npt

from actors.drift.interface import (
    RECENT,
    Alarm,
    Direction,
    Floats,
    Progress,
    as_values,
    check_count,
    check_direction,
    check_number,
    pack_state,
    unpack_state,
)
from actors.drift.normal import normal_quantile
from actors.plain import Saved

_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)  # the reference calls a smaller deviation none at all
_SQUARES_FROM = 1e140  # values from which on sums of squares might overflow
_SMALL = 2.0**-560
_CHUNK = 4096  # events whose windows are laid out at once: 16 MB at the default window


class SlidingWindowDriftDetector:
    """Alarm at every event with |z| > z_threshold, z = (newest - mean) / sd over the last `window` events.

    The window includes the newest event; sd has ddof = 1; z is 0 while fewer than `min_samples` events are in
    the window or sd is at most the epsilon of float32. As in the reference, an alarm changes nothing: the next
    exceedance alarms again. On Gaussian noise z_threshold = 3 alarms about every 379 events.

    A budget does not change the threshold, unless asked for: `z_threshold="budget"` takes the z that a Gaussian
    stream exceeds once in `false_alarm_every` events. That holds for Gaussian noise only.

    >>> [alarm.index for alarm in SlidingWindowDriftDetector().update([0.90, 0.91] * 50 + [0.5, 0.9])]
    [100]
    """

    name = "sliding-window"

    def __init__(
        self,
        *,
        false_alarm_every: float = 10_000,
        direction: Direction = "both",
        window: int = 500,
        min_samples: int = 50,
        z_threshold: float | str = 3.0,
    ) -> None:
        self._direction = check_direction(direction)
        self._window = check_count("window", window, low=3, high=100_000)
        self._min_samples = check_count("min_samples", min_samples, low=2, high=self._window)
        budget = check_number("false_alarm_every", false_alarm_every, low=10)
        if z_threshold == "budget":
            self._threshold = _threshold_for(budget, self._window, one_sided=direction != "both")
        elif isinstance(z_threshold, str):
            raise ValueError(f"z_threshold must be a number > 0 or 'budget', got {z_threshold!r}")
        else:
            self._threshold = check_number("z_threshold", z_threshold, above=0)
        self._learned_under: Saved = {"window": self._window}
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        self._tail: Floats = np.empty(0)  # the last window - 1 events or fewer
        self._seen = 0
        self._given = 0  # of the tail, values that came by `baseline`
        self._z = 0.0

    def baseline(self, values: npt.ArrayLike) -> None:
        """Start from this sample as the window's content; only its last `window` - 1 values are kept."""
        array = as_values(values)
        self.reset()
        self._tail = array[-(self._window - 1) :].copy()
        self._given = len(self._tail)

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        array = as_values(values)
        alarms: list[Alarm] = []
        for start in range(0, len(array), _CHUNK):
            chunk = array[start : start + _CHUNK]
            self._take(chunk, start, alarms)
        return alarms

    def _take(self, chunk: Floats, offset: int, alarms: list[Alarm]) -> None:
        held = len(self._tail)
        line = np.concatenate((self._tail, chunk))
        z = np.zeros(len(chunk))
        first_full = min(max(self._window - 1 - held, 0), len(chunk))
        if _unit(line) != 1.0:
            first_full = len(chunk)
        for i in range(first_full):  # the window still grows, or its squares are too large: each event by itself
            z[i] = self._z_of(line[max(0, held + i + 1 - self._window) : held + i + 1])
        if first_full < len(chunk):
            windows = np.lib.stride_tricks.sliding_window_view(line[held + first_full + 1 - self._window :], self._window)
            mean = windows.mean(axis=1)
            sd = windows.std(axis=1, ddof=1)
            newest = windows[:, -1]
            flat = sd <= _FLOAT32_EPSILON
            z[first_full:] = np.where(flat, 0.0, (newest - mean) / np.where(flat, 1.0, sd))
        over = np.abs(z) > self._threshold
        if self._direction != "both":
            over &= (z < 0) == (self._direction == "down")
        for i in np.flatnonzero(over).tolist():
            end = held + i + 1
            alarms.append(self._alarm(line[max(0, end - self._window) : end], offset + i, float(z[i])))
        self._z = float(z[-1])
        self._tail = line[-(self._window - 1) :].copy()
        self._seen += len(chunk)

    def _z_of(self, window: Floats) -> float:
        if len(window) < self._min_samples:
            return 0.0
        # The same reduction as over the laid out windows, so that the cut of the batches cannot matter.
        unit = _unit(window)
        row = window[np.newaxis, :] * unit
        sd = float(row.std(axis=1, ddof=1)[0])
        return 0.0 if sd <= _FLOAT32_EPSILON * unit else float((row[0, -1] - row.mean(axis=1)[0]) / sd)

    def _alarm(self, window: Floats, index: int, z: float) -> Alarm:
        unit = _unit(window)
        return Alarm(
            index=index,
            detector=self.name,
            statistic=abs(z),
            threshold=self._threshold,
            direction="down" if z < 0 else "up",
            baseline_n=len(window),
            baseline_mean=float(window.mean()),
            baseline_sd=float((window * unit).std(ddof=1)) / unit,
            window_n=1,
            window_mean=float(window[-1]),
            estimated_start=1,
            extra={"z": z},
        )

    def progress(self) -> Progress:
        """Return how far the detector has got and how close to an alarm it is."""
        n = len(self._tail)
        return {
            "state": "learning" if n < self._min_samples - 1 else "stable",
            "baseline": float(self._tail.mean()) if n else None,
            "recent": float(self._tail[-RECENT:].mean()) if n else None,
            "seen": self._seen,
            "warmup": self._min_samples,
            "n_baseline": n,
            "statistic": abs(self._z),
            "threshold": self._threshold,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; 8 bytes for each event of the window."""
        body = {"tail": self._tail.tobytes(), "seen": self._seen, "given": self._given, "z": self._z}
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        self._tail = np.frombuffer(body["tail"], dtype=np.float64).copy()
        self._seen, self._given, self._z = int(body["seen"]), int(body["given"]), float(body["z"])


def _unit(values: Floats) -> float:
    """Return the factor, a power of two, by which values are so small that their squares are finite; 1 for most."""
    return 1.0 if max(values.max(), -values.min()) < _SQUARES_FROM else _SMALL


def _threshold_for(budget: float, window: int, *, one_sided: bool) -> float:
    """Return the z that a Gaussian stream exceeds once in `budget` events.

    The newest value is part of the mean and deviation it is held against, which shrinks z: z^2 n / (n-1)^2 is
    Beta(1/2, (n-2)/2) (Thompson 1935), whose quantile the first-order factor below matches to 0.3% at n = 500.
    """
    u = normal_quantile(1.0 - 1.0 / (budget if one_sided else 2.0 * budget))
    n = float(window)
    # t quantile from the normal one (Cornish-Fisher), then z from t.
    nu = n - 2
    t = u + (u**3 + u) / (4 * nu)
    return float((n - 1) / np.sqrt(n) * np.sqrt(t * t / (nu + t * t)))

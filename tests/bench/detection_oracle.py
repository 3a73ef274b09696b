"""The physical limit: a CUSUM that knows the family, the level before, and the direction and size of the shift.

Page's CUSUM of the exact log-likelihood ratios is optimal in the worst case among all stopping rules with the same
mean time between false alarms (Moustakides 1986); no detector that knows less can be faster than that.
"""

import numpy as np

from tests.bench.detection_families import FAMILIES, Family, Floats, Stream

_CALIBRATION_ALARMS = 400
_ROUNDS = 4


class Oracle:
    """The exact CUSUM of one family and one shift, calibrated by simulation to `arl0` events per false alarm."""

    def __init__(self, family: Family, shift: float, *, arl0: float, seed: int = 0) -> None:
        if family.log_ratio is None:
            raise ValueError(f"family must have a likelihood ratio, got {family.name!r}")
        # The oracle of a seasonal stream knows the season, hence sees the stream without it.
        self._family = FAMILIES["gaussian"] if family.name == "seasonal" else family
        self._ratio = family.log_ratio
        self._shift = family.bad * shift
        self.threshold = np.log(arl0)
        for alarms in [_CALIBRATION_ALARMS // 4] * (_ROUNDS - 1) + [4 * _CALIBRATION_ALARMS]:
            runs = [self._run(np.random.default_rng([seed, alarms, i]), 0, int(20 * arl0)) for i in range(alarms)]
            self.threshold += np.log(arl0 / np.mean(runs))
        # The last step is a correction by a few percent, for which ln ARL0 is linear in the threshold.

    def delay(self, rng: np.random.Generator, *, before: int, limit: int) -> int:
        """Return the events from the change to the alarm, at most `limit`; streams that alarm before are redrawn."""
        while True:
            run = self._run(rng, before, limit)
            if run > 0:
                return run

    def _run(self, rng: np.random.Generator, before: int, limit: int) -> int:
        """Return the events to the alarm, counted from the change; 0 for an alarm before it."""
        stream = self._family.stream(rng)
        last = stream.take(1)
        carry = -np.inf
        if before:
            carry, last, at = self._feed(stream, before, 0.0, carry, last)
            if at is not None:
                return 0
        done, size = 0, 32 if before else 4096
        while done < limit:
            size = min(size, limit - done)
            carry, last, at = self._feed(stream, size, self._shift if before else 0.0, carry, last)
            if at is not None:
                return done + at + 1
            done += size
            size = min(4 * size, 16384)
        return limit

    def _feed(self, stream: Stream, n: int, shift: float, carry: float, last: Floats) -> tuple[float, Floats, int | None]:
        ratio = self._ratio
        x = np.concatenate((last, stream.take(n, shift)))
        later = ratio(x, self._shift)[-n:]
        first = (self._family.first_ratio or ratio)(x, self._shift)[-n:]
        # W_n = max over the possible changes k of first_k + later_{k+1} + ... + later_n.
        total = np.cumsum(later)
        best = np.maximum(np.maximum.accumulate(first - total), carry)
        w = total + best
        over = np.flatnonzero(w >= self.threshold)
        return float(w[-1]), x[-1:], int(over[0]) if len(over) else None

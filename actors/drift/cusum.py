"""Two-sided CUSUM: sums of what exceeds a slack, on standardised values."""

import math

from actors.drift.interface import Direction, check_direction, check_number
from actors.drift.standardised import StandardisedChart


def cusum_threshold(arl0: float, slack: float, *, two_sided: bool) -> float:
    """Return the decision interval h of a CUSUM with this slack k for Gaussian noise.

    Siegmund 1985: ARL0 of one side = (exp(2kb) - 2kb - 1) / (2k^2), b = h + 1.166; two sides halve it. Within 3% of
    the exact values for ARL0 >= 100.

    >>> round(cusum_threshold(465, 0.5, two_sided=True), 1)  # Montgomery: 5
    5.0
    """
    wanted = arl0 * (2.0 if two_sided else 1.0)
    low, high = 0.0, 1e6
    for _ in range(200):
        b = 0.5 * (low + high)
        exponent = 2.0 * slack * b
        reached = math.inf if exponent > 600.0 else (math.expm1(exponent) - exponent) / (2.0 * slack * slack)
        low, high = (b, high) if reached < wanted else (low, b)
    return max(0.5 * (low + high) - 1.166, 0.5)


class _Sums:
    """Both one-sided sums S = max(0, S + z - k) and, of each, the events since it was last zero."""

    def __init__(self) -> None:
        self.up = self.down = 0.0
        self.up_n = self.down_n = 0
        self.up_x = self.down_x = 0.0

    def add(self, z: float, x: float, slack: float) -> None:
        self.up = max(0.0, self.up + z - slack)
        self.up_n, self.up_x = (self.up_n + 1, self.up_x + x) if self.up > 0.0 else (0, 0.0)
        self.down = max(0.0, self.down - z - slack)
        self.down_n, self.down_x = (self.down_n + 1, self.down_x + x) if self.down > 0.0 else (0, 0.0)


class Cusum(StandardisedChart):
    """Alarm when the sum of (z - slack), restarted at zero, exceeds a threshold, upwards or downwards.

    Page 1954, self-starting as in Hawkins 1987. `slack` is half the shift it is best at, in standard deviations. The
    budget sets the threshold by Siegmund's formula: it holds on independent Gaussian noise, not under heavy tails or
    autocorrelation. The change is estimated at the last zero of the sum (Page).

    >>> [alarm.index for alarm in Cusum().update([0.0, 1.0] * 50 + [2.0] * 20)]
    [103]
    """

    name = "cusum"

    def __init__(
        self, *, false_alarm_every: float = 10_000, direction: Direction = "both", slack: float = 0.5, warmup: int = 50
    ) -> None:
        check_direction(direction)
        budget = check_number("false_alarm_every", false_alarm_every, low=10)
        self._slack = check_number("slack", slack, above=0, high=10)
        threshold = cusum_threshold(budget, self._slack, two_sided=direction == "both")
        super().__init__(direction=direction, warmup=warmup, threshold=threshold, learned_under={"slack": self._slack})

    def _clear(self) -> None:
        self._sums = _Sums()

    def _step(self, z: float, x: float) -> tuple[float, int, float] | None:
        sums = self._sums
        sums.add(z, x, self._slack)
        if sums.up >= self._threshold and self._direction != "down":
            return sums.up, sums.up_n, sums.up_x / sums.up_n
        if sums.down >= self._threshold and self._direction != "up":
            return -sums.down, sums.down_n, sums.down_x / sums.down_n
        return None

    def _level(self) -> float:
        return {"both": max(self._sums.up, self._sums.down), "up": self._sums.up, "down": self._sums.down}[self._direction]

    def _own_state(self) -> list[float]:
        s = self._sums
        return [s.up, s.down, s.up_n, s.down_n, s.up_x, s.down_x]

    def _own_restore(self, saved: list[float]) -> None:
        s = self._sums
        s.up, s.down, s.up_n, s.down_n, s.up_x, s.down_x = saved[0], saved[1], int(saved[2]), int(saved[3]), saved[4], saved[5]

"""Page-Hinkley, both ways: how far the cumulative deviation from the running mean has risen above its minimum."""

from actors.drift.cusum import Cusum
from actors.drift.interface import Direction


class PageHinkley(Cusum):
    """Alarm when U_n - min U exceeds a threshold, U the sum of (z - tolerance), and the mirror image of it downwards.

    Page 1954; Hinkley 1971. U_n - min U is the CUSUM with that slack, so the same code and formula serve; what is
    particular is the small `tolerance`, which makes it patient: good at small lasting shifts, slow on large ones. The
    values are standardised, so that tolerance and threshold need no knowledge of the metric's units (river's do). The
    budget holds on independent Gaussian noise only.

    >>> [alarm.index for alarm in PageHinkley().update([0.0, 1.0] * 50 + [2.0] * 20)]
    [108]
    """

    name = "page-hinkley"

    def __init__(
        self,
        *,
        false_alarm_every: float = 10_000,
        direction: Direction = "both",
        tolerance: float = 0.15,
        warmup: int = 50,
    ) -> None:
        try:
            super().__init__(false_alarm_every=false_alarm_every, direction=direction, slack=tolerance, warmup=warmup)
        except ValueError as error:
            raise ValueError(str(error).replace("slack", "tolerance")) from None

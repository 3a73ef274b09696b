"""What a window of requests comes to, and which predictions were right once the truth is known. Pure values; no clock."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

_P95 = 0.95


class Seen(NamedTuple):
    """One request, as the replica that answered it saw it."""

    latency_s: float
    failed: bool
    score: float | None


class Summary(NamedTuple):
    """Values of a window, and the number of observations behind them."""

    values: dict[str, float]
    n: int


def traffic(window: Sequence[Seen], seconds: float) -> list[Summary]:
    """Return what requests of `seconds` come to: one summary of all of them, one of those with a finite score.

    The 95th percentile is the smallest latency that at least 95% of the requests do not exceed.

    >>> traffic([Seen(0.01, False, 0.25), Seen(0.03, True, None)], 2.0)[0].values
    {'latency_ms': 20.0, 'latency_p95_ms': 30.0, 'error_rate': 0.5, 'request_rate': 1.0}
    """
    if not window:
        return []
    latencies = sorted(each.latency_s for each in window)
    count = len(window)
    values = {
        "latency_ms": 1000.0 * math.fsum(latencies) / count,
        "latency_p95_ms": 1000.0 * latencies[math.ceil(_P95 * count) - 1],
        "error_rate": sum(each.failed for each in window) / count,
        "request_rate": count / seconds,
    }
    summaries = [Summary(values, count)]
    scores = [each.score for each in window if each.score is not None and math.isfinite(each.score)]
    if scores:
        mean = math.fsum(scores) / len(scores)
        spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
        summaries.append(Summary({"score_mean": mean, "score_std": spread}, len(scores)))
    return summaries


class _Waiting:
    """What is known of one id: a prediction, a truth, or both."""

    __slots__ = ("at_s", "label", "truth", "version")

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.version: str | None = None
        self.label: object = None
        self.truth: tuple[object] | None = None


class Join:
    """Joins predictions with their truths by id, whichever comes first, where both come within the horizon.

    An id counts once: of several predictions or truths of one id within the horizon, the first ones do. Memory is bounded by
    `capacity`: beyond it the oldest ids are forgotten, and counted in `forgotten` where they wait for the other half.

    Example:
        join = Join(horizon_s=3600.0)
        join.predicted("r1", "v8", "spam", 0.0)
        join.truth("r1", "spam", 60.0)
        join.take()    # {"v8": (1, 1)}: one of one was right
    """

    def __init__(self, horizon_s: float, capacity: int = 1_000_000) -> None:
        if not horizon_s > 0:
            raise ValueError(f"horizon_s must be > 0, got {horizon_s}")
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, got {capacity}")
        self.horizon_s = horizon_s
        self.forgotten = 0
        self._capacity = capacity
        self._known: OrderedDict[Hashable, _Waiting] = OrderedDict()
        self._hits: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def predicted(self, id_: Hashable, version: str, label: object, now_s: float) -> None:
        """Note what a version has predicted."""
        known = self._of(id_, now_s)
        if known.version is None:
            known.version, known.label = version, label
            self._count(known)

    def truth(self, id_: Hashable, truth: object, now_s: float) -> None:
        """Note what was right."""
        known = self._of(id_, now_s)
        if known.truth is None:
            known.truth = (truth,)
            self._count(known)

    def take(self) -> dict[str, tuple[int, int]]:
        """Return the hits and the number of predictions that were joined since the last call, by version."""
        taken, self._hits = self._hits, {}
        return taken

    def expire(self, now_s: float) -> None:
        """Forget what is older than the horizon."""
        while self._known:
            oldest = next(iter(self._known.values()))
            if now_s - oldest.at_s < self.horizon_s:
                return
            self._drop()

    def _of(self, id_: Hashable, now_s: float) -> _Waiting:
        self.expire(now_s)
        known = self._known.get(id_)
        if known is None or now_s - known.at_s >= self.horizon_s:  # a clock that went back may leave an old one in the middle
            self._known.pop(id_, None)
            known = self._known[id_] = _Waiting(now_s)
            if len(self._known) > self._capacity:
                self._drop()
        return known

    def _drop(self) -> None:
        _, oldest = self._known.popitem(last=False)
        self.forgotten += oldest.version is None or oldest.truth is None

    def _count(self, known: _Waiting) -> None:
        if known.version is not None and known.truth is not None:
            hits, n = self._hits.get(known.version, (0, 0))
            self._hits[known.version] = hits + (known.label == known.truth[0]), n + 1

"""Which of two versions is better, judged after each period for as long as it takes, at 5% in all.

A betting test, an e-process for two proportions: Turner, Ly, Grunwald 2024, "Generic E-variables for exact sequential
k-sample tests that allow for optional stopping" (J. Stat. Plan. Inference 230). The wealth of somebody who bets
against "b is no better than a", at odds that are fair if it is true, exceeds 1 / alpha with a chance of at most alpha,
however often one looks (Ville 1939). Ours: the bets are spread over several sizes of the difference.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from actors.drift.interface import check_number, pack_state, unpack_state
from actors.drift.windows import checked_window

Verdict = Literal["better", "worse", "undecided"]

# Differences that are bet on, as log odds ratios (near 0.87, 1 / 6 is two points), and their shares of the stake. What
# lies between two of them is found almost as soon; below half of the least one nothing is found.
_EFFECTS = (1 / 100, 1 / 30, 1 / 12, 1 / 6, 0.4, 1.0)
_SHARES = (0.02, 0.05, 0.22, 0.48, 0.14, 0.09)
_RATE_AT_FIRST = 0.8  # what both rates are taken for before the first period, with the weight of two rows
_ROWS_AT_FIRST = 2.0
_BOLDEST = 0.9  # share of the way to 0 or 1 that a bet may assume a rate to lie
_NAME = "challenger"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a challenger stands: `for_better` and `for_worse` are e-values; either decides at 2 / level."""

    verdict: Verdict
    for_better: float
    for_worse: float
    decides_at: float
    hits_a: int
    n_a: int
    hits_b: int
    n_b: int

    @property
    def difference(self) -> float | None:
        """Return the rate of b less that of a over all periods; None while either has no rows."""
        return self.hits_b / self.n_b - self.hits_a / self.n_a if self.n_a and self.n_b else None


class ChallengerTest:
    """Say whether version b gets more rows right than version a; right in all but `level` of the cases, for ever.

    The chance of ever calling b better when it is not is at most level / 2, and so is that of ever calling it worse
    when it is not. Both rates may drift as long as they do it together. A period is what both versions did in the
    same time; how many rows a period has must not depend on what the versions get right in it. A verdict is final.

    >>> test = ChallengerTest()
    >>> for _ in range(30):
    ...     verdict = test.update(hits_a=170, n_a=200, hits_b=182, n_b=200)
    >>> verdict, test.comparison().difference > 0.05
    ('better', True)
    """

    def __init__(self, *, level: float = 0.05) -> None:
        self._level = check_number("level", level, above=0.0, high=0.5)
        self._decides = math.log(2.0 / self._level)
        self._learned_under = {"level": self._level}
        self.reset()

    def reset(self) -> None:
        """Forget all periods, as if newly made."""
        self._verdict: Verdict = "undecided"
        # Logarithms of what each bet is worth by now, of those on "better" and of those on "worse".
        self._better = [0.0] * len(_EFFECTS)
        self._worse = [0.0] * len(_EFFECTS)
        self._hits = [0, 0]
        self._rows = [0, 0]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict so far."""
        return self._verdict

    def update(self, *, hits_a: float, n_a: float, hits_b: float, n_b: float) -> Verdict:
        """Take the next period: so many hits among so many rows of either version; return the verdict.

        One of the versions may have had no rows; then the period says nothing of the difference.

        Raises:
            ValueError: n_a or n_b is no whole number from 0 to 1e12, or the hits none from 0 to n. Nothing has changed.
        """
        a, b = checked_window(hits_a, n_a, suffix="_a", least=0), checked_window(hits_b, n_b, suffix="_b", least=0)
        if a[1] and b[1] and self._verdict == "undecided":
            rate = self._rate()
            for bets, sign in ((self._better, 1.0), (self._worse, -1.0)):
                for i, effect in enumerate(_EFFECTS):
                    bets[i] += _won(rate, sign * effect, a, b)
            if _log_mean(self._better) >= self._decides:
                self._verdict = "better"
            elif _log_mean(self._worse) >= self._decides:
                self._verdict = "worse"
        for i, (hits, rows) in enumerate((a, b)):
            self._hits[i] += hits
            self._rows[i] += rows
        return self._verdict

    def _rate(self) -> float:
        """Return the rate of both versions together so far, never 0 or 1: bets may use the past, not the period itself."""
        hits = sum(self._hits) + _RATE_AT_FIRST * _ROWS_AT_FIRST
        return hits / (sum(self._rows) + _ROWS_AT_FIRST)

    def comparison(self) -> Comparison:
        """Return the evidence so far."""
        (hits_a, hits_b), (n_a, n_b) = self._hits, self._rows
        return Comparison(
            verdict=self._verdict,
            for_better=_exp(_log_mean(self._better)),
            for_worse=_exp(_log_mean(self._worse)),
            decides_at=2.0 / self._level,
            hits_a=hits_a,
            n_a=n_a,
            hits_b=hits_b,
            n_b=n_b,
        )

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; about 250 bytes."""
        body = {
            "verdict": self._verdict,
            "better": self._better,
            "worse": self._worse,
            "hits": self._hits,
            "rows": self._rows,
        }
        return pack_state(_NAME, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken.

        Raises:
            ValueError: the state is broken, or that of a test at another level.
        """
        body = unpack_state(_NAME, self._learned_under, state)
        if body["verdict"] not in get_args(Verdict) or not len(body["better"]) == len(body["worse"]) == len(_EFFECTS):
            raise ValueError("state must be the bytes that state() returned, in a version that this build knows")
        self._verdict = body["verdict"]
        self._better, self._worse = list(body["better"]), list(body["worse"])
        self._hits, self._rows = list(body["hits"]), list(body["rows"])


def _won(rate: float, effect: float, a: tuple[int, int], b: tuple[int, int]) -> float:
    """Return the logarithm of the factor that a bet on this log odds ratio wins or loses in a period.

    It is the e-variable of the paper: the likelihood of two assumed rates over that of their mean, weighted by rows,
    which is `rate`. Its expectation is at most 1 if both true rates are equal, whatever they are, and also if they
    differ the other way: its logarithm is at most n_b k_b (p_b - p_a), where k_b has the sign of the effect.
    """
    (hits_a, n_a), (hits_b, n_b) = a, b
    share_a = n_a / (n_a + n_b)
    share_b = 1.0 - share_a
    # The rates lie as far from the mean as the other version has rows; neither may reach 0 or 1.
    room_up, room_down = (share_a, share_b) if effect > 0 else (share_b, share_a)
    most = _BOLDEST * min((1.0 - rate) / room_up, rate / room_down)
    apart = math.copysign(min(abs(effect) * rate * (1.0 - rate), most), effect)
    shift_a, shift_b = -apart * share_b, apart * share_a
    return (
        hits_a * math.log1p(shift_a / rate)
        + (n_a - hits_a) * math.log1p(-shift_a / (1.0 - rate))
        + hits_b * math.log1p(shift_b / rate)
        + (n_b - hits_b) * math.log1p(-shift_b / (1.0 - rate))
    )


def _log_mean(bets: list[float]) -> float:
    """Return the logarithm of the bets' mean, weighted by their shares."""
    top = max(bets)
    return top + math.log(sum(share * math.exp(bet - top) for share, bet in zip(_SHARES, bets, strict=True)))


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))

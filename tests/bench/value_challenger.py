"""How soon the challenger test decides, and how often it errs, for pairs of versions with known rates."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from actors.drift import ChallengerTest

PAIRS = ((0.85, 0.87), (0.87, 0.85), (0.86, 0.86), (0.82, 0.87), (0.86, 0.87), (0.98, 0.985))
_PERIOD = 100  # rows of either version
_LONGEST = 60_000  # rows of either version


class Found(TypedDict):
    """One pair of rates: what share of runs called b better or worse, and the rows of each version until then."""

    a: float
    b: float
    runs: int
    better: float
    better_error: float
    worse: float
    worse_error: float
    rows_median: float | None  # None where fewer runs than that decided
    rows_90: float | None


def pair(a: float, b: float, *, runs: int, longest: int = _LONGEST) -> Found:
    """Run the test on fresh rows of two versions, `runs` times."""
    verdicts, rows = [], []
    for seed in range(runs):
        rng = np.random.default_rng([17, seed])
        periods = longest // _PERIOD
        hits_a = rng.binomial(_PERIOD, a, periods).tolist()
        hits_b = rng.binomial(_PERIOD, b, periods).tolist()
        test = ChallengerTest()
        taken = np.inf
        for i in range(periods):
            if test.update(hits_a=hits_a[i], n_a=_PERIOD, hits_b=hits_b[i], n_b=_PERIOD) != "undecided":
                taken = (i + 1) * _PERIOD
                break
        verdicts.append(test.verdict)
        rows.append(taken)
    share = {verdict: verdicts.count(verdict) / runs for verdict in ("better", "worse")}
    error = {verdict: float(np.sqrt(p * (1 - p) / runs)) for verdict, p in share.items()}
    middle, most = np.quantile(rows, (0.5, 0.9), method="higher")
    return {
        "a": a,
        "b": b,
        "runs": runs,
        "better": share["better"],
        "better_error": error["better"],
        "worse": share["worse"],
        "worse_error": error["worse"],
        "rows_median": float(middle) if np.isfinite(middle) else None,
        "rows_90": float(most) if np.isfinite(most) else None,
    }

"""Turns plans into figures: gain over a calendar with as many retrains, share of the gap, regret; means over streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tests.bench.value_rules import BUDGETS, PRICES, RULES, plan
from tests.bench.value_table import MOST, Table

PERIODS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 100.0)  # training sets; the last is never
_DRAWS = 4000  # of streams, for the bound
_WON = 0.02  # points


@dataclass(frozen=True)
class Score:
    """One rule on one stream and model at one price; in points of accuracy where nothing else is said."""

    stream: str
    kind: str
    model: str
    rule: str
    price: float
    retrains: float
    gain: float  # over the mean of calendars with as many retrains
    share: float | None  # of the way from there to the optimum with as many; None where there is no way to go
    regret: float  # misses and prices paid, over the best of all plans in hindsight


class Summary(TypedDict):
    """One rule over streams; errors are standard errors over streams."""

    rule: str
    streams: int
    retrains: float
    gain: float
    gain_error: float
    gain_low: float  # 5% bound
    median: float
    won: int
    lost: int
    share: float | None
    regret: float
    regret_error: float


def score_of(table: Table, rule: str, price: float, retrains: float, misses: float) -> Score:
    """Return the figures of one plan: so many retrains at `price`, and the misses that were left."""
    whole = round(retrains)
    calendar, best = table.calendar(whole), table.optimum[min(whole, MOST)]
    cost = price * table.train
    hindsight = min(fewest + cost * k for k, fewest in enumerate(table.optimum))
    points = 100.0 / table.rows
    return Score(
        stream=table.name,
        kind=table.kind,
        model=table.model,
        rule=rule,
        price=price,
        retrains=retrains,
        gain=points * (calendar - misses),
        share=(calendar - misses) / (calendar - best) if calendar - best > 1 else None,
        regret=points * (misses + cost * retrains - hindsight),
    )


def scores(table: Table, rules: Iterable[str] = RULES) -> list[Score]:
    """Return what each rule does on one stream and model at each price, and what is no rule: never, random, the optimum."""
    rng = np.random.default_rng(0)
    found: list[Score] = []
    for price, budget in zip(PRICES, BUDGETS, strict=True):
        retrains = 0
        for name in rules:
            points = plan(RULES[name], table, price=price, budget=budget)
            found.append(score_of(table, name, price, len(points), table.misses(points)))
            if name == "shortfall":
                retrains = len(points)
        cost = price * table.train
        best = int(np.argmin([fewest + cost * k for k, fewest in enumerate(table.optimum)]))
        known = min(range(MOST + 1), key=lambda k: table.calendar(k) + cost * k)
        found += [
            score_of(table, "never", price, 0, table.misses([])),
            score_of(table, "random", price, retrains, table.drawn(retrains, rng)),
            score_of(table, "best calendar of each stream", price, known, table.calendar(known)),
            score_of(table, "optimum in hindsight", price, best, table.optimum[best]),
        ]
        for period in PERIODS:
            misses, retrains_of = table.periodic(period)
            found.append(score_of(table, f"calendar {period:g}", price, retrains_of, misses))
    return found


def with_best_calendar(found: Sequence[Score]) -> list[Score]:
    """Return the scores with one calendar in place of all: at each price, the period that is best over all streams."""
    chosen = set()
    for price in PRICES:
        regrets = {
            period: np.mean([s.regret for s in found if s.rule == f"calendar {period:g}" and s.price == price])
            for period in PERIODS
        }
        chosen.add((price, f"calendar {min(regrets, key=lambda period: float(regrets[period])):g}"))
    kept = []
    for score in found:
        if not score.rule.startswith("calendar "):
            kept.append(score)
        elif (score.price, score.rule) in chosen:
            kept.append(Score(**{**vars(score), "rule": "best single calendar", "gain": 0.0, "share": 0.0}))
    return kept


def _by_stream(found: Sequence[Score], of: Callable[[Score], float]) -> np.ndarray:
    names = sorted({score.stream for score in found})
    return np.array([np.mean([of(score) for score in found if score.stream == name]) for name in names])


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def summary(found: Sequence[Score], rule: str) -> Summary:
    """Return the means of one rule over the streams, each the mean of its models and prices."""
    own = [score for score in found if score.rule == rule]
    gain, regret = _by_stream(own, lambda s: s.gain), _by_stream(own, lambda s: s.regret)
    rng = np.random.default_rng(0)
    means = rng.choice(gain, (_DRAWS, len(gain))).mean(axis=1)
    shares = [score.share for score in own if score.share is not None]
    return {
        "rule": rule,
        "streams": len(gain),
        "retrains": float(np.mean([score.retrains for score in own])),
        "gain": float(gain.mean()),
        "gain_error": _error(gain),
        "gain_low": float(np.quantile(means, 0.05)),
        "median": float(np.median(gain)),
        "won": int((gain > _WON).sum()),
        "lost": int((gain < -_WON).sum()),
        "share": float(np.median(shares)) if shares else None,
        "regret": float(regret.mean()),
        "regret_error": _error(regret),
    }

"""The closed loop: models are trained when a rule asks, and calendars train at their dates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.bench.value_rules import Deployed, Make, Rule
from tests.bench.value_streams import Floats, Rows
from tests.bench.value_table import PHASES, WINDOW, model, trained

_PART = 64  # windows predicted at a time, since a forest takes as long for ten rows as for a thousand


def closed(rows: Rows, kind: str, made: Make, *, price: float, budget: float) -> tuple[list[int], float]:
    """Return the live rows after which the rule had a new model trained, and the misses of all models."""
    live = len(rows.classes) - rows.train
    told = Deployed(0.0, rows.train, price * rows.train, budget * rows.train, 0, 0)
    moments: list[int] = []
    misses, at = 0.0, 0
    while at < live:
        fitted, promised = trained(kind, rows, rows.train + at)
        rule = made(Deployed(promised, told.train, told.price, told.budget, at, len(moments)))
        end = _served(rows, fitted, rule, at, live)
        misses += float((fitted.predict(_features(rows, at, end)) != rows.classes[rows.train + at : rows.train + end]).sum())
        if end < live:
            moments.append(end)
        at = end
    return moments, misses


def _features(rows: Rows, start: int, end: int) -> Floats:
    return rows.features[rows.train + start : rows.train + end]


def _served(rows: Rows, fitted: Any, rule: Rule, start: int, live: int) -> int:
    """Return the live row before which the model is replaced, half a training set after it went live at the earliest."""
    earliest = start + rows.train // 2
    for part in range(start, live, _PART * WINDOW):
        end = min(part + _PART * WINDOW, live)
        right = fitted.predict(_features(rows, part, end)) == rows.classes[rows.train + part : rows.train + end]
        for i in range(0, len(right), WINDOW):
            row = min(part + i + WINDOW, live)
            if rule.asks(right[i : i + WINDOW]) and row >= earliest:
                return row
    return live


def calendar(rows: Rows, kind: str, retrains: int) -> float:
    """Return the misses of a calendar of so many retrains, the mean over its phases."""
    live = len(rows.classes) - rows.train
    found = []
    for phase in PHASES if retrains else (0.0,):
        due = (np.arange(1, retrains + 1) + phase) * live / (retrains + 1)
        found.append(_planned(rows, kind, [round(float(moment)) for moment in due]))
    return float(np.mean(found))


def _planned(rows: Rows, kind: str, moments: Sequence[int]) -> float:
    live = len(rows.classes) - rows.train
    misses = 0.0
    for start, end in zip([0, *moments], [*moments, live], strict=True):
        part = slice(start, start + rows.train)  # the rows before it, since live rows begin after the first training set
        fitted = model(kind).fit(rows.features[part], rows.classes[part])
        misses += float(
            (fitted.predict(_features(rows, start, end)) != rows.classes[rows.train + start : rows.train + end]).sum()
        )
    return misses

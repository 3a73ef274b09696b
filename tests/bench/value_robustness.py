"""What the shortfall rule tolerates: wrong promises and prices, labels that are few or late, windows without their n."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from actors.drift import Shortfall
from tests.bench.value_rules import BUDGETS, PRICES, Deployed, Make, Right, Rule, Short, plan
from tests.bench.value_score import Score, score_of, summary
from tests.bench.value_streams import Rows
from tests.bench.value_table import GRID, WINDOW, Table, model, table, training

_OFF = 0.03  # of a promise
_LATE = GRID // 2  # grid points: half a training set
_FIRST = 4  # of the training rows, the part that a version's own first live rows make


class Wrong(NamedTuple):
    """One error of what the rule is given, and the rule with it; `make` is called once for each stream and price."""

    what: str
    make: Callable[[Table], Make]


class _Few(Short):
    """Labels come for one row in `every`; the price stands for the errors that are seen."""

    def __init__(self, told: Deployed, *, every: int) -> None:
        super().__init__(replace(told, price=told.price / every))
        self._every = every
        self._random = np.random.default_rng(told.rows)

    def asks(self, right: Right) -> bool:
        """See Rule."""
        return super().asks(right[self._random.random(len(right)) < 1.0 / self._every])


class _Late(Short):
    """Labels come half a training set late."""

    def __init__(self, told: Deployed) -> None:
        super().__init__(told)
        self._waiting: list[Right] = []

    def asks(self, right: Right) -> bool:
        """See Rule."""
        self._waiting.append(right)
        return len(self._waiting) > _LATE and super().asks(self._waiting.pop(0))


class _Own(Short):
    """The promise is what a version's own first live rows gave."""

    def __init__(self, told: Deployed) -> None:
        super().__init__(told)
        self._told, self._first = told, np.empty(0, dtype=bool)

    def asks(self, right: Right) -> bool:
        """See Rule."""
        needed = self._told.train // _FIRST
        if len(self._first) >= needed:
            return super().asks(right)
        self._first = np.concatenate((self._first, right))
        if len(self._first) >= needed:
            told = self._told
            self._rule = Shortfall(promised=float(self._first.mean()), promised_n=needed, price=told.price)
        return False


class _Blind(Short):
    """Windows come without their n: each counts as one row."""

    def asks(self, right: Right) -> bool:
        """See Rule."""
        windows = [right[i : i + WINDOW] for i in range(0, len(right), WINDOW)]
        self._rule.update_many([round(float(window.mean())) for window in windows], [1] * len(windows))
        return self._rule.due


def _inherited(known: Table) -> Make:
    return lambda told: Short(replace(told, promised=float(known.promised[0])))


def _promised(by: float) -> Callable[[Table], Make]:
    return lambda _known: lambda told: Short(replace(told, promised=float(np.clip(told.promised + by, 0.0, 1.0))))


def _priced(factor: float) -> Callable[[Table], Make]:
    return lambda _known: lambda told: Short(replace(told, price=factor * told.price))


def _always(make: Callable[[Deployed], Rule]) -> Callable[[Table], Make]:
    return lambda _known: make


WRONG: tuple[Wrong, ...] = (
    Wrong("nothing", _always(Short)),
    Wrong(f"the promise is {100 * _OFF:.0f} points too high", _promised(_OFF)),
    Wrong(f"the promise is {100 * _OFF:.0f} points too low", _promised(-_OFF)),
    Wrong("the price is twice the true one", _priced(2.0)),
    Wrong("the price is half the true one", _priced(0.5)),
    Wrong("labels for one row in three", _always(lambda told: _Few(told, every=3))),
    Wrong("labels for one row in thirty", _always(lambda told: _Few(told, every=30))),
    Wrong("labels late by half a training set", _always(_Late)),
    Wrong("every version inherits the first one's promise", _inherited),
    Wrong("the promise is the version's own first live rows", _always(_Own)),
    Wrong("windows without their n, one row each is assumed", _always(_Blind)),
)
HELD_OUT = "the promise is one hold-out of the last quarter"


def robustness(rows: Rows, kind: str, cache: Path | None) -> list[Score]:
    """Return what the rule does on a stream with each error, at each price; `Score.rule` names the error."""
    known = table(rows, kind, cache)
    held_out = replace(known, promised=_held_out(rows, kind, known.points))
    tables = [*((wrong, known) for wrong in WRONG), (Wrong(HELD_OUT, _always(Short)), held_out)]
    found = []
    for wrong, seen in tables:
        for price, budget in zip(PRICES, BUDGETS, strict=True):
            points = plan(wrong.make(seen), seen, price=price, budget=budget)
            found.append(score_of(known, wrong.what, price, len(points), known.misses(points)))
    return found


def _held_out(rows: Rows, kind: str, points: int) -> np.ndarray:
    """Return what a model of the first three quarters of each training set gets right of the last."""
    step, quarter = rows.train // GRID, rows.train // 4
    promised = np.zeros(points)
    for i in range(points):
        end = rows.train + i * step
        train, test = slice(end - rows.train, end - quarter), slice(end - quarter, end)
        with training():
            fitted = model(kind).fit(rows.features[train], rows.classes[train])
        promised[i] = float((fitted.predict(rows.features[test]) == rows.classes[test]).mean())
    return promised


def told(found: list[Score]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: the error, retrains, gain over a calendar with as many, regret."""
    lines = []
    for what in dict.fromkeys(score.rule for score in found):
        row = summary(found, what)
        gain, regret = f"{row['gain']:+.2f}±{row['gain_error']:.2f}", f"{row['regret']:.2f}±{row['regret_error']:.2f}"
        lines.append((what, f"{row['retrains']:.1f}", gain, regret))
    return lines

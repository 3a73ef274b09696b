"""The rules that are compared. Each is made anew for each model that goes live, and sees what that model does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actors.drift import BudgetPrice, Shortfall, create
from tests.bench.value_table import GRID, WINDOW, Table

PRICES = (0.003, 0.01, 0.03, 0.1)  # of the training rows, in errors
BUDGETS = (1.0, 2.0, 4.0, 8.0)  # training sets for one retrain; the nth goes with the nth price
COOLDOWN = GRID // 2  # grid points: half a training set

Right = npt.NDArray[np.bool_]


class Rule(Protocol):
    """Watches one live model."""

    def asks(self, right: Right) -> bool:
        """Take the next rows, whether each was right; return whether to retrain now, after the last of them."""


@dataclass(frozen=True)
class Deployed:
    """What a rule knows of a model that goes live."""

    promised: float
    train: int
    price: float  # of a retrain, in errors
    budget: float  # rows for one retrain
    rows: int  # since the stream began
    retrains: int  # since then


def _windows(right: Right) -> tuple[list[int], list[int]]:
    cuts = [right[i : i + WINDOW] for i in range(0, len(right), WINDOW)]
    return [int(cut.sum()) for cut in cuts], [len(cut) for cut in cuts]


class Short:
    """Ours: the price of a retrain is known."""

    def __init__(self, told: Deployed) -> None:
        self._rule = Shortfall(promised=told.promised, promised_n=told.train, price=told.price)

    def asks(self, right: Right) -> bool:
        """See Rule."""
        self._rule.update_many(*_windows(right))
        return self._rule.due


class Budgeted:
    """Ours: how many retrains are wanted is known instead."""

    def __init__(self, told: Deployed) -> None:
        self._told, self._rows = told, told.rows
        self._plan = BudgetPrice(promised_n=told.train, every=told.budget)
        self._rule = Shortfall(promised=told.promised, promised_n=told.train, price=1.0)

    def asks(self, right: Right) -> bool:
        """See Rule."""
        self._rows += len(right)
        self._rule.price = self._plan.price(elapsed=self._rows, retrains=self._told.retrains)
        self._rule.update_many(*_windows(right))
        return self._rule.due


class Alarmed:
    """Ours: retrain at an alarm of the default detector, which learns its baseline from the live model's first windows."""

    def __init__(self, _told: Deployed, *, false_alarm_every: float) -> None:
        self._detector = create("default", false_alarm_every=false_alarm_every, direction="down")

    def asks(self, right: Right) -> bool:
        """See Rule."""
        hits, rows = _windows(right)
        return bool(self._detector.update(np.array(hits) / np.array(rows)))


class River:
    """Retrain where a detector of river sees the error rise; it is shown every row."""

    def __init__(self, _told: Deployed, *, name: str) -> None:
        module = "river.drift.binary" if name == "DDM" else "river.drift"
        self._detector: Any = getattr(importlib.import_module(module), name)()

    def asks(self, right: Right) -> bool:
        """See Rule."""
        found = False
        for missed in (~right).tolist():
            before = getattr(self._detector, "estimation", 0.0)
            self._detector.update(missed)
            # ADWIN also reports an error that fell.
            found |= self._detector.drift_detected and getattr(self._detector, "estimation", 1.0) > before
        return found


Make = Callable[[Deployed], Rule]

RULES: dict[str, Make] = {
    "shortfall": Short,
    "budget": Budgeted,
    "alarm, 300": lambda told: Alarmed(told, false_alarm_every=300),
    "alarm, 10,000": lambda told: Alarmed(told, false_alarm_every=10_000),
    "river ADWIN": lambda told: River(told, name="ADWIN"),
    "river DDM": lambda told: River(told, name="DDM"),
}
PRICED = ("shortfall", "budget")  # those that a price or budget changes


def plan(made: Make, table: Table, *, price: float, budget: float) -> list[int]:
    """Return the grid points at which the rule has a new model go live."""
    told = Deployed(float(table.promised[0]), table.train, price * table.train, budget * table.train, 0, 0)
    rule, live, since = made(told), 0, 0
    points: list[int] = []
    for j in range(table.points):
        asked = rule.asks(table.right[live, j * table.step : (j + 1) * table.step])
        since += 1
        if asked and since >= COOLDOWN and j + 1 < table.points:
            live, since = j + 1, 0
            points.append(live)
            rule = made(
                Deployed(float(table.promised[live]), told.train, told.price, told.budget, live * table.step, len(points))
            )
    return points

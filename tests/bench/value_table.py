"""The cost of every plan of retrains on a stream: one model for each point at which one can be trained.

A plan is the list of grid points at which a new model goes live; the first model goes live at point 0. Training, judging
and the optimum in hindsight are then look-ups, so that thousands of plans can be compared.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from actors.promise import cross_validated
from tests.bench.value_streams import Classes, Floats, Rows

GRID = 6  # points for each training set's length
WINDOW = 10  # rows that are logged together
PHASES = (-0.4, -0.2, 0.0, 0.2, 0.4)  # of a calendar, as shares of its period
MOST = 40  # retrains of a plan in hindsight
MODELS = ("linear", "forest")


class _Linear(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A logistic regression of scaled features, which can also be trained on rows of one class."""

    def fit(self, features: Floats, classes: Classes) -> _Linear:
        only = len(np.unique(classes)) == 1
        last = DummyClassifier() if only else LogisticRegression(max_iter=300)
        self.fitted_ = make_pipeline(StandardScaler(), last).fit(features, classes)
        return self

    def predict(self, features: Floats) -> Classes:
        return np.asarray(self.fitted_.predict(features))


def model(kind: str) -> Any:
    """Return an untrained classifier."""
    if kind == "linear":
        return _Linear()
    return RandomForestClassifier(n_estimators=25, min_samples_leaf=2, random_state=0, n_jobs=1)


@contextmanager
def training() -> Iterator[None]:
    """Train in one thread, without warnings about convergence."""
    # Threads for matrices this small cost more than they do, on a busy machine twenty times as much.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def trained(kind: str, rows: Rows, end: int) -> tuple[Any, float]:
    """Return a model of the last `rows.train` rows before `end`, and what it promises."""
    part = slice(end - rows.train, end)
    with training():
        promised = cross_validated(model(kind), rows.features[part], rows.classes[part]).value
        return model(kind).fit(rows.features[part], rows.classes[part]), promised


@dataclass(frozen=True, eq=False)
class Table:
    """`right[i, t]`: whether model i gets live row t right (False before it exists); `promised: float64[grid points]`."""

    name: str
    kind: str
    model: str
    train: int
    right: npt.NDArray[np.bool_]
    promised: Floats

    @property
    def points(self) -> int:
        """Return how many points there are at which a model could be trained."""
        return len(self.promised)

    @property
    def step(self) -> int:
        """Return the rows between two of them."""
        return self.train // GRID

    @property
    def rows(self) -> int:
        """Return how many live rows there are."""
        return self.points * self.step

    @cached_property
    def cost(self) -> Floats:
        """Return the misses of model i from point i up to point j: float64[points, points + 1]."""
        misses = (~self.right).reshape(self.points, self.points, self.step).sum(axis=2).astype(float)
        cost = np.full((self.points, self.points + 1), np.inf)
        for i in range(self.points):
            cost[i, i + 1 :] = np.cumsum(misses[i, i:])
        return cost

    @cached_property
    def optimum(self) -> list[float]:
        """Return the fewest misses of any plan of 0, 1, ... retrains, by dynamic programming; never more with more."""
        best = np.append(np.inf, self.cost[0, 1:])
        fewest = [float(best[-1])]
        for _ in range(MOST):
            best = np.minimum(best, (best[: self.points, None] + self.cost).min(axis=0))
            fewest.append(float(best[-1]))
        return fewest

    def misses(self, plan: Sequence[int]) -> float:
        """Return the misses of a plan."""
        points = [0, *plan, self.points]
        return float(sum(self.cost[a, b] for a, b in pairwise(points)))

    def calendar(self, retrains: int) -> float:
        """Return the misses of a calendar of so many retrains, the mean over its phases."""
        if not retrains:
            return self.misses([])
        due = np.arange(1, retrains + 1)
        plans = [(due + phase) * self.points / (retrains + 1) for phase in PHASES]
        return float(np.mean([self.misses(self._at(plan)) for plan in plans]))

    def periodic(self, period: float) -> tuple[float, float]:
        """Return the misses and retrains of a calendar of one retrain in `period` training sets, means over its phases."""
        due = np.arange(1, self.points / (period * GRID) + 1) * period * GRID
        plans = [self._at(due + phase * period * GRID) for phase in PHASES]
        return float(np.mean([self.misses(plan) for plan in plans])), float(np.mean([len(plan) for plan in plans]))

    def _at(self, points: Floats) -> list[int]:
        whole = sorted({round(float(point)) for point in points})
        return [point for point in whole if 0 < point < self.points]

    def drawn(self, retrains: int, rng: np.random.Generator) -> float:
        """Return the misses of as many retrains at random points, the mean of 20 draws."""
        retrains = min(retrains, self.points - 1)
        points = np.arange(1, self.points)
        return float(np.mean([self.misses(sorted(rng.choice(points, retrains, replace=False).tolist())) for _ in range(20)]))


def table(rows: Rows, kind: str, cache: Path | None = None) -> Table:
    """Train a model at each grid point and let it judge all rows after it; from the cache, if it knows these rows."""
    content = hashlib.sha256(rows.features.tobytes() + rows.classes.tobytes() + f"{rows.train} {kind}".encode()).hexdigest()
    path = cache / f"{rows.name}.{kind}.{content[:12]}.npz" if cache else None
    if path and path.exists():
        with np.load(path) as saved:
            right = np.unpackbits(saved["right"], axis=1)[:, : int(saved["rows"])].astype(bool)
            return Table(rows.name, rows.kind, kind, rows.train, right, saved["promised"])
    step = rows.train // GRID
    points = (len(rows.classes) - rows.train) // step
    live = slice(rows.train, rows.train + points * step)
    right = np.zeros((points, points * step), dtype=bool)
    promised = np.zeros(points)
    for i in range(points):
        fitted, promised[i] = trained(kind, rows, rows.train + i * step)
        ahead = slice(live.start + i * step, live.stop)
        right[i, i * step :] = fitted.predict(rows.features[ahead]) == rows.classes[ahead]
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, right=np.packbits(right, axis=1), rows=right.shape[1], promised=promised)
    return Table(rows.name, rows.kind, kind, rows.train, right, promised)

"""What a trainer may promise: cross-validation in blocks of time, whatever the rows come in."""

from __future__ import annotations

import doctest
import importlib
import sys
from typing import Any

import numpy as np
import pytest

from actors import promise
from actors.promise import Promise, cross_validated

pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression


class Recorder(BaseEstimator):
    """Notes the rows that each copy was trained on and asked about; answers with the row's own number."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def __sklearn_clone__(self) -> Recorder:
        return Recorder(self.log)

    def fit(self, rows: Any, _classes: Any) -> None:
        self.log.append(("fit", np.asarray(rows)[:, 0].tolist()))

    def predict(self, rows: Any) -> Any:
        self.log.append(("predict", np.asarray(rows)[:, 0].tolist()))
        return np.asarray(rows)[:, 0] % 3


def test_each_block_of_time_is_predicted_by_a_model_of_all_the_others() -> None:
    log: list[Any] = []
    rows = np.arange(10).reshape(-1, 1)
    assert cross_validated(Recorder(log), rows, np.arange(10) % 3) == Promise(1.0, 10)
    asked = [seen for what, seen in log if what == "predict"]
    trained = [seen for what, seen in log if what == "fit"]
    assert asked == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert [sorted(a + b) for a, b in zip(asked, trained, strict=True)] == [list(range(10))] * 4


def test_the_value_is_a_whole_number_of_hits() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((203, 3))
    classes = (features[:, 0] + rng.standard_normal(203) > 0).astype(int)
    model = LogisticRegression()
    value, n = cross_validated(model, features, classes, blocks=5)
    assert n == 203
    assert value * n == pytest.approx(round(value * n))
    assert 0.6 < value < 0.9
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("kind", ["list", "frame", "sparse", "text"])
def test_rows_and_classes_of_every_kind_are_taken(kind: str) -> None:
    features: Any = [[i % 2, 0.5] for i in range(40)]
    classes: Any = [i % 2 for i in range(40)]
    if kind == "frame":
        pandas = pytest.importorskip("pandas")
        features = pandas.DataFrame(features, columns=["a", "b"], index=range(100, 140))
        classes = pandas.Series(classes, index=range(100, 140))
    elif kind == "sparse":
        features = pytest.importorskip("scipy.sparse").csr_matrix(np.asarray(features))
    elif kind == "text":
        classes = ["late" if each else "on time" for each in classes]
    assert cross_validated(LogisticRegression(), features, classes) == (1.0, 40)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # scikit-learn looks at a NaN before it refuses it
@pytest.mark.parametrize(
    ("features", "classes", "blocks", "message"),
    [
        ([[0], [1], [2]], [0, 1], 2, "inconsistent"),
        ([[0], [1], [2]], [0, 1, 0], 4, "blocks must be a whole number from 2 to the 3 rows, got 4"),
        ([[0], [1], [2]], [0, 1, 0], 1, "blocks must be"),
        ([[0], [1], [2]], [0, 1, 0], 2.0, "blocks must be"),
        ([[0], [1], [2]], [0, 1, 0], True, "blocks must be"),
        ([[0], [1], [2]], [0.5, 1.25, 0.1], 2, "y must hold one class a row, got continuous"),
        ([[0], [1], [2]], [0, float("nan"), 1], 2, "NaN"),
        ([], [], 2, "blocks must be"),
    ],
)
def test_bad_input_is_named(features: Any, classes: Any, blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_validated(DummyClassifier(), features, classes, blocks=blocks)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(ModuleNotFoundError, match=r"visutility\[promise\]"):
        cross_validated(None, [[0]], [0])


def test_the_module_imports_no_scikit_learn_by_itself() -> None:
    assert "sklearn" not in vars(promise)


def test_the_example_holds() -> None:
    results = doctest.testmod(importlib.import_module("actors.promise"))
    assert results.attempted
    assert results.failed == 0

"""Spaces of other libraries: searched as they were meant, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from actors.tuning.rules.plan import check
from actors.tuning.strategies.space import parse

optuna: Any = pytest.importorskip("optuna")
configspace: Any = pytest.importorskip("ConfigSpace")
kinds = optuna.distributions


def test_optunas_distributions_are_ranges_and_choices() -> None:
    space = {
        "lr": kinds.FloatDistribution(1e-5, 1e-2, log=True),
        "dropout": kinds.FloatDistribution(0.0, 0.5),
        "layers": kinds.IntDistribution(1, 8),
        "width": kinds.IntDistribution(8, 512, log=True),
        "kind": kinds.CategoricalDistribution(["rbf", "poly", None]),
        "fixed": kinds.IntDistribution(3, 3),
        "ours": [0, 1],
    }
    assert parse(space).document() == {
        "lr": [1e-5, 1e-2, "log"],
        "dropout": [0.0, 0.5],
        "layers": [1, 8, "int"],
        "width": [8, 512, "int", "log"],
        "kind": {"choices": ["rbf", "poly", None]},
        "fixed": {"choices": [3]},
        "ours": [0.0, 1.0],
    }


def test_a_configspace_is_searched_in_its_order() -> None:
    space = configspace.ConfigurationSpace({"a": (0.1, 1.5), "b": (2, 10), "c": ["x", "y"], "d": 3})
    space.add(configspace.Float("lr", (1e-5, 1e-1), log=True), configspace.OrdinalHyperparameter("o", [1, 2, 4]))
    document = check({"name": "s", "space": space, "trials": 3, "seed": 1}).space
    assert document == {
        "a": [0.1, 1.5],
        "b": [2, 10, "int"],
        "c": {"choices": ["x", "y"]},
        "d": {"choices": [3]},
        "lr": [1e-5, 1e-1, "log"],
        "o": {"choices": [1, 2, 4]},
    }


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (kinds.FloatDistribution(0.0, 1.0, step=0.1), r"space\['x'\]: a distribution with a step has no equivalent here"),
        (kinds.IntDistribution(0, 10, step=2), "a distribution with a step has no equivalent here"),
        (configspace.Normal(0, 1), "Normal has no equivalent here"),
        (
            configspace.Integer("n", (1, 9), distribution=configspace.Normal(5, 2)),
            "NormalIntegerHyperparameter has no equivalent",
        ),
    ],
    ids=range(4),
)
def test_what_has_no_equal_is_refused_by_name(value: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse({"x": value})


def test_a_configspace_with_conditions_is_refused() -> None:
    space = configspace.ConfigurationSpace({"a": ["x", "y"], "b": (0.0, 1.0)})
    space.add(configspace.EqualsCondition(space["b"], space["a"], "x"))
    with pytest.raises(ValueError, match="space must be flat: a ConfigurationSpace with conditions"):
        parse(space)

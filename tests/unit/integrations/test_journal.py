"""What every callback has in common: the names that are logged, and the promise."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from actors.errors import NotConnectedError
from actors.integrations.journal import Journal
from actors.integrations.sklearn import VisuTility
from tests.unit.integrations.recording import Recording


def journal(system: Recording, **options: Any) -> Journal:
    return Journal("fraud", "v8", system=system, **options)  # type: ignore[arg-type]


def test_a_learning_curve_is_never_logged_as_the_accuracy_of_the_version() -> None:
    system = Recording()
    found = journal(system, n=100)
    found.trained({"accuracy": 0.5, "loss": 1.0})
    found.held_out({"accuracy": 0.4})
    assert system.events == [("v8", {"train_accuracy": 0.5, "train_loss": 1.0}, None), ("v8", {"val_accuracy": 0.4}, 100)]


def test_the_last_held_out_values_are_promised_as_of_a_hold_out() -> None:
    system = Recording()
    found = journal(system, n=100)
    found.held_out({"acc": 0.4, "recall": 0.2, "loss": 3.0})
    found.held_out({"acc": 0.9})
    found.finish()
    assert system.promises == [{"metrics": {"accuracy": 0.9, "recall": 0.2}, "n": 100, "version": "v8", "source": "hold_out"}]


def test_nothing_is_promised_without_the_number_of_rows_or_out_of_range() -> None:
    system = Recording()
    found = journal(system)
    found.held_out({"accuracy": 0.4})
    found.finish()
    found.n = 10
    found.held_out({"accuracy": 1.5, "recall": float("nan")})
    found.finish()
    assert system.promises == []


def test_an_unavailable_system_costs_the_training_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = journal(Recording(NotConnectedError("nobody is there")), n=5)
    with caplog.at_level(logging.WARNING):
        found.held_out({"accuracy": 0.4})
        found.finish()
    assert "nobody is there" in caplog.text


def test_cross_validated_folds_are_logged_with_their_share_of_the_rows_and_promised_by_their_mean() -> None:
    system = Recording()
    results = {"fit_time": [1.0, 1.0], "test_score": [0.8, 0.9], "train_score": [1.0, 1.0], "test_recall": [0.5, float("nan")]}
    VisuTility("fraud", "v8", n=100, system=system).log(results)
    assert [each for each in system.events if "val_accuracy" in each[1]] == [
        ("v8", {"val_accuracy": 0.8}, 50),
        ("v8", {"val_accuracy": 0.9}, 50),
    ]
    (promise,) = system.promises
    assert promise["metrics"] == {"accuracy": pytest.approx(0.85)}
    assert (promise["n"], promise["source"]) == (100, "cross_validation")

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tuning import RandomSearchTuner, TuningStrategy
from actors.tuning.strategies.seeds import trial_seed, uniform_draws

SPACE = {"lr": [1e-5, 1e-2], "dropout": [0.0, 0.5]}


def test_the_reference_space_is_searched_uniformly_within_its_bounds() -> None:
    tuner: TuningStrategy = RandomSearchTuner(SPACE, seed=0)
    drawn = [tuner.next_params() for _ in range(4000)]
    for name, (low, high) in SPACE.items():
        values = np.array([params[name] for params in drawn])
        assert low <= values.min() < values.max() <= high
        uniform = (values - low) / (high - low)
        # Kolmogorov's distance to the uniform law; 1.63 / sqrt(n) is its 1% point.
        distance = np.abs(np.sort(uniform) - (np.arange(len(uniform)) + 0.5) / len(uniform)).max()
        assert distance < 1.63 / math.sqrt(len(uniform))
    assert abs(np.corrcoef([[p["lr"], p["dropout"]] for p in drawn], rowvar=False)[0, 1]) < 0.05


def test_the_same_seed_gives_the_same_parameters_for_ever() -> None:
    first, second = RandomSearchTuner(SPACE, seed=0).next_params(), RandomSearchTuner(SPACE, seed=0)
    assert first == second.next_params() == {"lr": 0.003654382982065629, "dropout": 0.47014316629824476}
    assert second.next_params() == {"lr": 0.0062622329718602186, "dropout": 0.1227537811727305}


def test_without_a_seed_two_tuners_differ() -> None:
    assert RandomSearchTuner(SPACE).next_params() != RandomSearchTuner(SPACE).next_params()


@pytest.mark.parametrize(
    ("space", "rule"),
    [
        ("lr", "mapping"),
        ({"lr": 0.1}, "pair"),
        ({"lr": [1]}, "pair"),
        ({"lr": ["a", "b"]}, "number"),
        ({"lr": [True, 2]}, "number"),
    ],
)
def test_the_reference_errors(space: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        RandomSearchTuner(space)


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True))
def test_a_trials_draws_do_not_depend_on_the_order_of_trials(seed: int, trials: list[int]) -> None:
    forward = {trial: uniform_draws(seed, trial, 3) for trial in trials}
    assert forward == {trial: uniform_draws(seed, trial, 3) for trial in reversed(trials)}
    assert all(0 <= draw < 1 for draws in forward.values() for draw in draws)
    assert all(0 <= trial_seed(seed, trial) < 2**32 for trial in trials)


def test_trials_have_streams_of_their_own() -> None:
    draws = np.array([uniform_draws(7, trial, 2) for trial in range(2000)])
    assert len(np.unique(draws)) == draws.size
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.06

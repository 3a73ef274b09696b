"""Which way a metric gets worse, by its name."""

from __future__ import annotations

import doctest
import importlib

import pytest

from actors.drift import usual_direction
from actors.drift.directions import _FALLS, _RISES

LOWER_IS_BETTER = {"max_error"}  # of scikit-learn before 1.4; since then its scorers are all greater is better


def test_every_scorer_of_scikit_learn_gets_worse_when_it_falls() -> None:
    names = set(pytest.importorskip("sklearn.metrics").get_scorer_names()) - LOWER_IS_BETTER
    assert {name for name in names if usual_direction(name) != "down"} == set()
    assert len(names) > 50


HIGH = """
    acc val_acc eval/accuracy test.f1 F1 rocAuc AUROC ndcg@10 recall_at_5 top_5_accuracy map@50 hit_rate@20 MCC r2 val_r2_score
    precision_macro f1-weighted valid_0_auc mIoU rougeL bleu cohen_kappa ctr
"""
LOW = """
    loss val_loss train/loss log_loss logloss RMSE mae val_mean_absolute_error mape latency_ms p99_latency_ms latency_p95
    request_latency_ms error_rate http_error_rate brier_score ece perplexity wer response_time_ms psi feature_psi fpr
"""


@pytest.mark.parametrize("name", HIGH.split())
def test_what_should_be_high_is_watched_downwards(name: str) -> None:
    assert usual_direction(name) == "down"


@pytest.mark.parametrize("name", LOW.split())
def test_what_should_be_low_is_watched_upwards(name: str) -> None:
    assert usual_direction(name) == "up"


@pytest.mark.parametrize(
    "name", ["", "x", "calibration", "page_views", "temperature", "score", "age", "n", "1", "predictions", "ö"]
)
def test_a_name_that_says_nothing_is_watched_both_ways(name: str) -> None:
    assert usual_direction(name) == "both"


def test_no_name_stands_on_both_sides() -> None:
    assert not _FALLS & _RISES
    for name in _FALLS:
        assert usual_direction(name) == "down", name
    for name in _RISES:
        assert usual_direction(name) == "up", name


def test_the_example_holds() -> None:
    results = doctest.testmod(importlib.import_module("actors.drift.directions"))
    assert results.attempted
    assert results.failed == 0

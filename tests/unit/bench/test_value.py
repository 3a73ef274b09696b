"""The value benchmark's own tools: the optimum against brute force, plans against their definition, fair streams."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.bench.value_challenger import pair
from tests.bench.value_loop import calendar, closed
from tests.bench.value_rules import RULES, Deployed, plan
from tests.bench.value_score import scores, summary, with_best_calendar
from tests.bench.value_streams import STREAMS, Rows, load
from tests.bench.value_table import GRID, Table, table


def changing(seed: int = 0, *, points: int = 18, train: int = 60) -> Table:
    """Return a table in which a model is as good as the time since it was trained is short."""
    rng = np.random.default_rng(seed)
    step = train // GRID
    rows = points * step
    right = np.zeros((points, rows), dtype=bool)
    for i in range(points):
        age = np.arange(rows - i * step)
        right[i, i * step :] = rng.random(rows - i * step) < 0.95 - 0.5 * (age > 40)
    return Table("made", "synthetic", "none", train, right, np.full(points, 0.95))


def turning(n: int = 840) -> Rows:
    """Return rows whose classes turn round after half of them."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((n, 2))
    classes = (features[:, 0] > 0) ^ (np.arange(n) >= n // 2)
    return Rows("turning", "synthetic", features, classes.astype(np.int64), 120)


class Always:
    """A rule that always asks."""

    def __init__(self, _told: Deployed) -> None:
        pass

    def asks(self, _right: np.ndarray) -> bool:
        return True


class Never(Always):
    """A rule that never asks."""

    def asks(self, _right: np.ndarray) -> bool:
        return False


def test_the_optimum_in_hindsight_is_that_of_all_plans() -> None:
    made = changing(points=9)
    for retrains in range(5):
        fewest = min(made.misses(points) for k in range(retrains + 1) for points in combinations(range(1, 9), k))
        assert made.optimum[retrains] == fewest


def test_the_misses_of_a_plan_are_those_of_the_models_that_were_live() -> None:
    made = changing()
    live = np.zeros(made.rows, dtype=int)
    live[7 * made.step :] = 7
    live[11 * made.step :] = 11
    right = made.right[live, np.arange(made.rows)]
    assert made.misses([7, 11]) == (~right).sum()


def test_a_rule_is_asked_again_only_half_a_training_set_later() -> None:
    made = changing()
    assert plan(Always, made, price=0.01, budget=1) == [3, 6, 9, 12, 15]
    assert plan(Never, made, price=0.01, budget=1) == []


def test_a_calendar_meets_every_phase_and_no_retrain_is_never() -> None:
    made = changing()
    assert made.calendar(0) == made.misses([])
    assert made.calendar(3) >= made.optimum[3]
    assert made.periodic(100.0) == (made.misses([]), 0.0)
    misses, retrains = made.periodic(1.0)
    assert retrains == pytest.approx(2, abs=0.7)
    assert misses < made.misses([])


def test_no_rule_beats_the_best_plan_and_the_scores_add_up() -> None:
    found = [score for seed in range(3) for score in scores(changing(seed), ("shortfall", "budget"))]
    assert min(score.regret for score in found) >= -1e-9
    assert {score.regret for score in found if score.rule == "optimum in hindsight"} == {0.0}
    assert {score.gain for score in found if score.rule == "never"} == {0.0}
    chosen = with_best_calendar(found)
    assert sum(score.rule == "best single calendar" for score in chosen) == 3 * 4
    told = summary(chosen, "shortfall")
    assert told["streams"] == 1  # all are called alike
    assert told["retrains"] > 0


@pytest.mark.parametrize(("kind", "n"), [("linear", 840), ("forest", 480)])
def test_models_are_trained_on_the_rows_before_and_judge_those_after(kind: str, n: int, tmp_path: object) -> None:
    rows = turning(n)
    made = table(rows, kind, tmp_path)  # type: ignore[arg-type]
    turned = (len(rows.classes) // 2 - rows.train) // made.step
    assert made.right[0, : turned * made.step].mean() > 0.9
    assert made.right[0, (turned + 1) * made.step :].mean() < 0.1
    late = turned + GRID + 1  # trained on the new world alone
    assert made.right[late, late * made.step :].mean() > 0.9
    assert made.promised[0] > 0.9
    again = table(rows, kind, tmp_path)  # type: ignore[arg-type]
    assert (again.right == made.right).all()
    assert (again.promised == made.promised).all()


def test_the_closed_loop_retrains_soon_after_the_world_turned_and_never_before() -> None:
    rows = turning()
    moments, misses = closed(rows, "linear", RULES["shortfall"], price=0.1, budget=2)
    turned = len(rows.classes) // 2 - rows.train
    assert moments
    assert turned < moments[0] <= turned + 90
    assert misses < calendar(rows, "linear", 0)
    assert closed(rows, "linear", Never, price=0.1, budget=2) == ([], calendar(rows, "linear", 0))


@pytest.mark.parametrize("name", ["mild", "stationary", "digits"])
def test_streams_are_long_enough_and_hold_what_they_say(name: str) -> None:
    rows = load(name)
    assert len(rows.classes) >= 9.9 * rows.train
    assert len(np.unique(rows.classes)) >= 2
    assert STREAMS[name][0] == rows.kind
    mixed = rows.shuffled(np.random.default_rng(0))
    assert sorted(mixed.classes.tolist()) == sorted(rows.classes.tolist())


def test_the_challenger_finds_two_points_within_12_000_rows_in_90_percent_of_runs() -> None:
    found = pair(0.85, 0.87, runs=100, longest=12_000)
    assert found["better"] >= 0.9 - 2 * 0.03
    assert found["worse"] <= 0.05
    assert pair(0.87, 0.85, runs=60, longest=12_000)["better"] <= 0.05

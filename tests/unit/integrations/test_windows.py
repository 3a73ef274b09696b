"""Windows of requests, and the join of predictions with their truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.integrations.windows import Join, Seen, traffic


def test_a_window_without_requests_comes_to_nothing() -> None:
    assert traffic([], 10.0) == []


def test_a_summary_has_the_n_of_what_it_sums_up() -> None:
    requests, scores = traffic(
        [Seen(0.1, False, 1.0), Seen(0.2, True, None), Seen(0.3, False, 3.0), Seen(0.1, False, math.nan)], 2.0
    )
    assert requests.n == 4
    assert requests.values["request_rate"] == 2.0
    assert requests.values["error_rate"] == 0.25
    assert scores == ({"score_mean": 2.0, "score_std": 1.0}, 2)


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=300))
def test_the_percentile_is_numpys_of_the_same_definition(latencies: list[float]) -> None:
    (summary,) = traffic([Seen(each, False, None) for each in latencies], 1.0)
    expected = float(np.quantile(latencies, 0.95, method="inverted_cdf"))
    assert summary.values["latency_p95_ms"] == pytest.approx(1000 * expected)
    assert summary.values["latency_ms"] == pytest.approx(1000 * float(np.mean(latencies)))


def test_a_truth_counts_for_the_version_that_predicted_whichever_comes_first() -> None:
    join = Join(60.0)
    join.predicted("a", "v1", "spam", 0.0)
    join.truth("b", "ham", 1.0)
    join.truth("a", "spam", 2.0)
    join.predicted("b", "v2", "spam", 3.0)
    assert join.take() == {"v1": (1, 1), "v2": (0, 1)}
    assert join.take() == {}


def test_a_truth_at_the_horizon_is_late_and_one_just_before_is_not() -> None:
    join = Join(60.0)
    join.predicted("a", "v1", 1, 0.0)
    join.predicted("b", "v1", 1, 0.0)
    join.truth("a", 1, 59.9)
    join.truth("b", 1, 60.0)
    assert join.take() == {"v1": (1, 1)}
    assert join.forgotten == 1


def test_none_is_a_label_and_a_truth_like_others() -> None:
    join = Join(60.0)
    join.truth("a", None, 0.0)
    join.predicted("a", "v1", None, 0.0)
    assert join.take() == {"v1": (1, 1)}


@pytest.mark.parametrize(("horizon_s", "capacity"), [(0.0, 1), (math.nan, 1), (1.0, 0)])
def test_a_join_without_horizon_or_room_is_refused(horizon_s: float, capacity: int) -> None:
    with pytest.raises(ValueError, match="must be >"):
        Join(horizon_s, capacity)


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 1), st.floats(0.0, 3.0)), max_size=60
)  # (is a truth, id, value, seconds since the step before)


@given(steps, st.integers(1, 8))
def test_memory_is_bounded_and_no_id_counts_twice_within_the_horizon(
    taken: list[tuple[bool, int, int, float]], room: int
) -> None:
    join, now_s = Join(5.0, room), 0.0
    for is_truth, id_, value, later_s in taken:
        now_s += later_s
        if is_truth:
            join.truth(id_, value, now_s)
        else:
            join.predicted(id_, "v", value, now_s)
        assert len(join) <= room
    hits, n = join.take().get("v", (0, 0))
    predictions = sum(not is_truth for is_truth, *_ in taken)
    assert 0 <= hits <= n <= min(predictions, len(taken) - predictions)


@given(steps)
def test_the_join_is_that_of_a_plain_search_through_everything(taken: list[tuple[bool, int, int, float]]) -> None:
    join, now_s = Join(5.0), 0.0
    # The slow version: an id's story begins with its first row, ends at the horizon, and holds the first of each kind.
    stories: dict[int, list[tuple[float, dict[bool, int]]]] = {}
    for is_truth, id_, value, later_s in taken:
        now_s += later_s
        (join.truth(id_, value, now_s) if is_truth else join.predicted(id_, "v", value, now_s))
        told = stories.setdefault(id_, [])
        if not told or now_s - told[-1][0] >= 5.0:
            told.append((now_s, {}))
        told[-1][1].setdefault(is_truth, value)
    whole = [held for told in stories.values() for _, held in told if len(held) == 2]
    assert join.take().get("v", (0, 0)) == (sum(held[True] == held[False] for held in whole), len(whole))

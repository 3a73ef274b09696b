"""What decides whether a retrain pays: promises, the shortfall of the live version, verdicts. Pure: no store, no actor."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.config import ModelSettings, parse
from actors.detection import tables
from actors.detection.rules.judging import Judged
from actors.detection.rules.promises import Promise, unpacked
from actors.detection.rules.retrain import MAX_PROMISES, Outcome, Pays, RetrainWatch
from actors.detection.rules.versions import Decision
from actors.drift import Shortfall
from actors.wire import Batch, batch_of_columns, batch_of_rows

PRICED = {"price": 25}


def settings_of(retrain: dict[str, Any] | None = None, **defaults: Any) -> ModelSettings:
    return parse({"defaults": {"retrain": PRICED if retrain is None else retrain, **defaults}}, "test").for_model("m")


def batch(hits: list[int], n: int = 200, version: str = "v1", at: float = 0.0, metric: str = "accuracy") -> Batch:
    values = np.array(hits) / n
    times = at + np.arange(len(hits), dtype=float)
    return batch_of_columns({metric: values}, version=version, timestamps=times, now_s=1e9, n=np.full(len(hits), float(n)))


def watch_with(promised: float = 0.87, n: float = 2500.0, **retrain: Any) -> RetrainWatch:
    watch = RetrainWatch(settings_of(retrain or None))
    watch.promise(Promise("v1", {"accuracy": promised}, n, "cross_validation"))
    return watch


def pays(outcomes: list[Outcome]) -> list[Pays]:
    return [outcome for outcome in outcomes if isinstance(outcome, Pays)]


def judged(outcomes: list[Outcome]) -> list[Judged]:
    return [outcome for outcome in outcomes if isinstance(outcome, Judged)]


def test_a_shortfall_pays_at_the_window_at_which_it_reaches_its_price() -> None:
    """The numbers are those of the example in `Shortfall`: 35.7 errors lost in three windows of 200 rows."""
    (found,) = pays(watch_with().take(batch([175, 160, 158, 150]), None, 0))
    assert (found.version, found.metric, found.at) == ("v1", "accuracy", 3.0)
    numbers = found.numbers
    assert numbers["lost"] == pytest.approx(35.7, abs=0.05)
    assert (numbers["stretch_rows"], numbers["stretch_hits"], numbers["stretch_since"]) == (600, 468, 1.0)
    assert (numbers["promised"], numbers["promised_n"], numbers["price"], numbers["inherited_from"]) == (0.87, 2500, 25, None)
    assert numbers["drift"] < -4


def test_without_a_promise_or_without_n_nothing_pays_and_status_says_what_is_missing() -> None:
    watch = RetrainWatch(settings_of())
    assert watch.missing == ["promise", "n"]
    assert not pays(watch.take(batch([100, 100, 100]), None, 0))
    assert watch.missing == ["promise"]
    assert watch.informs("v1") is None  # treated as under `alarm`
    watch = watch_with()
    plain = batch_of_columns({"accuracy": [0.5] * 50}, version="v1", timestamps=0.0, now_s=1e9)
    assert not pays(watch.take(plain, None, 0))
    assert watch.missing == ["n"]
    watch.take(batch([175]), None, 0)
    assert watch.missing == []
    assert "of 25 errors lost" in str(watch.informs("v1"))


def test_a_promise_of_a_hold_out_is_shown_and_not_used() -> None:
    watch = RetrainWatch(settings_of())
    watch.promise(Promise("v1", {"accuracy": 0.9}, 500.0, "hold_out"))
    watch.take(batch([100, 100, 100]), None, 0)
    shown = watch.shown()
    assert (shown["promised"], shown["promise_source"], shown["lost"]) == (None, "hold_out", None)
    assert watch.missing == ["promise"]


def test_a_version_without_a_promise_inherits_its_predecessors_and_has_lost_nothing_yet() -> None:
    watch = watch_with()
    watch.take(batch([150, 150]), None, 0)
    watch.take(batch([174], version="v2", at=10.0), None, 0)
    shown = watch.shown()
    assert (shown["live_version"], shown["promised"], shown["inherited_from"], shown["lost"]) == ("v2", 0.87, "v1", 0.0)
    (found,) = pays(watch.take(batch([150, 150, 150], version="v2", at=20.0), None, 0))
    assert found.numbers["inherited_from"] == "v1"


@pytest.mark.parametrize("killed", [False, True])
def test_a_version_that_returns_after_a_rollback_is_not_held_to_the_promise_of_its_successor(killed: bool) -> None:
    watch = RetrainWatch(settings_of())
    watch.take(batch([174], version="v0"), None, 0)  # has no promise, and nobody before it
    watch.promise(Promise("v1", {"accuracy": 0.87}, 2500, "cross_validation"))
    watch.take(batch([174], version="v1", at=10.0), None, 0)
    watch.take(batch([174], version="v2", at=20.0), None, 0)  # inherits from v1
    watch.promise(Promise("v3", {"accuracy": 0.95}, 1000, "cross_validation"))
    watch.take(batch([150], version="v3", at=30.0), None, 0)
    if killed:
        watch = RetrainWatch(settings_of(), watch.memory())
    for version, promised, inherited in (("v2", 0.87, "v1"), ("v1", 0.87, None), ("v0", None, None)):
        watch.rollback(40.0)
        shown = watch.shown()
        assert (shown["live_version"], shown["promised"], shown["inherited_from"]) == (version, promised, inherited)
    assert watch.missing == ["promise", "n"]


def test_a_promise_on_less_than_one_row_that_an_old_build_took_is_not_used_and_costs_the_version_no_event() -> None:
    watch = watch_with()
    watch.take(batch([174]), None, 0)
    watch.promise(Promise("v2", {"accuracy": 0.95}, 0.5, "cross_validation"))
    watch.take(batch([174], version="v2", at=10.0), None, 0)
    shown = watch.shown()
    assert (shown["live_version"], shown["promised"], shown["inherited_from"]) == ("v2", 0.87, "v1")


def test_stragglers_of_an_old_version_cost_the_new_one_nothing() -> None:
    watch = watch_with()
    watch.take(batch([174], version="v1"), None, 0)
    watch.take(batch([174], version="v2", at=5.0), None, 0)
    assert not pays(watch.take(batch([100] * 20, version="v1", at=6.0), None, 0))
    assert watch.shown()["lost"] == 0.0


def test_what_is_no_share_of_n_rows_is_counted_and_not_judged() -> None:
    watch = watch_with()
    odd = batch_of_columns({"accuracy": [0.5, 0.5, 0.123]}, version="v1", timestamps=0.0, now_s=1e9, n=[200.0, 2.5, 10.0])
    watch.take(odd, None, 0)
    assert watch.shown()["unused"] == 2


def test_a_share_of_errors_is_judged_by_the_rows_without_one() -> None:
    watch = RetrainWatch(settings_of({"price": 25, "metric": "error_rate"}, watch={"error_rate": {"direction": "up"}}))
    watch.promise(Promise("v1", {"error_rate": 0.13}, 2500.0, "cross_validation"))
    wrong = batch([25, 40, 42, 50], metric="error_rate")
    (found,) = pays(watch.take(wrong, None, 0))
    assert found.numbers["lost"] == pytest.approx(35.7, abs=0.05)


def test_never_and_alarm_order_nothing_by_price_but_show_what_is_lost() -> None:
    for when in ("never", "alarm"):
        watch = watch_with(when=when)
        assert not pays(watch.take(batch([100] * 10), None, 0))
        assert watch.shown()["lost"] == pytest.approx(10 * 74 - 2 * (0.87 * 0.13 * 2000 * (1 + 0.8)) ** 0.5)
        assert watch.shown()["price"] is None
        assert (watch.informs("v1") is None) == (when == "alarm")


def test_a_budget_raises_the_price_with_each_retrain_ahead_of_plan() -> None:
    watch = watch_with(budget="1 per 30d")
    watch.take(batch([174]), None, 0)
    assert watch.shown()["price"] == pytest.approx(75.0)
    watch.ordered(1.0)
    watch.take(batch([174], at=2.0), None, 0)
    assert watch.shown()["price"] == pytest.approx(75.0 * np.e, rel=1e-3)


def test_done_without_a_new_version_restarts_the_rule_and_judges_the_retrain() -> None:
    watch = watch_with()
    (found,) = pays(watch.take(batch([150] * 3), None, 0))
    assert watch.ordered(3.0) == []
    watch.retrained("v1", "o-1", found.numbers, None, 4.0)
    assert watch.shown()["lost"] == 0.0
    outcomes = watch.take(batch([176] * 5, at=5.0), None, 0)
    (verdict,) = judged(outcomes)
    assert (verdict.order, verdict.verdict) == ("o-1", "paid")
    assert verdict.saved - 2 * verdict.standard_error >= 25


def test_a_retrain_that_did_not_help_did_not_pay_when_the_next_is_ordered() -> None:
    watch = watch_with()
    (found,) = pays(watch.take(batch([150] * 3), None, 0))
    watch.ordered(3.0)
    watch.retrained("v1", "o-1", found.numbers, "v2", 4.0)
    watch.take(batch([150] * 4, version="v2", at=5.0), None, 0)
    (verdict,) = watch.ordered(9.0)
    assert (verdict.order, verdict.verdict) == ("o-1", "did not pay")
    assert watch.ordered(10.0) == []


def test_the_payback_of_a_new_version_that_came_before_the_word_done_begins_then() -> None:
    watch = watch_with()
    (found,) = pays(watch.take(batch([150] * 3), None, 0))
    watch.ordered(3.0)
    watch.take(batch([150], version="v2", at=4.0), None, 0)
    before = watch.shown()["lost"]
    watch.retrained("v1", "o-1", found.numbers, "v2", 5.0)
    assert watch.shown()["lost"] == before  # the rule of the new version goes on
    assert judged(watch.take(batch([180] * 10, version="v2", at=6.0), None, 0))


def test_under_the_gate_a_candidate_is_not_live_and_its_alarms_only_inform() -> None:
    watch = RetrainWatch(settings_of({"when": "alarm"}, promotion={"gate": "challenger"}))
    watch.take(batch([174]), None, 0)
    outcomes = watch.take(batch([174], version="v2", at=5.0), None, 0)
    assert [outcome for outcome in outcomes if isinstance(outcome, Decision)] == []
    assert (watch.shown()["live_version"], watch.versions.state_of("v2")) == ("v1", "candidate")
    assert "candidate" in str(watch.informs("v2"))
    (decision,) = watch.promote("v2", 6.0)
    assert isinstance(decision, Decision)
    assert (decision.kind, watch.shown()["live_version"]) == ("promoted", "v2")


def test_a_batch_without_a_window_is_no_news_while_two_versions_are_compared() -> None:
    watch = RetrainWatch(settings_of({"when": "alarm"}, promotion={"gate": "challenger"}))
    watch.take(batch([174]), None, 0)
    watch.take(batch([174], version="v2", at=5.0), None, 0)
    absent = batch_of_columns({"accuracy": [np.nan], "other": [1.0]}, version="v2", timestamps=6.0, now_s=1e9, n=200)
    assert watch.take(absent, None, 0) == []


def test_versions_of_a_store_that_knew_no_rule_are_no_news() -> None:
    watch = RetrainWatch(settings_of(), None, [("v1", 1.0), ("v2", 2.0)])
    assert watch.take(batch([174], version="v2", at=5.0), None, 0) == []
    assert watch.take(batch([174], version="v1", at=5.0), None, 0) == []
    assert watch.shown()["live_version"] == "v2"


def test_a_promise_survives_its_row() -> None:
    promise = Promise("v2", {"accuracy": 0.87}, 2500.0, "cross_validation")
    assert unpacked(promise.packed()) == promise
    with pytest.raises(ValueError, match="promise"):
        unpacked(msgpack.packb({"v": 1}))


def test_errors_by_the_name_of_the_metric_are_no_hits_whatever_directions_alarm() -> None:
    for watched in ({}, {"direction": "both"}):
        watch = RetrainWatch(settings_of({"price": 25, "metric": "error_rate"}, watch={"error_rate": watched}))
        watch.promise(Promise("v1", {"error_rate": 0.2}, 2500.0, "cross_validation"))
        watch.take(batch([40], metric="error_rate"), None, 0)
        assert watch.shown()["promised"] == 0.8


def test_a_promise_that_an_older_build_noted_with_errors_for_hits_is_turned_round() -> None:
    rule = {"price": 25, "metric": "error_rate"}
    old = RetrainWatch(settings_of(rule, watch={"error_rate": {"direction": "down"}}))  # what `both` came to there
    old.promise(Promise("v1", {"error_rate": 0.2}, 2500.0, "cross_validation"))
    old.take(batch([20, 20], metric="error_rate"), None, 0)
    assert old.shown()["promised"] == 0.2
    memory = tables.unpack(tables.pack(old.memory()))
    for _ in range(2):  # once, and never again
        new = RetrainWatch(settings_of(rule, watch={"error_rate": {}}), memory)
        assert (new.shown()["promised"], new.shown()["lost"]) == (0.8, 0.0)
        memory = tables.unpack(tables.pack(new.memory()))
    assert pays(new.take(batch([70, 70], metric="error_rate", at=10.0), None, 0))


def test_of_more_promises_than_are_kept_the_oldest_of_versions_that_nobody_has_seen_go_first() -> None:
    watch = watch_with()
    watch.take(batch([174]), None, 0)  # v1 is live
    for number in range(MAX_PROMISES + 3):
        watch.promise(Promise(f"candidate-{number}", {"accuracy": 0.87}, 2500.0, "cross_validation"))
    kept = [name for name in ["v1", *(f"candidate-{n}" for n in range(MAX_PROMISES + 3))] if watch.promise_of(name)]
    assert kept == ["v1", *(f"candidate-{n}" for n in range(4, MAX_PROMISES + 3))]


def test_where_another_metric_decides_from_now_on_what_was_lost_by_the_other_is_no_loss() -> None:
    watch = watch_with(metric="accuracy", **PRICED)
    watch.promise(Promise("v1", {"accuracy": 0.87, "error_rate": 0.2}, 2500.0, "cross_validation"))
    watch.take(batch([160, 160]), None, 0)
    assert watch.shown()["lost"] not in {None, 0.0}
    successor = RetrainWatch(settings_of({**PRICED, "metric": "error_rate"}), tables.unpack(tables.pack(watch.memory())))
    shown = successor.shown()  # as the share of right answers
    assert (shown["metric"], shown["lost"], shown["promised"], shown["live_version"]) == ("error_rate", 0.0, 0.8, "v1")
    (found,) = pays(successor.take(batch([70, 70], metric="error_rate", at=10.0), None, 0))
    assert found.metric == "error_rate"


# Without hits an event lacks the metric, without n the rows behind it; half a hit is no window.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 20) | st.sampled_from([None, 0.5]), st.integers(1, 20) | st.none()
    ),
    min_size=1,
    max_size=60,
)


@given(events=EVENTS, cuts=st.lists(st.integers(1, 60), max_size=8), gate=st.sampled_from([None, "challenger"]))
def test_neither_the_cut_into_batches_nor_restarts_change_a_decision(
    events: list[tuple[str, float | None, int | None]], cuts: list[int], gate: str | None
) -> None:
    """One event after another and one long batch, with and without a successor in between: the same live version and loss."""
    settings = settings_of({"price": 5}, promotion={"gate": gate})
    rows = [
        (version, float(at), {"other": 1.0} if hits is None else {"accuracy": min(hits / (n or 20), 1.0)}, n and float(n))
        for at, (version, hits, n) in enumerate(events)
    ]

    def run(ends: list[int], *, restarts: bool) -> tuple[Any, ...]:
        watch = RetrainWatch(settings)
        watch.promise(Promise("v1", {"accuracy": 0.9}, 400.0, "cross_validation"))
        found: list[Outcome] = []
        for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
            if start < end:
                found += watch.take(batch_of_rows(rows[start:end]), None, 0)
            if restarts:
                watch = RetrainWatch(settings, tables.unpack(tables.pack(watch.memory())))
        decisions = [outcome for outcome in found if isinstance(outcome, Decision)]
        return decisions, watch.shown(), watch.versions.rows()

    ends = sorted({cut for cut in cuts if cut < len(rows)})
    whole, singly = run([], restarts=False), run(list(range(1, len(rows))), restarts=True)
    assert run(ends, restarts=False) == run(ends, restarts=True) == whole == singly


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=80))
def test_what_is_lost_is_what_the_rule_alone_says(windows: list[tuple[int, int]]) -> None:
    rule = Shortfall(promised=0.87, promised_n=2500, price=25)
    watch = watch_with()
    for at, (hits, n) in enumerate(windows):
        due = rule.update(min(hits, n), n)
        found = pays(watch.take(batch([min(hits, n)], n, at=float(at)), None, 0))
        assert bool(found) == due
        assert watch.shown()["lost"] == pytest.approx(max(rule.lost, 0.0))

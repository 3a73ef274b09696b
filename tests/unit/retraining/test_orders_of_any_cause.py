"""Orders without an episode, their promises, verdicts and limits, in the store and across its schema's versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Integer, MetaData, Table, inspect, select

from actors.clock import Instant
from actors.retraining import tables
from actors.retraining.admissions import Admission, Asked
from actors.retraining.commits import Plan
from actors.retraining.promotions import PromotionPlan
from actors.retraining.rows import receiver_of
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Backoff, Done, Failed, Outcome, Promise, Retry
from actors.retraining.rules.orders import Request, Verdict
from actors.retraining.rules.queue import Limits
from actors.retraining.state import RetrainingState
from actors.retraining.tables import DISPATCHER
from actors.storage import Fence, Store
from tests.known import some

DAY_S = 86_400.0
NO_LIMITS = Limits()


def at(seconds: float, boot: str = "boot") -> Instant:
    return Instant(1.8e9 + seconds, 900 + seconds, boot)


def a_state(store: Store, *, limits: Limits = NO_LIMITS, max_failures: int = 3, **plan: Any) -> RetrainingState:
    settled: dict[str, Any] = {
        "cooldown_s": 100.0,
        "dry_run": False,
        "handler": "webhook",
        "handler_settings": {},
        "lease_s": 60.0,
    } | plan
    fence = Fence.raise_epoch(store.part(DISPATCHER), "dispatcher")
    state = RetrainingState(
        fence,
        store.store_id,
        plan_of=lambda _model: Plan(**settled),
        backoff=Backoff(first_s=5.0, max_failures=max_failures),
        jitter=np.random.default_rng(0),
    )
    state.commits.limits = limits
    return state


def shortfall(model: str = "fraud", ordinal: int = 1, lost: float = 260.0, price: float = 250.0, version: str = "1") -> Asked:
    told = {"cause": "shortfall", "lost": lost, "price": price}
    asked = Request(model, version, "accuracy", 4.2, 1.8e9, "", told, "shortfall", ordinal, lost, price)
    return Asked(asked, f"key-{model}-{version}-{ordinal}")


def ask(state: RetrainingState, asked: Asked, now: Instant) -> Admission:
    return state.admissions.request_all([asked], now)[0].admission


def run_to_the_end(state: RetrainingState, id_: str, outcome: Outcome, now: Instant) -> None:
    begun = some(state.begin(id_, now))
    assert state.settle(id_, begun.attempts, outcome, now) is not None


def test_a_request_of_any_cause_has_one_order_for_its_key_and_all_promises_hold(store: Store) -> None:
    state = a_state(store)
    first = ask(state, shortfall(), at(0))
    assert first.decision == "pending"
    assert ask(state, shortfall(), at(1)) == first
    assert ask(state, shortfall(ordinal=2), at(1)).reason == f"order {first.order} of this model is not finished"
    run_to_the_end(state, some(first.order), Done(), at(5))
    assert ask(state, shortfall(), at(6)).order == first.order, "the same key never makes a second order"
    assert ask(state, shortfall(ordinal=2), at(6)).reason.startswith("cooling down")
    second = ask(state, shortfall(ordinal=2), at(106))
    assert second.order not in {None, first.order}
    found = state.queries.order(second.order)[0].request
    assert (found.cause, found.ordinal, found.lost, found.price, found.episode) == ("shortfall", 2, 260.0, 250.0, "")
    states = state.queries.of_keys(["key-fraud-1-1", "key-fraud-1-2", "key-fraud-1-3"])
    assert {key: order.id for key, order in states.items()} == {
        "key-fraud-1-1": first.order,
        "key-fraud-1-2": second.order,
    }


def test_a_promise_stays_due_until_it_has_been_passed_on_whatever_is_restarted(store: Store) -> None:
    state = a_state(store, metric="accuracy")
    order = some(ask(state, shortfall(), at(0)).order)
    run_to_the_end(state, order, Done("2", promise=Promise(0.91, 2500.0)), at(5))
    for _ in range(2):
        state = a_state(store, metric="auc")
        ((due, metric),) = state.promises_due()
        assert (due.id, due.new_version, due.promise, metric) == (order, "2", Promise(0.91, 2500.0), "auc")
    state.promise_passed_on(order)
    assert a_state(store).promises_due() == []
    assert state.queries.order(order)[0].promise == Promise(0.91, 2500.0)


def test_a_second_ending_that_says_something_else_is_stale_and_one_that_says_more_is_recorded(store: Store) -> None:
    state = a_state(store, handler="channel")
    order = some(ask(state, shortfall(), at(0)).order)
    assert state.leases.finish(order, None, Done(), at(1)).status == "recorded"
    assert state.leases.finish(order, None, Done("2"), at(2)).status == "recorded"
    assert state.leases.finish(order, None, Done("2", promise=Promise(0.9, 10.0)), at(3)).status == "recorded"
    for other in (Done("3"), Done("2", promise=Promise(0.8, 10.0)), Failed("oom")):
        said = state.leases.finish(order, None, other, at(4))
        assert (said.status, said.reason) == ("stale", "the order is done already as version '2'")
    found = state.queries.order(order)[0]
    assert (found.new_version, found.promise) == ("2", Promise(0.9, 10.0))
    assert [each.id for each, _metric in state.promises_due()] == [order]


def test_the_age_of_a_version_asks_for_a_retrain_also_of_a_model_that_has_gone_silent(store: Store) -> None:
    state = a_state(store, max_age_s=30 * DAY_S)
    state.deployed("fraud", "1", 1.8e9 - 10 * DAY_S, at(0))
    state.deployed("fraud", "1", 1.8e9 + 5 * DAY_S, at(3))  # the same version again: nothing changes
    assert state.age_all(at(20 * DAY_S - 60)) == []
    state = a_state(store, max_age_s=30 * DAY_S)
    ((deployed, admission),) = state.age_all(at(20 * DAY_S))
    order = state.queries.order(some(admission.order))[0]
    assert (deployed.version, order.request.cause, order.request.version, order.request.ordinal) == ("1", "age", "1", 0)
    assert order.request.explanation["age_s"] == pytest.approx(30 * DAY_S)
    assert state.age_all(at(20 * DAY_S + 1)) == []
    run_to_the_end(state, order.id, Done(), at(20 * DAY_S + 5))
    assert state.age_all(at(50 * DAY_S - 60)) == [], "done without a new version: its age counts anew"
    ((_, again),) = state.age_all(at(50 * DAY_S))
    assert state.queries.order(some(again.order))[0].request.ordinal == 1


def test_a_version_that_comes_back_after_a_rollback_asks_for_its_age_again(store: Store) -> None:
    state = a_state(store, max_age_s=30 * DAY_S)
    state.deployed("fraud", "1", 1.8e9, at(0))
    ((_, first),) = state.age_all(at(31 * DAY_S))
    run_to_the_end(state, some(first.order), Done("2"), at(31 * DAY_S))
    state.deployed("fraud", "2", 1.8e9 + 31 * DAY_S, at(31 * DAY_S))
    state.deployed("fraud", "1", 1.8e9 + 32 * DAY_S, at(32 * DAY_S))
    assert state.age_all(at(61 * DAY_S)) == []
    ((_, again),) = state.age_all(at(63 * DAY_S))
    assert again.order not in {None, first.order}
    assert state.queries.order(some(again.order))[0].state == "pending"


def test_no_turn_of_the_store_s_thread_does_more_than_a_hundred_commits_however_many_models_come_of_age(store: Store) -> None:
    state = a_state(store, max_age_s=30 * DAY_S)
    for number in range(250):
        state.deployed(f"m{number}", "1", 1.8e9, at(0))
    turns = []
    while aged := state.age_all(at(31 * DAY_S)):
        turns.append(len(aged))
    assert turns == [100, 100, 50]
    assert len(state.queries.history(None, 1000, "pending")) == 250


def test_age_obeys_cooldown_and_silence_and_a_new_version(store: Store) -> None:
    state = a_state(store, max_age_s=1000.0, cooldown_s=500.0)
    state.deployed("fraud", "1", 1.8e9, at(0))
    run_to_the_end(state, some(ask(state, shortfall(), at(800)).order), Done(), at(800))
    ((_, refused),) = state.age_all(at(1000))
    assert refused.reason.startswith("cooling down")
    assert state.age_all(at(1100)) == [], "not asked again before the cooldown is over"
    silence = state.silence("fraud", 1000.0, "", "k", at(1200))
    ((_, refused),) = state.age_all(at(1300))
    assert refused.reason == f"silenced by {silence}"
    state.deployed("fraud", "2", 1.8e9 + 1400, at(1400))
    assert state.age_all(at(2300)) == []
    ((deployed, admission),) = state.age_all(at(2401))
    assert (deployed.version, admission.decision) == ("2", "pending")


@pytest.mark.parametrize("how", ["failed", "dead", "did not pay"])
def test_after_so_many_retrains_that_came_to_nothing_a_model_asks_no_more_until_a_person_does(store: Store, how: str) -> None:
    state = a_state(store, give_up=3, cooldown_s=0.0, max_failures=1)
    for number in range(3):
        assert state.queries.gave_up() == {}
        order = some(ask(state, shortfall(ordinal=number), at(number)).order)
        outcomes: dict[str, Outcome] = {"failed": Failed("oom"), "dead": Retry("HTTP 500"), "did not pay": Done("2")}
        run_to_the_end(state, order, outcomes[how], at(number))
        if how == "did not pay":
            state.verdict(order, Verdict("did not pay", -3.0, 2.0, 1.8e9), at(0))
            state.verdict(order, Verdict("did not pay", -3.0, 2.0, 1.8e9), at(0))  # sent again
    assert state.queries.gave_up() == {"fraud": 3}
    state = a_state(store, give_up=3, cooldown_s=0.0)
    refused = ask(state, shortfall(ordinal=9), at(9))
    assert (refused.decision, refused.retry_in_s) == ("skipped", None)
    assert refused.reason.startswith("gave up: 3 retrains in a row did not pay, failed or died")
    by_hand = state.admissions.trigger(shortfall().request, "key", at(10), reason="manual: look")
    assert "passes 3 unsuccessful retrains" in by_hand.reason
    run_to_the_end(state, some(by_hand.order), Done("3"), at(11))
    assert ask(state, shortfall(ordinal=10), at(12)).decision == "pending"


def test_retrains_that_died_because_no_consumer_kept_its_lease_count_too(store: Store) -> None:
    state = a_state(store, handler="channel", give_up=1, max_failures=2, cooldown_s=0.0)
    ask(state, shortfall(), at(0))
    for second in range(40):
        state.leases.take("c", None, at(second))
        state.leases.lapse(at(second))
    (order,) = state.queries.history(None, 9, None)
    assert (order.state, state.queries.gave_up()) == ("dead", {"fraud": 1})


def test_a_verdict_of_an_order_that_retention_has_removed_is_moot_and_not_sent_for_ever(store: Store) -> None:
    state = a_state(store, give_up=1)
    state.verdict("gone", Verdict("did not pay", -3.0, 2.0, 1.8e9), at(0))
    assert state.queries.gave_up() == {}


def test_one_that_paid_or_a_reload_begins_the_count_anew(store: Store) -> None:
    state = a_state(store, give_up=2, cooldown_s=0.0)
    for number, word in enumerate(["did not pay", "paid", "did not pay"]):
        order = some(ask(state, shortfall(ordinal=number), at(number)).order)
        run_to_the_end(state, order, Done(str(number)), at(number))
        state.verdict(order, Verdict(word, 1.0, 1.0, 1.8e9), at(0))
    assert state.queries.gave_up() == {}
    run_to_the_end(state, some(ask(state, shortfall(ordinal=7), at(7)).order), Failed("oom"), at(7))
    assert state.queries.gave_up() == {"fraud": 2}
    state.begin_anew()
    assert ask(state, shortfall(ordinal=8), at(8)).decision == "pending"
    judged = state.queries.history(None, 10, None, judged=True)
    assert [some(order.verdict).word for order in judged] == ["did not pay", "paid", "did not pay"]


def test_five_hundred_orders_queue_and_the_dearest_goes_first(store: Store) -> None:
    state = a_state(store, limits=Limits(max_running=2))
    asked = [shortfall(f"m-{n}", lost=100.0 + n, price=100.0) for n in range(500)]
    state.admissions.request_all(asked, at(0))
    assert [order.model for order in state.due(at(1))] == ["m-499", "m-498"]
    line = state.queries.queue(at(1))
    assert (len(line), line[0][0].model, line[0][1]) == (500, "m-499", "next in line")
    first, second = state.due(at(1))
    assert state.begin(first.id, at(1)) is not None
    assert state.begin(second.id, at(1)) is not None
    assert state.due(at(2)) == []
    third = line[2][0]
    assert state.begin(third.id, at(2)) is None, "decided again in the commit that begins it"
    assert state.queries.queue(at(2))[0][1] == "2 orders run, max_running is 2"
    state = a_state(store, limits=Limits(max_running=2))
    assert state.due(at(3)) == [], "the limit survives a restart"
    state.settle(first.id, 1, Done(), at(4))
    state.front(next(order.id for order in state.queries.history("m-7", 1, None)), at(0))
    assert [order.model for order in state.due(at(5))] == ["m-7"]


def test_nobody_starves_in_the_store_either(store: Store) -> None:
    state = a_state(store, limits=Limits(max_running=1))
    ask(state, shortfall("poor", lost=1.0, price=1.0), at(0))
    started = []
    for number in range(1, 9):
        ask(state, shortfall(f"dear-{number}", lost=1e6, price=1.0), at(number))
        (order,) = state.due(at(number))
        run_to_the_end(state, order.id, Done(), at(number))
        started.append(order.model)
    assert "poor" in started[:4]


def test_an_hour_has_room_for_so_many_starts_whatever_is_restarted_and_wherever_the_wall_is_stepped(store: Store) -> None:
    state = a_state(store, limits=Limits(max_per_hour=2), cooldown_s=0.0)
    for number in range(4):
        ask(state, shortfall(f"m-{number}"), at(number))
    for order in state.due(at(10)):
        run_to_the_end(state, order.id, Done(), at(10))
    assert state.due(at(20)) == []
    state = a_state(store, limits=Limits(max_per_hour=2))
    assert state.due(at(3600)) == []
    stepped = Instant(1.8e9 + 9999, 900 + 3600, "boot")
    assert state.due(stepped) == [], "a wall that was stepped forward makes no room early"
    assert len(state.due(at(3611))) == 2
    assert state.queries.queue(at(20))[0][1] == "2 orders were started in the last hour, max_per_hour is 2"


def test_consumers_of_the_channel_obey_the_queue_too(store: Store) -> None:
    state = a_state(store, handler="channel", limits=Limits(max_running=1))
    state.admissions.request_all([shortfall("cheap", lost=1.0, price=1.0), shortfall("dear", lost=9.0, price=1.0)], at(0))
    assert {order.dispatched_at for order in state.queries.history(None, 9, None)} == {None}
    taken = some(state.leases.take("c", None, at(1)))
    assert taken.order.model == "dear"
    assert state.leases.take("d", None, at(2)) is None
    state.leases.finish(taken.order.id, 1, Done(), at(3))
    assert some(state.leases.take("d", None, at(4))).order.model == "cheap"


def test_an_order_that_runs_for_too_long_is_fenced_before_the_model_is_free(store: Store) -> None:
    state = a_state(store, handler="channel", limits=Limits(timeout_s=50.0), give_up=1)
    order = some(ask(state, shortfall(), at(0)).order)
    token = some(state.leases.take("c", None, at(1))).order.attempts
    for second in range(2, 50, 4):
        assert state.leases.renew(order, token, at(second)) is not None
        assert state.leases.overdue(at(second)) == []
    (ended,) = state.leases.overdue(at(51))
    assert (ended.state, ended.reason) == ("failed", "ended by orders.timeout after 50 s")
    assert state.queries.gave_up() == {"fraud": 1}, "one that timed out came to nothing, as one that failed"
    assert state.leases.renew(order, token, at(52)) is None
    assert state.leases.finish(order, token, Done("2"), at(53)).status == "stale"


def test_an_order_that_a_consumer_gives_back_goes_to_the_next_after_a_pause(store: Store) -> None:
    state = a_state(store, handler="channel")
    order = some(ask(state, shortfall(), at(0)).order)
    state.leases.take("c", None, at(1))
    assert state.leases.release(order, 2, "no GPU here", at(2)).status == "stale"
    assert state.leases.release(order, 1, "no GPU here", at(2)).status == "recorded"
    found = state.queries.order(order)[0]
    assert found.failures == 1
    assert "given back by c: no GPU here" in found.reason


def test_a_dead_letter_is_dismissed_with_a_reason_and_is_gone_from_the_dead(store: Store) -> None:
    state = a_state(store, max_failures=1)
    order = some(ask(state, shortfall(), at(0)).order)
    with pytest.raises(ValueError, match="must be failed or dead to be dismissed, got 'pending'"):
        state.dismiss(order, "fixed", at(0))
    run_to_the_end(state, order, Retry("HTTP 500"), at(1))
    state.dismiss(order, "retrained by hand", at(0))
    state.dismiss(order, "retrained by hand", at(0))
    found = state.queries.order(order)[0]
    assert (found.state, found.reason) == (
        "dismissed",
        "dismissed: retrained by hand; it was dead: given up after 1 failed attempts: HTTP 500",
    )
    with store.part(DISPATCHER).read() as connection:
        assert tables.read_status(connection)["dead"] == 0


def test_a_decision_about_versions_is_put_back_once_however_often_a_lost_reply_makes_it_asked_for(store: Store) -> None:
    webhook = PromotionPlan("webhook", {"kind": "webhook", "url": "http://127.0.0.1:9/"})
    state = a_state(store, promotion=webhook)
    decision = state.promoted("k", Request("fraud", "2", "", None, 1.8e9, "", {}, cause="promoted"), at(0)).id
    state.begin(decision, at(1), promotion=True)
    state.settle(decision, 1, Failed("HTTP 400"), at(2), promotion=True)
    assert [state.retry(decision, at(3)).decision for _ in range(2)] == ["dispatched", "pending"]
    assert [act["act"] for act in state.queries.acts([decision])[decision]] == ["retried"]


def test_decisions_about_versions_are_kept_within_the_retention(store: Store) -> None:
    webhook = PromotionPlan("webhook", {"kind": "webhook", "url": "http://127.0.0.1:9/"})
    state = a_state(store, promotion=PromotionPlan())
    for number in range(9):
        asked = Request("fraud", f"{number}", "", None, 1.8e9, "", {}, cause="promoted")
        state.promoted(f"k-{number}", asked, at(number))
    state = a_state(store, promotion=webhook)
    state.promoted("k-active", Request("fraud", "x", "", None, 1.8e9, "", {}, cause="promoted"), at(9))
    state.keep_house(at(10), keep_rows=4, keep_s=1e9)
    assert [order.request.version for order in state.queries.promotions(None, 99)] == ["6", "7", "8", "x"]
    state.keep_house(at(1e6), keep_rows=4, keep_s=10.0)
    assert [order.request.version for order in state.queries.promotions(None, 99)] == ["x"], "what is under way stays"


def test_orders_for_one_receiver_do_not_hide_those_for_another(store: Store) -> None:
    state = a_state(store, handler_settings={"kind": "webhook", "url": "https://u:p@slow.example/x"})
    state.admissions.request_all([shortfall(f"m-{n}") for n in range(400)], at(0))
    state = a_state(store, handler_settings={"kind": "webhook", "url": "https://quick.example/x"})
    quick = some(ask(state, shortfall("other"), at(1)).order)
    due = state.due(at(2))
    assert quick in {order.id for order in due}
    assert {receiver_of(order) for order in due} == {"webhook https://slow.example", "webhook https://quick.example"}
    assert len(due) == 17


LATER = {
    "cause",
    "ordinal",
    "lost",
    "price",
    "receiver",
    "front",
    "started_wall_s",
    "started_boot_s",
    "started_boot_id",
    "promise",
    "promise_n",
    "promise_source",
    "promise_passed_on",
    "verdict",
    "verdict_saved",
    "verdict_error",
    "verdict_at",
}


def test_a_store_of_schema_1_is_brought_forward_with_its_orders(url: str) -> None:
    """As a build before 0.2 wrote it: the columns that came later are left out, and its rows."""
    before = MetaData()
    for name, table in DISPATCHER.metadata.tables.items():
        if name.startswith("retrain_") and name != "retrain_attempts":
            continue
        later = {"retrains": LATER, "silences": {"selector", "made_by"}}.get(name, set())
        Table(name, before, *(column._copy() for column in table.columns if column.name not in later))
    assert len(before.tables["retrains"].columns) == len(tables.retrains.columns) - len(LATER)
    store = Store(url)
    with store.part(DISPATCHER).write() as connection:
        DISPATCHER.metadata.drop_all(connection)
        before.create_all(connection)
        versions = before.tables["schema_versions"]
        connection.execute(versions.insert().values(kind="dispatcher", version=1))
        row = {
            column.name: 0 if isinstance(column.type, Integer) else "{}"
            for column in before.tables["retrains"].columns
            if not column.nullable and column.name != "seq"
        }
        for number, manual in enumerate([False, True]):
            told = {"id": f"o-{number}", "model": f"m-{number}", "manual": manual, "launched": True, "state": "done"}
            times = {"triggered_at": 1.0, "requested_at": 1.0, "explanation": '{"n": 1}', "handler": "webhook"}
            connection.execute(before.tables["retrains"].insert().values(row | told | times))
    store.close()
    store = Store(url)
    assert store.migrate([DISPATCHER]) == ["dispatcher"]
    part = store.part(DISPATCHER)
    with part.read() as connection:
        found = tables.read_history(connection, model=None, limit=9)
        assert [(order.id, order.request.cause, order.manual, order.promise, order.front) for order in found] == [
            ("o-0", "alarm", False, None, 0),
            ("o-1", "manual", True, None, 0),
        ]
        names = {index["name"] for index in inspect(connection).get_indexes("retrains")}
        assert {"retrain_promises_due", "retrains_started"} <= names
        assert connection.execute(select(tables.deployments)).all() == []
    state = a_state(store)
    order = some(ask(state, shortfall("m-0"), at(0)).order)
    run_to_the_end(state, order, Done("2", promise=Promise(0.9, 100.0)), at(1))
    assert [each.id for each, _metric in state.promises_due()] == [order]
    assert orders.DISMISSED not in {each.state for each in state.queries.history(None, 9, None)}
    store.close()

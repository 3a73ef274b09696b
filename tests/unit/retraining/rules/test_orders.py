from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.clock import Instant
from actors.retraining.rules import lease, orders
from actors.retraining.rules.delivery import Backoff, Done, Failed, HandOn, Launched, Retry, Stop
from actors.retraining.rules.lease import LeaseTerms
from actors.retraining.rules.orders import Order, Request


class Half:
    def random(self) -> Any:
        return 0.5


BACKOFF = Backoff(first_s=4.0, max_failures=3)
TERMS = LeaseTerms(first_s=10.0, renewed_s=60.0)


def at(seconds: Any) -> Instant:
    return Instant(1.8e9 + seconds, seconds, "boot")


def an_order(**changes: Any) -> Any:
    asked = Request("fraud", "7", "accuracy", 4.2, 1.8e9, "e-1", {"window": {"mean": 0.7}})
    return replace(Order("r-1", asked, orders.PENDING, "", "webhook", {}, 1.8e9), **changes)


def settle(order: Any, outcome: Any, now: Any = 0.0) -> Any:
    return orders.settled(order, outcome, at(now), BACKOFF, Half())


def running(now: Any = 0.0, **changes: Any) -> Any:
    return orders.begun(an_order(**changes), at(now))


def test_an_order_id_is_made_from_store_and_episode_alone() -> None:
    assert orders.order_id("aabbccdd", "e-1") == orders.order_id("aabbccdd", "e-1")
    assert orders.order_id("aabbccdd", "e-1").startswith("aabbccdd-r-")
    assert len({orders.order_id(s, e) for s in ("aabbccdd", "00112233") for e in ("e-1", "e-2")}) == 4


def test_beginning_raises_the_attempt_and_keeps_the_first_dispatch() -> None:
    first = orders.begun(an_order(), at(5))
    again = orders.begun(settle(first, Retry("down")), at(50))
    assert (first.attempts, again.attempts) == (1, 2)
    assert first.dispatched_at == again.dispatched_at == at(5).wall_s


def test_done_failed_and_stop_end_an_order() -> None:
    assert settle(running(), Done("8")).state == orders.DONE
    assert settle(running(), Done("8")).new_version == "8"
    assert settle(running(), Failed("oom")).state == orders.FAILED
    assert settle(running(), Stop("gone")).state == orders.DEAD
    assert settle(running(), Launched()).state == orders.RUNNING


def test_a_failed_attempt_waits_then_the_order_becomes_a_dead_letter() -> None:
    order = running()
    order = settle(order, Retry("down"))
    assert order.state == orders.PENDING
    assert not order.is_due(at(2.9))
    assert order.is_due(at(3.1))
    order = settle(orders.begun(order, at(4)), Retry("down"), 4)
    dead = settle(orders.begun(order, at(20)), Retry("HTTP 500"), 20)
    assert dead.state == orders.DEAD
    assert dead.reason == "given up after 3 failed attempts: HTTP 500"


def test_a_new_version_expires_what_nobody_has_begun() -> None:
    expired = orders.overtaken(an_order(), "8", at(9))
    assert (expired.state, expired.finished_at) == (orders.EXPIRED, at(9).wall_s)
    assert orders.overtaken(an_order(), "7", at(9)).state == orders.PENDING


def test_a_word_of_a_new_version_that_comes_late_expires_no_order_of_a_later_one() -> None:
    assert orders.overtaken(an_order(), "6", at(9), ["5"]) == an_order()
    assert orders.overtaken(an_order(), "8", at(9), ["6", "7"]).state == orders.EXPIRED


def test_a_running_order_that_was_overtaken_may_end_but_is_not_begun_again() -> None:
    order = orders.overtaken(running(), "8", at(9))
    assert order.state == orders.RUNNING
    assert settle(order, Done()).state == orders.DONE
    assert settle(order, Retry("down")).state == orders.EXPIRED


def test_a_study_hands_its_order_on_to_the_next_handler() -> None:
    order = settle(running(failures=2), HandOn({"study": "s-1", "params": {"lr": 0.1}}, "channel", {"x": 1}))
    assert (order.state, order.handler, order.failures) == (orders.PENDING, "channel", 0)
    assert order.tuning == {"study": "s-1", "params": {"lr": 0.1}}


@pytest.mark.parametrize("state", orders.STATES)
def test_only_what_failed_died_or_expired_is_put_back(state: Any) -> None:
    order = an_order(state=state, failures=3, attempts=5, launched=True)
    if state in orders.RETRYABLE:
        again = orders.put_back(order, "again")
        assert (again.state, again.failures, again.attempts, again.rounds) == (orders.PENDING, 0, 5, 1)
    else:
        with pytest.raises(ValueError, match=f"got '{state}'"):
            orders.put_back(order, "again")


def test_a_lease_that_ran_out_takes_the_order_back_at_once() -> None:
    held = lease.handed_over(an_order(handler="channel"), "host:1", at(0), TERMS)
    assert lease.lapsed(held, at(9.9), BACKOFF, Half()) is None
    back = lease.lapsed(held, at(10), BACKOFF, Half())
    assert back is not None
    assert back.is_due(at(10))
    assert lease.handed_over(back, "host:2", at(11), TERMS).attempts == 2


def test_only_the_newest_token_holds_and_a_late_one_holds_until_the_order_is_handed_on() -> None:
    held = lease.handed_over(an_order(handler="channel"), "host:1", at(0), TERMS)
    back = lease.lapsed(held, at(10), BACKOFF, Half())
    assert back is not None
    assert lease.holds(held, 1)
    assert lease.holds(back, 1)
    assert not lease.holds(lease.handed_over(back, "host:2", at(11), TERMS), 1)
    assert not lease.holds(settle(held, Done()), 1)


outcomes = st.sampled_from([Launched(), Done(), Failed("f"), Retry("r"), Retry("r", 0), Retry("r", 9.0), Stop("s")])


@given(st.lists(st.one_of(outcomes, st.sampled_from(["begin", "overtake", "put back"])), max_size=40))
def test_whatever_happens_states_and_counts_stay_sound(happenings: Any) -> None:
    order, now = an_order(), 0.0
    for happening in happenings:
        now += 1000.0
        before = order
        match happening:
            case "begin":
                if order.is_due(at(now)):
                    order = orders.begun(order, at(now))
            case "overtake":
                order = orders.overtaken(order, "8", at(now))
            case "put back":
                if order.state in orders.RETRYABLE:
                    order = orders.put_back(order, "again")
            case outcome:
                if order.state == orders.RUNNING:
                    order = settle(order, outcome, now)
        assert order.state in orders.STATES
        assert order.attempts >= before.attempts
        assert order.failures <= BACKOFF.max_failures
        assert (order.finished_at is None) == order.is_active
        assert order.attempts == 0 or order.dispatched_at is not None
        assert before.is_active or order == before or happening == "put back"

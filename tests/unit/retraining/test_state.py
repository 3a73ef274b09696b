"""The book under arbitrary requests, clock steps, restarts, reboots and failures: what it promises holds after every step."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import event

from actors import labels
from actors.clock import Instant
from actors.retraining import queue_tables, tables
from actors.retraining.commits import Plan
from actors.retraining.rules import orders
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Done, Failed, HandOn, Launched, Promise, Retry, Stop
from actors.retraining.rules.orders import Request, Verdict
from actors.retraining.state import RetrainingState
from actors.retraining.tables import DISPATCHER
from actors.storage import Fence, StaleEpochError, Store
from tests.known import some

COOLDOWN_S = 1800.0
KIND = {"queued": "channel", "hooked": "webhook"}


def open_store(folder: Any) -> Any:
    """A store whose commits do not wait for the disk: power cuts are not what is tested here."""
    store = Store(f"sqlite:///{folder}")
    engine = store.part(DISPATCHER).engine

    @event.listens_for(engine, "connect")
    def _fast(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    engine.dispose()
    return store


def plan_of(model: str) -> Plan:
    return Plan(COOLDOWN_S, False, KIND[model], {}, 60.0)


def request(model: str, episode: Any = "e-1", version: Any = "1") -> Request:
    return Request(model, version, "accuracy", 4.0, 1.8e9, episode, {"baseline": {"n": 500}})


def a_book(store: Any, plan: Any = plan_of, max_failures: Any = 3) -> RetrainingState:
    fence = Fence.raise_epoch(store.part(DISPATCHER), "dispatcher")
    return RetrainingState(
        fence,
        store.store_id,
        plan_of=plan,
        backoff=Backoff(first_s=5.0, max_failures=max_failures),
        jitter=np.random.default_rng(0),
    )


class AnyHistory(RuleBasedStateMachine):
    """A dispatcher, its world and its clocks; `launches` is what the world saw, in true time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="visutility-book-")
        self.true_s, self.wall_s, self.boot_s, self.boots = 0.0, 1.8e9, 900.0, 0
        self.store = open_store(self.folder)
        self.launches: dict[str, list[tuple[float, str]]] = {"queued": [], "hooked": []}
        self.manual: set[str] = set()
        self.episodes = 0
        self.held: dict[str, int] = {}
        self.tokens: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.book = a_book(self.store)
        self.book.start(self.now())

    def now(self) -> Instant:
        return Instant(self.wall_s, self.boot_s, f"boot-{self.boots}")

    def saw_launch(self, model: str, order: Any) -> None:
        self.launches[model].append((self.true_s, order))

    models = st.sampled_from(["queued", "hooked"])
    pauses = st.sampled_from([0.0, 9.0, 61.0, 900.0, 1801.0])

    @rule(pause_s=pauses)
    def ask(self, pause_s: Any) -> None:
        self.pass_time(pause_s)
        self.episodes += 1
        for model in ("queued", "hooked"):
            asked = request(model, f"e-{self.episodes}-{model}")
            first = self.book.admissions.request(asked, self.now())
            again = self.book.admissions.request(asked, self.now())
            assert (again.decision, again.order) == (first.decision, first.order)

    @rule(model=models, back=st.integers(0, 5))
    def ask_again(self, model: str, back: Any) -> None:
        if self.episodes > back:
            self.book.admissions.request(request(model, f"e-{self.episodes - back}-{model}"), self.now())

    @rule(model=models)
    def trigger(self, model: str) -> None:
        self.episodes += 1
        admission = self.book.admissions.trigger(request(model, ""), f"key-{self.episodes}", self.now(), reason="manual")
        if admission.order is not None:
            self.manual.add(admission.order)

    def pass_time(self, seconds: Any) -> None:
        self.true_s += seconds
        self.wall_s += seconds
        self.boot_s += seconds

    @rule(step_s=st.sampled_from([-86_400.0, 86_400.0]))
    def step_the_clock(self, step_s: Any) -> None:
        self.wall_s += step_s

    @rule()
    def restart(self) -> None:
        zombie = self.book
        self.book = a_book(self.store)
        self.book.start(self.now())
        with pytest.raises(StaleEpochError):
            zombie.admissions.request(request("queued", "zombie"), self.now())

    @rule(down_s=st.sampled_from([1.0, 600.0, 90_000.0]))
    def reboot(self, down_s: Any) -> None:
        self.pass_time(down_s)
        self.boots += 1
        self.boot_s = 2.0
        self.restart()

    @rule(
        outcome=st.sampled_from([Done(), Launched(), Done("2"), Failed("oom"), Retry("HTTP 500"), Retry("hm", 0), Stop("410")]),
        effect=st.booleans(),
        slow_s=pauses,
    )
    def deliver(self, outcome: Any, effect: Any, slow_s: Any) -> None:
        for due in self.book.due(self.now()):
            begun = self.book.begin(due.id, self.now())
            assert begun is not None
            assert self.book.begin(due.id, self.now()) is None
            self.pass_time(slow_s)
            if effect or isinstance(outcome, (Launched, Done, Failed)):
                self.saw_launch(begun.model, begun.id)
            self.book.settle(begun.id, begun.attempts, outcome, self.now())

    @rule()
    def deliver_and_die(self) -> None:
        for due in self.book.due(self.now()):
            begun = self.book.begin(due.id, self.now())
            assert begun is not None
            self.saw_launch(begun.model, begun.id)
        self.restart()

    @rule(outcome=st.sampled_from([Launched(), Done(), Retry("unknown", 0)]))
    def follow(self, outcome: Any) -> None:
        for order in self.book.queries.running():
            self.book.settle(order.id, order.attempts, outcome, self.now())

    @rule(pause_s=pauses)
    def take(self, pause_s: Any) -> None:
        self.pass_time(pause_s)
        taken = self.book.leases.take("consumer", None, self.now())
        if taken is not None:
            order = taken.order
            assert order.attempts > self.tokens.get(order.id, 0)
            self.tokens[order.id] = self.held[order.id] = order.attempts
            if order.attempts == 1 or order.rounds:
                self.saw_launch(order.model, order.id)

    @rule(keep=st.booleans())
    def renew(self, keep: Any) -> None:
        for id_, token in self.held.items():
            if keep:
                renewed = self.book.leases.renew(id_, token, self.now())
                assert renewed is None or self.tokens[id_] == token

    @rule(outcome=st.sampled_from([Done("9"), Failed("nan")]), late=st.booleans())
    def finish(self, outcome: Any, late: Any) -> None:
        """The holder of an order says how it ended; a late one says it with an older token."""
        for id_, token in list(self.held.items()):
            said = self.book.leases.finish(id_, token - late, outcome, self.now())
            again = self.book.leases.finish(id_, token - late, outcome, self.now())
            assert said[0] == again[0]
            if not late:
                del self.held[id_]

    @rule()
    def lapse(self) -> None:
        for _ in range(5):
            self.pass_time(2.5)
            self.book.leases.lapse(self.now())

    @rule(model=models)
    def new_version(self, model: str) -> None:
        self.book.overtaken(model, f"v{self.episodes}", self.now())

    @rule()
    def retry_one(self) -> None:
        for order in self.book.queries.history(None, 100, None):
            if order.state in orders.RETRYABLE:
                admission = self.book.retry(order.id, self.now())
                if admission.order is not None:
                    self.manual.add(order.id)
                return

    @rule()
    def keep_house(self) -> None:
        self.book.keep_house(self.now(), keep_rows=1000, keep_s=1e9)

    @invariant()
    def at_most_one_order_of_a_model_is_active(self) -> None:
        with self.store.part(DISPATCHER).read() as connection:
            active = [order.model for order in tables.active_orders(connection)]
        assert len(active) == len(set(active))

    @invariant()
    def no_order_of_its_own_accord_is_launched_inside_a_cooldown(self) -> None:
        for launches in self.launches.values():
            for (earlier_s, earlier), (later_s, later) in itertools.pairwise(launches):
                if earlier != later and later not in self.manual:
                    assert later_s - earlier_s >= COOLDOWN_S - 1e-6

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=25, stateful_step_count=35, deadline=None, suppress_health_check=list(HealthCheck)
)


def at(seconds: Any) -> Instant:
    return Instant(1.8e9 + seconds, 900 + seconds, "boot")


def sweep(book: Any, start_s: Any, end_s: Any) -> Any:
    """Look through the leases as often as the dispatcher does."""
    back = []
    for seconds in range(int(start_s), int(end_s) + 1, 2):
        back += book.leases.lapse(at(seconds))
    return back


def test_a_skip_is_on_record_once_for_each_cause_however_often_it_is_asked(store: Any) -> None:
    book = a_book(store)
    first = book.admissions.request(request("queued", "e-1"), at(0))
    assert first.decision == "dispatched"
    for seconds in (1, 2, 3):
        skipped = book.admissions.request(request("queued", "e-2"), at(seconds))
        assert (skipped.decision, skipped.order, skipped.retry_in_s) == ("skipped", None, 60.0)
    book.leases.finish(some(first.order), None, Done(), at(10))
    assert book.admissions.request(request("queued", "e-2"), at(20)).retry_in_s == pytest.approx(COOLDOWN_S - 10)
    skips = book.queries.history("queued", 100, orders.SKIPPED)
    assert [skip.reason for skip in skips] == [
        f"order {first.order} of this model is not finished",
        f"cooling down after {first.order}, 1790 s left",
    ]
    assert book.admissions.request(request("queued", "e-2"), at(COOLDOWN_S + 20)).decision == "dispatched"


def test_the_cooldown_is_armed_again_when_a_consumer_takes_the_order_the_first_time_only(store: Any) -> None:
    book = a_book(store)
    book.admissions.request(request("queued"), at(0))
    order = some(book.leases.take("c", None, at(1700))).order
    assert book.queries.cooldowns(at(1700)) == {"queued": COOLDOWN_S}
    sweep(book, 1700, 1720)
    book.leases.take("c", None, at(1730))
    assert book.queries.cooldowns(at(1730))["queued"] == COOLDOWN_S - 30
    assert book.leases.finish(order.id, 2, Done("2"), at(1740))[0] == "recorded"
    assert book.admissions.request(request("queued", "e-2"), at(1800)).decision == "skipped"
    assert book.admissions.request(request("queued", "e-2"), at(3500)).decision == "dispatched"


def test_the_parameters_in_force_are_those_of_the_newest_order_that_is_done_and_that_a_study_gave_just_these(
    store: Any,
) -> None:
    book = a_book(store, plan=lambda _model: Plan(0.0, False, "tune", {}, 60.0))
    studies: list[tuple[dict[str, Any], Done | Failed]] = [
        ({"params": {"lr": 0.1, "depth": 3}}, Done("2")),
        ({"params": {"lr": 0.2}}, Done("3")),  # of another space
        ({"params": {"lr": 0.3, "depth": 5}}, Failed("out of memory")),
        ({"study": "s-4"}, Done("4")),
    ]
    assert book.queries.parameters_in_force("queued", {"lr", "depth"}) is None
    for number, (found, ending) in enumerate(studies):
        id_ = book.admissions.request(request("queued", f"e-{number}"), at(10 * number)).order
        assert id_ is not None
        assert book.begin(id_, at(10 * number)) is not None
        book.settle(id_, 1, HandOn(found, "channel", {}), at(10 * number + 1))
        assert book.leases.take("c", None, at(10 * number + 2)) is not None
        assert book.leases.finish(id_, None, ending, at(10 * number + 3))[0] == "recorded"
    assert book.queries.parameters_in_force("queued", ["depth", "lr"]) == {"lr": 0.1, "depth": 3}
    assert book.queries.parameters_in_force("queued", {"lr"}) == {"lr": 0.2}
    assert book.queries.parameters_in_force("hooked", {"lr"}) is None


def test_a_dry_run_is_on_record_and_launches_nothing(store: Any) -> None:
    book = a_book(store, plan=lambda _model: Plan(COOLDOWN_S, True, "channel", {}, 60.0))
    admission = book.admissions.request(request("queued"), at(0))
    assert (admission.decision, admission.retry_in_s) == ("skipped", None)
    assert book.leases.take("c", None, at(1)) is None
    assert [order.state for order in book.queries.history(None, 10, None)] == [orders.DRY_RUN]
    assert "cooling down" in book.admissions.request(request("queued", "e-2"), at(5)).reason


def test_a_silence_skips_until_it_is_over_or_ended(store: Any) -> None:
    book = a_book(store)
    silence = book.silence("que*", 100.0, "holiday", "key", at(0))
    assert book.silence("que*", 100.0, "holiday", "key", at(1)) == silence
    assert book.admissions.request(request("queued"), at(1)).reason == f"silenced by {silence}: holiday"
    assert book.queries.silences(None, at(1))[0]["remaining_s"] == 99.0
    book.unsilence(silence, at(2))
    assert book.queries.silences(None, at(2)) == []
    assert book.admissions.request(request("queued"), at(2)).decision == "dispatched"
    with pytest.raises(KeyError, match="known silence, got 'nope'"):
        book.unsilence("nope", at(3))


def test_a_silence_with_a_selector_holds_back_the_models_with_those_labels_alone(store: Any) -> None:
    book = a_book(store, plan=lambda model: Plan(COOLDOWN_S, False, "channel", {}, 60.0, labels={"team": model[:4]}))
    silence = book.silence("*", 100.0, "", "key", at(0), selector=labels.parse("team=risk"), by="ada")
    assert book.admissions.request(request("risk-eu"), at(1)).reason == f"silenced by {silence}"
    assert book.admissions.request(request("play-eu", "e-2"), at(1)).decision == "dispatched"
    covering = book.queries.silences("risk-us", at(1))
    assert [(row["id"], row["model"], row["label"], row["by"]) for row in covering] == [(silence, "*", "team=risk", "ada")]
    assert book.queries.silences("play-us", at(1)) == []


def test_the_history_of_a_selector_is_the_newest_of_its_models(store: Any) -> None:
    book = a_book(store, plan=lambda model: Plan(COOLDOWN_S, False, "channel", {}, 60.0, labels={"team": model[:4]}))
    for number in range(6):
        book.admissions.request(request(f"{'risk' if number % 2 else 'play'}-{number}", f"e-{number}"), at(number))
    found = book.queries.history(None, 2, None, selector=labels.parse("team=risk"))
    assert [order.model for order in found] == ["risk-3", "risk-5"]


def test_a_late_word_of_a_consumer_that_lost_its_order_changes_nothing(store: Any) -> None:
    book = a_book(store)
    book.admissions.request(request("queued"), at(0))
    order = some(book.leases.take("first", None, at(1))).order
    sweep(book, 1, 20)
    book.leases.take("second", None, at(21))
    assert book.leases.finish(order.id, 1, Done("2"), at(22))[0] == "stale"
    assert book.leases.renew(order.id, 1, at(22)) is None
    assert book.leases.finish(order.id, 2, Done("3"), at(23))[0] == "recorded"
    assert book.leases.finish(order.id, 1, Done("2"), at(24))[0] == "stale"
    assert book.queries.order(order.id)[0].new_version == "3"


def test_an_order_that_consumers_keep_dropping_becomes_a_dead_letter_and_can_be_put_back(store: Any) -> None:
    book = a_book(store)
    book.admissions.request(request("queued"), at(0))
    for start in (0, 14, 28):
        order = some(book.leases.take("c", None, at(start))).order
        sweep(book, start, start + 12)
    dead, attempts = book.queries.order(order.id)
    assert (dead.state, len(attempts)) == (orders.DEAD, 3)
    assert book.leases.take("c", None, at(300)) is None
    assert book.retry(order.id, at(400)).order == order.id
    assert some(book.leases.take("c", None, at(401))).order.attempts == 4
    with pytest.raises(ValueError, match="must be one of failed, dead, expired to be retried, got 'running'"):
        book.retry(order.id, at(402))


def test_putting_back_waits_for_another_order_of_the_model(store: Any) -> None:
    book = a_book(store)
    failed = some(book.admissions.request(request("queued"), at(0)).order)
    book.leases.finish(failed, None, Failed("oom"), at(1))
    book.admissions.trigger(request("queued", ""), "key", at(2), reason="manual")
    assert book.retry(failed, at(3)).decision == "skipped"


def test_retention_keeps_active_orders_and_the_newest_rows(store: Any) -> None:
    book = a_book(store, plan=lambda _model: Plan(0.0, False, "channel", {}, 60.0))
    for number in range(30):
        order = some(book.admissions.request(request("queued", f"e-{number}"), at(number)).order)
        if number:
            book.leases.finish(order, None, Done(), at(number))
        else:
            book.leases.finish(order, None, Failed("x"), at(number))
    active = some(book.admissions.request(request("hooked", "e-99"), at(40)).order)
    book.keep_house(at(50), keep_rows=10, keep_s=1e9)
    kept = book.queries.history(None, 100, None)
    assert len(kept) == 10
    assert active in {order.id for order in kept}
    book.keep_house(at(1e6), keep_rows=10, keep_s=10.0)
    assert [order.id for order in book.queries.history(None, 100, None)] == [active]


def test_status_counts_orders_by_state(store: Any) -> None:
    book = a_book(store)
    order = some(book.admissions.request(request("queued", "e-1"), at(0)).order)
    book.admissions.request(request("queued", "e-2"), at(1))
    book.leases.finish(order, None, Done(), at(2))
    with store.part(DISPATCHER).read() as connection:
        assert tables.read_status(connection) == {"pending": 0, "running": 0, "done": 1, "failed": 0, "dead": 0, "skipped": 1}


def test_the_database_itself_refuses_a_second_active_order_of_a_model(store: Any) -> None:
    book = a_book(store)
    book.admissions.request(request("queued", "e-1"), at(0))
    order = book.queries.history(None, 1, None)[0]
    with store.part(DISPATCHER).write() as connection:
        tables.put_new(connection, [replace(order, id="another")])
    assert len(book.queries.history(None, 10, None)) == 1


def test_a_word_about_an_attempt_that_is_not_the_present_one_changes_nothing(store: Any) -> None:
    book = a_book(store)
    id_ = some(book.admissions.request(request("hooked"), at(0)).order)
    book.begin(id_, at(1))
    book.settle(id_, 1, Retry("unknown", 0), at(2))
    book.begin(id_, at(3))
    assert book.settle(id_, 1, Done("late"), at(4)) is None
    assert book.queries.order(id_)[0].state == orders.RUNNING


def test_every_column_survives_the_store(store: Any) -> None:
    book = a_book(store)
    id_ = some(book.admissions.request(request("hooked"), at(0)).order)
    book.begin(id_, at(1))
    before = book.queries.order(id_)[0]
    changed = replace(
        before,
        wait=Countdown(at(2), 33.0),
        consumer="host:1",
        overtaken_by="9",
        new_version="8",
        tuning={"study": "s", "params": {"lr": 0.1}},
        handler_settings={"defaults": {"handler": {"kind": "webhook"}}},
        failures=2,
        rounds=3,
        launched=True,
        request=replace(book.queries.order(id_)[0].request, cause="shortfall", ordinal=4, lost=260.0, price=250.0),
        promise=Promise(0.91, 2500.0, "hold_out"),
        verdict=Verdict("did not pay", -3.5, 12.0, 1.8e9),
        started=at(7),
        front=2,
    )
    with store.part(DISPATCHER).write() as connection:
        tables.put(connection, changed)
    assert book.queries.order(id_)[0] == changed


def test_the_store_finds_due_what_the_rule_calls_due(store: Any) -> None:
    book = a_book(store, max_failures=9)
    for number, model in enumerate(["hooked", "queued"]):
        id_ = some(book.admissions.request(request(model, f"e-{number}"), at(0)).order)
        if model == "hooked":
            book.begin(id_, at(0))
            book.settle(id_, 1, Retry("HTTP 500"), at(0))
    for seconds in (0.0, 1.0, 2.4, 5.0, 9.0):
        with store.part(DISPATCHER).read() as connection:
            due = [order.id for order in tables.active_orders(connection) if order.is_due(at(seconds))]
            found = [
                *queue_tables.due_orders(connection, at(seconds), channel=False, limit=9),
                *queue_tables.due_orders(connection, at(seconds), channel=True, limit=9),
            ]
        assert sorted(due) == sorted(order.id for order in found)
    assert len(due) == 2


@pytest.mark.parametrize("outage", ["restart", "frozen", "store away"])
def test_consumers_that_live_keep_their_orders_through_an_outage_longer_than_their_lease(store: Any, outage: Any) -> None:
    book = a_book(store)
    book.start(at(0))
    book.admissions.request(request("queued"), at(0))
    order = some(book.leases.take("c", None, at(0))).order
    book.leases.lapse(at(1))
    if outage == "restart":
        book = a_book(store)
        book.start(at(600))
    assert sweep(book, 600, 606) == []
    assert book.leases.renew(order.id, 1, at(606)) == 60.0
    assert sweep(book, 608, 664) == []
    assert [back.id for back in sweep(book, 664, 670)] == [order.id]

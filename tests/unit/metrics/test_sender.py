"""Sender, alone: no thread, no Ray, no clock. A model of the store says what may be counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from actors.metrics import sender as sending
from actors.metrics.sealing import Packed
from actors.metrics.sender import Ask, Send, Sender, Settled, Warn
from actors.replies import Ingested, ingested


def made(producer: str = "p", **options: Any) -> Sender:
    names = (f"new-{i}" for i in range(10**6))
    return Sender(producer, new_producer=lambda: next(names), **options)


def accepted(rows: int, high: int, *, duplicates: int = 0, epoch: int = 1, **more: Any) -> Ingested:
    counts = {"accepted": rows - duplicates, "duplicates": duplicates}
    return ingested("accepted", high_water=high, epoch=epoch, **counts) | more  # type: ignore[return-value,arg-type]


def sends(sender: Sender, now_s: float) -> list[Send]:
    return [command for command in sender.commands(now_s) if isinstance(command, Send)]


def producer(send: Send) -> str:
    (one,) = {part.producer for part in send.parts}
    return one


def parts(send: Send) -> list[tuple[str, int, int]]:
    return [(part.model, part.sequence, part.packed.rows) for part in send.parts]


def test_batches_of_a_model_are_numbered_without_a_gap_and_several_models_share_a_call() -> None:
    sender = made()
    for model, rows in (("a", 3), ("b", 1), ("a", 2)):
        sender.add(model, Packed(rows, b"x"))
    (send,) = sends(sender, 0.0)
    assert parts(send) == [("a", 0, 3), ("a", 3, 2), ("b", 0, 1)]
    outcomes = sender.replied(send.call, [accepted(3, 3), accepted(2, 5), accepted(1, 1)], 0.1)
    assert [outcome.accepted for outcome in outcomes if isinstance(outcome, Settled)] == [3, 2, 1]
    assert sender.is_idle


def test_a_stream_has_two_calls_in_flight_at_most_and_all_together_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "CALL_BYTES", 1)
    monkeypatch.setattr(sending, "WINDOW_CALLS", 3)
    sender = made()
    for model in "aaaabb":
        sender.add(model, Packed(1, b"x"))
    assert [parts(send) for send in sends(sender, 0.0)] == [[("a", 0, 1)], [("a", 1, 1)], [("b", 0, 1)]]
    assert sends(sender, 0.0) == []


@pytest.mark.parametrize("reply", [None, ingested("busy", retry_in_s=0.4), ingested("unavailable", retry_in_s=0.4)])
def test_what_was_not_acknowledged_is_sent_again_with_the_same_numbers_after_a_pause(reply: Any) -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (first,) = sends(sender, 0.0)
    assert sender.replied(first.call, None if reply is None else [reply], 1.0) == []
    assert sends(sender, 1.001) == []
    pause_s = sender.wait_s(1.0)
    assert pause_s is not None
    assert pause_s == pytest.approx(0.02 if reply is None else 0.4)
    (again,) = sends(sender, 1.0 + pause_s)
    assert (producer(again), parts(again)) == ("p", parts(first))


def test_a_late_reply_is_given_up_and_what_it_says_afterwards_is_never_asked() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (first,) = sends(sender, 0.0)
    assert sender.expired(sending.REPLY_S - 0.1) == []
    assert sender.expired(sending.REPLY_S) == [first.call]
    (again,) = sends(sender, sending.REPLY_S + 2.0)
    assert parts(again) == [("a", 0, 3)]


def test_a_refused_batch_gives_its_numbers_to_those_behind_it() -> None:
    sender = made()
    for rows in (3, 2, 4):
        sender.add("a", Packed(rows, b"x"))
    (send,) = sends(sender, 0.0)
    gap = ingested("gap", high_water=3, epoch=1)
    outcomes = sender.replied(send.call, [accepted(3, 3), ingested("refused", reason="no room"), gap], 0.1)
    assert [outcome.rejected for outcome in outcomes if isinstance(outcome, Settled)] == [0, 2]
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Warn)] == ["a was refused: no room"]
    (again,) = sends(sender, 2.0)
    assert parts(again) == [("a", 3, 4)]
    sender.add("a", Packed(5, b"x"))
    (more,) = sends(sender, 2.0)
    assert parts(more) == [("a", 7, 5)]


def test_a_gap_before_the_first_batch_means_another_store_and_everything_goes_to_it_as_somebody_new() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    sender.replied(send.call, [accepted(3, 3)], 0.1)
    sender.add("a", Packed(2, b"x"))
    (send,) = sends(sender, 0.2)
    (warning,) = sender.replied(send.call, [ingested("gap", high_water=0, epoch=1)], 0.3)
    assert isinstance(warning, Warn)
    (again,) = sends(sender, 2.0)
    assert (producer(again), parts(again)) == ("new-0", [("a", 0, 2)])


def test_a_model_that_was_forgotten_leaves_the_batches_of_other_models_their_producer_or_they_would_count_twice() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    sender.replied(send.call, [accepted(3, 3)], 0.1)
    sender.add("b", Packed(4, b"x"))
    (of_b,) = sends(sender, 0.2)
    sender.add("a", Packed(2, b"x"))
    (of_a,) = sends(sender, 0.2)
    (warning,) = sender.replied(of_a.call, [ingested("gap", high_water=0, epoch=1)], 0.3)
    assert isinstance(warning, Warn)
    sender.replied(of_b.call, None, 0.3)  # perhaps it was counted
    sender.add("c", Packed(1, b"x"))
    found = {part.model: (part.producer, part.sequence) for send in sends(sender, 2.0) for part in send.parts}
    assert found == {"a": ("new-0", 0), "b": ("p", 0), "c": ("new-0", 0)}


def test_another_store_gets_everything_from_one_new_producer_and_says_so_once() -> None:
    sender = made()
    for model in "ab":
        sender.add(model, Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    sender.replied(send.call, [accepted(3, 3), accepted(3, 3)], 0.1)
    for model in "ab":
        sender.add(model, Packed(2, b"x"))
    (send,) = sends(sender, 0.2)
    gap = ingested("gap", high_water=0, epoch=1)
    warnings = sender.replied(send.call, [gap, gap], 0.3)
    assert len({warning.once for warning in warnings if isinstance(warning, Warn)}) == 1
    (again,) = sends(sender, 2.0)
    assert (producer(again), parts(again)) == ("new-0", [("a", 0, 2), ("b", 0, 2)])
    assert sender.producer == "new-0"


def test_a_mark_that_runs_ahead_of_its_owner_is_reported_and_nothing_is_lost() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    outcomes = sender.replied(send.call, [accepted(3, 1000, duplicates=3)], 0.1)
    assert [type(outcome) for outcome in outcomes] == [Warn]
    assert "another sender uses this producer id" in outcomes[0].text  # type: ignore[union-attr]
    (again,) = sends(sender, 2.0)
    assert (producer(again), parts(again)) == ("new-0", [("a", 0, 3)])


def test_duplicates_of_our_own_resend_are_no_foreign_mark() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    sender.replied(send.call, None, 0.1)
    (send,) = sends(sender, 2.0)
    (outcome,) = sender.replied(send.call, [accepted(3, 3, duplicates=3)], 2.1)
    assert outcome == Settled(1 + sending.BATCH_BYTES, duplicate=3)
    assert sender.producer == "p"


def test_a_reply_of_a_process_that_was_replaced_acknowledges_nothing() -> None:
    sender = made()
    sender.add("a", Packed(1, b"x"))
    sender.add("b", Packed(1, b"x"))
    (send,) = sends(sender, 0.0)
    sender.replied(send.call, [accepted(1, 1, epoch=2), accepted(1, 1, epoch=2)], 0.1)
    sender.add("a", Packed(1, b"x"))
    (send,) = sends(sender, 0.2)
    assert sender.replied(send.call, [accepted(1, 2, epoch=1)], 0.3) == []
    (again,) = sends(sender, 2.0)
    assert parts(again) == [("a", 1, 1)], "and it is sent again"


def test_a_reply_that_does_not_reach_the_end_of_a_batch_does_not_acknowledge_it() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    assert sender.replied(send.call, [accepted(0, 2)], 0.1) == []
    (again,) = sends(sender, 2.0)
    assert parts(again) == [("a", 0, 3)]


def test_a_producer_that_resumes_asks_first_and_goes_on_from_there() -> None:
    sender = made(resumes=True)
    sender.add("a", Packed(3, b"x"))
    assert sender.commands(0.0) == [Ask("a", "p")]
    sender.resumed("a", None, 0.1)
    assert sender.commands(0.1) == []
    assert sender.commands(2.0) == [Ask("a", "p")]
    sender.resumed("a", 70, 2.1)
    (send,) = sends(sender, 2.2)
    assert parts(send) == [("a", 70, 3)]


def test_bad_values_are_counted_and_warned_about() -> None:
    sender = made()
    sender.add("a", Packed(3, b"x"))
    (send,) = sends(sender, 0.0)
    bad = {"index": 0, "field": "loss", "value": None, "rule": "must be a finite number"}
    warning, settled = sender.replied(send.call, [accepted(3, 3, bad_values=2, bad_value=bad)], 0.1)
    assert isinstance(settled, Settled)
    assert (settled.accepted, settled.bad_values) == (3, 2)
    assert isinstance(warning, Warn)
    assert "bad values are dropped and counted: loss must be a finite number" in warning.text


class Store:
    """Counts as a detector does: each producer's numbers once, in order, and no gap."""

    def __init__(self) -> None:
        self.high: dict[tuple[str, str], int] = {}
        self.counted: list[bytes] = []
        self.epoch = 1
        self.has_forgotten = False

    def take(self, producer: str, model: str, sequence: int, packed: Packed) -> Ingested:
        high = self.high.get((model, producer), 0)
        if sequence > high:
            return ingested("gap", high_water=high, epoch=self.epoch)
        skip = min(high - sequence, packed.rows)
        self.high[model, producer] = max(high, sequence + packed.rows)
        if skip < packed.rows:
            assert skip == 0, "the batches stay what they are, so an overlap is a whole batch"
            self.counted.append(packed.payload)
        return accepted(packed.rows, self.high[model, producer], duplicates=skip, epoch=self.epoch)


class Traffic(RuleBasedStateMachine):
    """Calls overtake each other, are lost, or carried out without a reply; processes are replaced. Each batch counts once."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[int, list[Ingested]] = {}  # what was carried out, and is answered later
        self.sender = made()
        self.store = Store()
        self.now_s = 0.0
        self.added: dict[bytes, tuple[str, int]] = {}
        self.settled = 0
        self.tickets: dict[int, Send] = {}

    @rule(model=st.sampled_from("ab"), rows=st.integers(1, 4))
    def log(self, model: str, rows: int) -> None:
        payload = f"{model}-{len(self.added)}".encode()
        self.added[payload] = model, rows
        self.sender.add(model, Packed(rows, payload))

    @rule(target=calls, pause_s=st.floats(0.0, 2.0))
    def send(self, pause_s: float) -> Any:
        self.now_s += pause_s
        new = sends(self.sender, self.now_s)
        self.tickets |= {send.call: send for send in new}
        return multiple(*(send.call for send in new))

    @rule(call=calls)
    def carry_out(self, call: int) -> None:
        if call in self.tickets and call not in self.late:
            send = self.tickets[call]
            self.late[call] = [self.store.take(part.producer, part.model, part.sequence, part.packed) for part in send.parts]

    @rule(call=consumes(calls), outcome=st.sampled_from(["taken", "lost", "no reply", "busy", "not sent"]))
    def answer(self, call: int, outcome: str) -> None:
        send = self.tickets.pop(call)
        replies: list[Ingested] | None = self.late.pop(call, None)
        if replies is None and outcome in {"taken", "no reply"}:
            replies = [self.store.take(part.producer, part.model, part.sequence, part.packed) for part in send.parts]
        elif outcome == "busy" and replies is None:
            replies = [ingested("busy", retry_in_s=0.1) for _ in send.parts]
        if outcome == "not sent":
            self.sender.not_sent(call, self.now_s)
            return
        lost = outcome in {"lost", "no reply"}
        for told in self.sender.replied(call, None if lost else replies, self.now_s):
            if isinstance(told, Warn) and self.store.has_forgotten:
                continue
            assert isinstance(told, Settled), told
            self.settled += told.accepted + told.duplicate + told.rejected

    @rule()
    def replace_the_process(self) -> None:
        self.store.epoch += 1

    @invariant()
    def nothing_counts_twice(self) -> None:
        assert len(set(self.store.counted)) == len(self.store.counted)
        assert self.sender.producer == "p" or self.store.has_forgotten

    @rule(model=st.sampled_from("ab"))
    def forget_a_quiet_model(self, model: str) -> None:
        """Let the store forget the producers of a model of which nothing waits and nothing is on its way."""
        waits = {self.added[payload][0] for payload in self.added.keys() - set(self.store.counted)}
        on_its_way = {part.model for send in self.tickets.values() for part in send.parts}
        held = {name for name, stream in self.sender._streams.items() if stream.batches}
        if model not in waits | on_its_way | held and any(name == model for name, _ in self.store.high):
            self.store.high = {key: high for key, high in self.store.high.items() if key[0] != model}
            self.store.has_forgotten = True

    def teardown(self) -> None:
        for _ in range(100):
            for call in list(self.tickets):
                self.answer(call, "taken")
            self.now_s += 2.0
            self.tickets |= {send.call: send for send in sends(self.sender, self.now_s)}
            if self.sender.is_idle:
                break
        assert self.sender.is_idle
        assert self.settled == sum(rows for _, rows in self.added.values())
        for model in "ab":
            own = [payload for payload, (name, _) in self.added.items() if name == model]
            assert [payload for payload in self.store.counted if self.added[payload][0] == model] == own, "in their order"


Traffic.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase

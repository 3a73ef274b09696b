"""What a consumer holds: leases that are kept, words that are said until they are recorded, a system that goes and comes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from actors.cluster.peers import NotConnectedError, PeerUnavailableError
from actors.errors import NoSystemError
from actors.retraining.client import Retrains
from tests.speed import slow

EVENT = {
    "id": "s-r-1",
    "model_name": "fraud",
    "model_version": "1",
    "metric": "accuracy",
    "observed_drift": 4.0,
    "triggered_at": 1.8e9,
    "episode": "s-e-1",
    "explanation": {"n": 1},
}
ORDER = {
    "status": "order",
    "order": {"id": "s-r-1", "attempt": 1, "requested_at": 1.8e9, "event": EVENT},
    "token": 1,
    "lease_s": 10.0,
}
RECORDED = {"status": "recorded", "reason": ""}


class Script:
    """Plays the dispatcher: gives each method's replies in turn, the last for ever; an exception is raised."""

    def __init__(self, **replies: Any) -> None:
        self.replies = {name: list(given) for name, given in replies.items()}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.called = threading.Condition(self.lock)

    def call(self, name: str, method: Any, arguments: Any, *, timeout_s: Any) -> Any:
        assert name == "dispatcher"
        assert timeout_s > 0
        with self.called:
            self.asked.append((method, dict(arguments)))
            self.called.notify_all()
            given = self.replies.get(method, [{"status": "renewed", "lease_s": 60.0}])
            reply = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def wait_for(self, method: Any, times: Any = 1) -> None:
        with self.called:
            assert self.called.wait_for(lambda: sum(asked == method for asked, _ in self.asked) >= times, timeout=slow(20))

    def said(self, method: Any) -> Any:
        return [arguments for asked, arguments in self.asked if asked == method]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def test_an_order_comes_with_its_event_and_is_finished_with_its_token() -> None:
    script = Script(take=[ORDER, {"status": "none"}], finish=[RECORDED])
    (order,) = Retrains(script).stream(timeout_s=0)
    assert (order.id, order.attempt, order.event.model_name, order.event.explanation) == ("s-r-1", 1, "fraud", {"n": 1})
    assert order.done("2") is True
    assert script.said("finish") == [{"order": "s-r-1", "token": 1, "outcome": "done", "reason": None, "new_version": "2"}]


def test_a_stream_whose_process_has_left_its_cluster_waits_and_one_that_never_was_connected_raises() -> None:
    left = NotConnectedError("dispatcher.take")
    script = Script(take=[{"status": "none"}, left, left, ORDER])
    order = next(Retrains(script).stream())
    assert order.id == "s-r-1"
    with pytest.raises(NotConnectedError):
        next(Retrains(Script(take=[left, ORDER])).stream())


def test_an_order_is_given_back_and_a_promise_goes_with_done() -> None:
    script = Script(take=[ORDER, {"status": "none"}], finish=[RECORDED], release=[{"status": "stale", "reason": "attempt 2"}])
    (order,) = Retrains(script).stream(timeout_s=0)
    assert order.release("no GPU here") is False
    assert script.said("release") == [{"order": "s-r-1", "token": 1, "reason": "no GPU here"}]
    assert order.done("2", promise=0.91, promise_n=2500) is True
    promised = {"promise": 0.91, "promise_n": 2500, "promise_source": "cross_validation"}
    said = {"order": "s-r-1", "token": 1, "outcome": "done", "reason": None, "new_version": "2"}
    assert script.said("finish") == [said | promised]


def test_a_full_house_is_asked_again_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    full = {"status": "unavailable", "reason": "500 consumers wait already", "retry_in_s": 7.0}
    next(Retrains(Script(take=[full, ORDER])).stream())
    assert waited == [7.0]


def test_a_warning_of_the_dispatcher_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    trigger = {"status": "recorded", "decision": "pending", "order": "o", "reason": "", "retry_in_s": None}
    script = Script(
        trigger=[trigger | {"warning": "model 'fruad' has never logged"}],
        silence=[{"status": "recorded", "silence": "q-1", "warning": "no model that has ever logged matches 'fruad-*'"}],
    )
    assert Retrains(script).trigger("fruad", "now")["order"] == "o"
    assert Retrains(script).silence("fruad-*", "2h") == "q-1"
    assert [record.message for record in caplog.records] == [
        "model 'fruad' has never logged",
        "no model that has ever logged matches 'fruad-*'",
    ]


def test_a_lease_is_renewed_at_once_and_again() -> None:
    script = Script(take=[ORDER], renew=[{"status": "renewed", "lease_s": 0.03}])
    order = next(Retrains(script).stream())
    script.wait_for("renew", 3)
    assert script.said("renew")[0] == {"order": "s-r-1", "token": 1}
    assert not order.lost


def test_leaving_the_stream_gives_nothing_back() -> None:
    script = Script(take=[ORDER], renew=[{"status": "renewed", "lease_s": 0.03}])
    stream = Retrains(script).stream()
    next(stream)
    stream.close()
    script.wait_for("renew", 2)
    assert {method for method, _ in script.asked} == {"take", "renew"}


def test_done_is_said_until_it_is_recorded() -> None:
    away = [PeerUnavailableError("away"), NoSystemError("stopped"), {"status": "unavailable", "reason": "disk full"}]
    script = Script(take=[ORDER], finish=[*away, RECORDED])
    order = next(Retrains(script).stream())
    assert order.done() is True
    assert len(script.said("finish")) == 4


def test_an_order_that_is_lost_says_so_and_its_word_is_not_recorded() -> None:
    script = Script(
        take=[ORDER],
        renew=[{"status": "lost", "reason": "handed on"}],
        finish=[{"status": "stale", "reason": "attempt 2 was given to another consumer"}],
    )
    order = next(Retrains(script).stream())
    script.wait_for("renew")
    deadline_s, pause = time.monotonic() + slow(30), threading.Event()
    while not order.lost and time.monotonic() < deadline_s:
        pause.wait(0.01)
    assert order.lost
    assert order.failed("nan") is False


def test_a_stream_outlasts_a_system_that_is_away_and_ends_when_it_is_quiet() -> None:
    script = Script(take=[NoSystemError("none yet"), PeerUnavailableError("restarting"), ORDER, {"status": "none"}])
    assert [order.id for order in Retrains(script).stream(timeout_s=slow(0.5))][:1] == ["s-r-1"]


def test_other_calls_say_that_no_system_runs() -> None:
    with pytest.raises(NoSystemError, match="none runs"):
        Retrains(Script(history=[NoSystemError("none runs")])).history()


def test_a_trigger_that_is_sent_again_has_the_same_key() -> None:
    script = Script(trigger=[PeerUnavailableError("?"), {"status": "recorded", "decision": "dispatched", "order": "s-r-1"}])
    Retrains(script).trigger("fraud", "because")
    first, second = script.said("trigger")
    assert first["key"] == second["key"]


def test_a_silence_takes_a_duration_as_people_write_it() -> None:
    script = Script(silence=[{"status": "recorded", "silence": "s-q-1"}])
    assert Retrains(script).silence("fraud", "2h", comment="sale") == "s-q-1"
    assert script.said("silence")[0]["duration_s"] == 7200.0
    with pytest.raises(ValueError, match="duration must be a duration like 30m, 6h or 90d, got 'soon'"):
        Retrains(script).silence("fraud", "soon")


def test_a_time_out_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s must be >= 0 or None, got nan"):
        next(Retrains(Script()).stream(timeout_s=float("nan")))

"""What the rules promise: nothing lost, nothing early, a storm is one message, an end follows its beginning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.config.notify import Route
from actors.notify.notification import Notification
from actors.notify.rules.board import Board, Outgoing
from actors.replies import Happening, HappeningKind, Severity, happening

NOON = 1_795_003_200.0  # in UTC
NIGHT = {"from": "22:00", "to": "07:00"}


def route(**said: Any) -> Route:
    return Route.model_validate(
        {"receivers": ["chat"], "group_wait": "30s", "group_interval": "5m", "repeat_every": "1h"} | said
    )


def alarm(subject: str, at: float = NOON, model: str = "fraud", severity: Severity = "warning") -> Happening:
    return happening("alarm", subject, at, severity, model=model, version="1", metric="accuracy", subject=subject)


def recovered(subject: str, at: float = NOON) -> Happening:
    return happening("recovered", subject, at, model="fraud", subject=subject)


def once(kind: HappeningKind, key: str, severity: Severity = "warning") -> Happening:
    return happening(kind, key, NOON, severity, model="fraud", subject=key)


class Told:
    """A board with its routes, and what it has sent so far."""

    def __init__(self, *routes: Route, resends: dict[str, float] | None = None, labels: dict[str, str] | None = None) -> None:
        self.board = Board()
        self.routes = routes or (route(),)
        self.resends = resends or {}
        self.labels = labels or {}
        self.silenced = False
        self.sent: list[Notification] = []

    def take(self, *rows: Happening, at: float = 0.0) -> None:
        for row in rows:
            self.board.take(row, self.labels, self.routes, self.resends, NOON + at)

    def due(self, at: float) -> list[Outgoing]:
        return self.board.due(NOON + at, silenced=lambda _model, _labels: self.silenced)

    def look(self, at: float) -> list[list[str]]:
        """Deliver what is due; return for each message what fires and, behind a dash, what is over."""
        found = []
        for key, notification in self.due(at):
            self.board.delivered(key, NOON + at)
            self.sent.append(notification)
            found.append(listed(notification))
        return found


def listed(notification: Notification) -> list[str]:
    fires = [told["happening"]["subject"] or "" for told in notification.firing]
    return fires + [f"-{told['happening']['subject']}" for told in notification.resolved]


def test_the_first_of_a_group_waits_for_others_and_a_later_one_keeps_its_distance() -> None:
    told = Told()
    told.take(alarm("e1"))
    assert told.look(29.9) == []
    told.take(alarm("e2"), at=29.9)
    assert told.look(30.0) == [["e1", "e2"]]
    told.take(alarm("e3"), at=31.0)
    assert told.look(329.9) == []
    assert told.look(330.0) == [["e1", "e2", "e3"]]
    assert told.board.next_at(NOON + 331) == NOON + 330 + 3600


def test_a_storm_of_a_thousand_alarms_is_one_message() -> None:
    told = Told()
    for number in range(1000):
        told.take(alarm(f"e{number}", model=f"m{number}"), at=number / 100)
    assert [len(listed) for listed in told.look(30.0)] == [1000]
    assert told.look(3000.0) == []


def test_what_is_over_is_told_once_and_so_is_what_came_and_went_within_the_wait() -> None:
    told = Told()
    told.take(alarm("e1"), alarm("e2"))
    told.take(recovered("e2"), at=1.0)
    assert told.look(30.0) == [["e1", "-e2"]]
    told.take(recovered("e1"), at=40.0)
    told.take(recovered("never told"), at=40.0)
    assert told.look(330.0) == [["-e1"]]
    assert told.look(99_999.0) == []
    assert told.board.state()["groups"] == {}


def test_a_route_that_tells_of_no_end_forgets_what_is_over() -> None:
    told = Told(route(resolved=False))
    told.take(alarm("e1"))
    told.look(30.0)
    told.take(recovered("e1"), at=40.0)
    assert told.look(99_999.0) == []
    assert told.board.state()["groups"] == {}


def test_an_alarm_is_repeated_until_a_person_has_seen_it() -> None:
    told = Told()
    told.take(alarm("e1"))
    assert [told.look(30.0), told.look(3629.9), told.look(3630.0)] == [[["e1"]], [], [["e1"]]]
    told.take(once("acknowledged", "e1", "info"), at=3700.0)
    assert told.look(99_999.0) == []
    told.take(recovered("e1"), at=100_000.0)
    assert told.look(100_001.0) == [["-e1"]]


def test_what_has_merely_happened_is_told_once() -> None:
    told = Told()
    told.take(once("order_dead", "o1", "critical"))
    assert told.look(30.0) == [["o1"]]
    assert told.look(99_999.0) == []


def test_quiet_hours_hold_what_is_not_critical_until_they_end() -> None:
    told = Told(route(quiet=NIGHT, group_wait=0, group_interval=0, repeat_every=None))
    night, morning = 10 * 3600.0, 19 * 3600.0
    told.take(alarm("e1"), at=night)
    assert told.look(night + 1) == []
    told.take(alarm("e2", severity="critical"), at=night + 2)
    assert told.look(night + 3) == [["e2"]]
    told.take(recovered("e1"), at=night + 4)
    assert told.look(morning - 1) == []
    assert told.look(morning) == [["e2", "-e1"]]


def test_a_silence_holds_what_is_said_of_its_models_and_not_of_the_system() -> None:
    told = Told(route(group_wait=0))
    told.silenced = True
    told.take(alarm("e1"))
    assert told.look(1.0) == []
    told.take(happening("actor_down", "tuner:1", NOON, "warning", subject="tuner"), at=2.0)
    assert told.look(3.0) == [["tuner"]]
    told.silenced = False
    assert told.look(303.0) == [["e1"]]


def test_a_receiver_gets_a_happening_by_the_first_route_that_matches_and_names_it() -> None:
    told = Told(
        route(receivers=["pager"], severity="critical", group_wait=0),
        route(receivers=["pager", "chat"], models="fraud", labels="team=risk", group_by=["model"], group_wait=0),
        labels={"team": "risk"},
    )
    told.take(alarm("e1"), alarm("e2", severity="critical"), alarm("e3", model="other"))
    told.look(0.0)
    by_receiver = sorted((each.receiver, listed(each)) for each in told.sent)
    assert by_receiver == [("chat", ["e1", "e2"]), ("pager", ["e1"]), ("pager", ["e2"])]


def test_a_receiver_that_keeps_alarms_is_sent_them_again_also_at_night_and_gets_no_group() -> None:
    told = Told(route(quiet=NIGHT, group_by=["model"]), resends={"chat": 60.0})
    told.take(alarm("e1"), alarm("e2", model="other"))
    told.take(once("acknowledged", "e1", "info"))
    assert told.look(0.0) == [["e1", "e2"]]
    night = 10 * 3600.0
    assert told.look(night) == [["e1", "e2"]]
    told.take(alarm("e3"), recovered("e1"), at=night)
    assert told.look(night + 1) == [["e2", "-e1"]]
    assert told.look(19 * 3600.0) == [["e2", "e3"]]


def test_a_receiver_that_fails_is_left_alone_longer_each_time_and_gets_the_same_message() -> None:
    told = Told(route(group_wait=0), route(receivers=["pager"], group_wait=0))
    told.take(alarm("e1"))
    (key, first), _pager = sorted(told.due(0.0), key=lambda each: each.notification.receiver)
    waits = []
    at = 0.0
    for _ in range(10):
        assert told.board.failed(key, "down", NOON + at) > 0
        waits.append(told.board.health["chat"]["retry_at"] - NOON - at)
        at += waits[-1]
        told.take(alarm(f"later at {at}"), at=at)
        mine = [each for each in told.due(at - 0.1) + told.due(at) if each.notification.receiver == "chat"]
        assert [each.notification for each in mine] == [first]
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]
    told.board.delivered(key, NOON + at)
    assert told.board.health["chat"] | {"last_at": 0} == {
        "sent": 1,
        "failed": 10,
        "lost": 0,
        "failures": 0,
        "retry_at": 0.0,
        "problem": None,
        "last_at": 0,
    }


def test_a_message_that_is_refused_for_good_is_counted_and_holds_up_nothing() -> None:
    told = Told(route(group_wait=0, group_interval=0))
    told.take(once("order_dead", "o1"))
    ((key, _),) = told.due(0.0)
    told.board.refused(key, "HTTP 400", NOON)
    assert (told.board.health["chat"]["lost"], told.board.health["chat"]["problem"]) == (1, "HTTP 400")
    told.take(once("order_dead", "o2"))
    assert told.look(1.0) == [["o2"]]


def test_a_busy_receiver_gets_nothing_and_what_waits_for_one_that_is_gone_is_named() -> None:
    told = Told(route(group_wait=0))
    told.take(alarm("e1"))
    assert told.board.due(NOON, busy=["chat"]) == []
    assert told.board.keep(["pager"]) == ["chat"]
    assert told.due(0.0) == []


@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_the_next_look_is_when_something_is_due(wait: float) -> None:
    told = Told(route(group_wait=f"{wait:g}s"))
    told.take(alarm("e1"))
    assert told.board.next_at(NOON) == NOON + wait
    told.due(wait)
    assert told.board.next_at(NOON + wait) == NOON + wait  # until it is delivered


class Life:
    """A board that is fed, delivers, fails and is killed; and what came in and went out."""

    def __init__(self, routes: Sequence[Route], resends: dict[str, float]) -> None:
        self.board = Board()
        self.now = NOON
        self.arrived: dict[str, float] = {}
        self.over: set[str] = set()
        self.delivered: list[Notification] = []
        self._by_id: dict[str, Notification] = {}
        self._rounds: dict[int, int] = {}
        self._routes, self._resends = routes, resends

    def alarm(self, number: int) -> None:
        self._rounds[number] = self._rounds.get(number, 0) + (f"alarm:{self._subject(number)}" in self.over)
        self._comes(alarm(self._subject(number), self.now))

    def recovered(self, number: int) -> None:
        if number in self._rounds:
            self.over.add(f"alarm:{self._subject(number)}")
            self._take(recovered(self._subject(number), self.now))

    def acknowledged(self, number: int) -> None:
        self._take(once("acknowledged", self._subject(number), "info"))

    def order_dead(self, number: int) -> None:
        self._comes(once("order_dead", f"{number}-{len(self.arrived)}"))

    def time(self, number: int) -> None:
        self.now += (1.0, 10.0, 29.0, 60.0, 299.0, 4000.0)[number]

    def look(self, _number: int) -> None:
        for key, notification in self._due():
            if not self.delivered or self.delivered[-1].id != notification.id:  # a receiver drops what it has
                self.delivered.append(notification)
            self.board.delivered(key, self.now)

    def fail(self, _number: int) -> None:
        for key, _ in self._due():
            self.board.failed(key, "down", self.now)

    def kill(self, _number: int) -> None:
        state = json.loads(json.dumps(self.board.state()))
        self.board = Board(state)
        assert self.board.state() == state

    def killed_late(self, number: int) -> None:
        """End it after a delivery and before its commit: the same message goes out again."""
        state = json.loads(json.dumps(self.board.state()))
        if any("sending" in group for group in state["groups"].values()):
            self.look(number)
            self.board = Board(state)

    def _subject(self, number: int) -> str:
        return f"{number}-{self._rounds.get(number, 0)}"

    def _comes(self, row: Happening) -> None:
        self.arrived.setdefault(row["id"], self.now)
        self._take(row)

    def _take(self, row: Happening) -> None:
        self.board.take(row, {}, self._routes, self._resends, self.now)

    def _due(self) -> list[Outgoing]:
        found = self.board.due(self.now)
        for _, notification in found:
            assert self._by_id.setdefault(notification.id, notification) == notification
        return found


WHAT = (
    "alarm",
    "recovered",
    "order_dead",
    "acknowledged",
    "time",
    "time",
    "look",
    "look",
    "fail",
    "kill",
    "killed_late",
)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 5)), max_size=60),
    wait=st.sampled_from([0, 30]),
    interval=st.sampled_from([0, 300]),
    stateful=st.booleans(),
)
def test_whatever_fails_and_whenever_it_is_killed_all_is_told_in_time_and_each_message_once(
    steps: Sequence[tuple[str, int]], wait: int, interval: int, *, stateful: bool
) -> None:
    life = Life((route(group_wait=f"{wait}s", group_interval=f"{interval}s"),), {"chat": 60.0} if stateful else {})
    for what, number in steps:
        getattr(life, what)(number)
    for _ in range(20):
        life.now += 700.0
        life.look(0)
    messages = life.delivered
    ids = [[each["happening"]["id"] for each in (*message.firing, *message.resolved)] for message in messages]
    ends = [[each["happening"]["id"] for each in message.resolved] for message in messages]
    assert set(chain.from_iterable(ids)) == set(life.arrived)  # nothing is lost, nothing is made up
    assert sorted(chain.from_iterable(ends)) == sorted(life.over)  # each end is told once,
    for id_ in life.over:
        assert id_ in next(end for listed, end in zip(reversed(ids), reversed(ends), strict=True) if id_ in listed)  # and last
    once_only = [id_ for id_ in chain.from_iterable(ids) if id_.startswith("order_dead")]
    assert len(once_only) == len(set(once_only))
    for message, listed in zip(messages, ids, strict=True):
        assert all(message.at >= life.arrived[id_] for id_ in listed)
    if messages and not stateful:
        assert messages[0].at >= min(life.arrived.values()) + wait  # nothing before its time
        assert all(later.at - earlier.at >= interval for earlier, later in pairwise(messages))

"""What happens is on record in the commit that makes it true: once, in order, and for every room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import config, failpoints, happenings, wire
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection import commands
from actors.detection.model import Ingest
from actors.detection.state import DetectionState
from actors.detection.tables import DETECTOR
from actors.detection.tables import happened as of_detector
from actors.people import Signature
from actors.replies import NumberedHappening, happening
from actors.retraining.commits import Plan
from actors.retraining.rules.delivery import Backoff, Done, Failed, Retry
from actors.retraining.rules.orders import Request, Verdict
from actors.retraining.state import RetrainingState
from actors.retraining.tables import DISPATCHER
from actors.storage import Fence, Store, StoreReader
from actors.storage import happenings as rows

NOW = 1_795_000_000.0
ROWS = 100


class Killed(BaseException):
    """The process has ended."""


def at(seconds: float = 0.0) -> Instant:
    return Instant(NOW + seconds, 1000.0 + seconds, "boot")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(f"sqlite:///{tmp_path}/store")) as opened:
        document = {"defaults": {"expect_every": "1h", "handler": {"kind": "webhook", "url": "http://127.0.0.1:9/"}}}
        store_settings(opened, config.load(document), NOW)
        yield opened


def detection(store: Store) -> DetectionState:
    return DetectionState(store, "detector:m", 0, at())


def batch(number: int) -> Ingest:
    random = np.random.default_rng(number)
    values = np.clip(random.normal(0.9 if number < 6 else 0.6, 0.01, ROWS), 0, 1)
    columns = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=None, now_s=NOW)
    return Ingest("m", "p", ROWS * number, wire.pack(columns))


def drift(state: DetectionState) -> str:
    for number in range(9):
        state.commit([batch(number)], at(number))
    return state.model("m").book.open_episodes[0]["id"]


def retraining(store: Store, **plan: Any) -> RetrainingState:
    settled: dict[str, Any] = {
        "cooldown_s": 0.0,
        "dry_run": False,
        "handler": "webhook",
        "handler_settings": {},
        "lease_s": 60.0,
    } | plan
    return RetrainingState(
        Fence.raise_epoch(store.part(DISPATCHER), "dispatcher"),
        store.store_id,
        plan_of=lambda _model: Plan(**settled),
        backoff=Backoff(first_s=5.0, max_failures=1),
        jitter=np.random.default_rng(0),
    )


def asked(episode: str) -> Request:
    return Request("m", "v1", "accuracy", 4.0, NOW, episode, {})


def kinds(store: Store, **wanted: Any) -> list[str]:
    return [row["kind"] for row in reversed(happenings.newest(store, **wanted))]


def run(state: RetrainingState, episode: str, outcome: Any) -> str:
    admission = state.admissions.request(asked(episode), at(1))
    assert admission.order is not None
    settle(state, admission.order, outcome)
    return admission.order


def settle(state: RetrainingState, order: str, outcome: Any) -> None:
    begun = state.begin(order, at(2))
    assert begun is not None
    assert state.settle(order, begun.attempts, outcome, at(3)) is not None


def alarms(store: Store) -> list[str]:
    return [str(row["subject"]) for row in happenings.newest(store) if row["kind"] == "alarm"]


def episodes(store: Store) -> list[str]:
    with store.part(DETECTOR, 0).read() as connection:
        return list(connection.exec_driver_sql("SELECT id FROM episodes").scalars())


def test_an_alarm_and_what_people_say_of_it_are_on_record_once(store: Store) -> None:
    state = detection(store)
    episode = drift(state)
    state.commit([commands.judge(state.part, "m", episode, "false", Signature("ada", "a sale"))], at(20))
    state.commit([commands.acknowledge("m", episode, Signature("bob"))], at(21))
    found = happenings.newest(store, model="m")
    assert [(row["kind"], row["by"], row["subject"]) for row in reversed(found)] == [
        ("alarm", None, episode),
        ("judged", "ada", episode),
        ("acknowledged", "bob", episode),
    ]
    alarm = found[-1]
    assert (alarm["id"], alarm["severity"], alarm["metric"]) == (f"alarm:{episode}", "warning", "accuracy")
    assert alarm["data"]["numbers"]["baseline_n"] > 0


def test_a_silent_model_is_on_record_and_so_is_its_return(store: Store) -> None:
    state = detection(store)
    state.commit([batch(0)], at())
    late = at(2 * 3600)
    state.commit(state.due(late), late)
    state.commit([batch(1)], at(3 * 3600))
    gone, back = reversed(happenings.newest(store))
    assert (gone["kind"], back["kind"], gone["subject"]) == ("no_data", "recovered", back["subject"])


def test_a_new_version_closes_the_alarm_with_the_same_subject(store: Store) -> None:
    state = detection(store)
    episode = drift(state)
    columns = wire.batch_of_columns({"accuracy": np.full(10, 0.9)}, version="v2", timestamps=None, now_s=NOW)
    state.commit([Ingest("m", "p", 9 * ROWS, wire.pack(columns))], at(30))
    closed = next(row for row in happenings.newest(store) if row["kind"] == "recovered")
    assert (closed["subject"], closed["data"]["closed_by"]) == (episode, "new version")


@pytest.mark.parametrize("point", ["detector.before_commit", "detector.in_commit", "detector.after_commit"])
def test_killed_around_the_commit_the_episode_and_its_happening_are_both_there_or_neither(
    store: Store, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def reach(name: str) -> None:
        if name == point:
            raise Killed(name)

    state = detection(store)
    for number in range(9):
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "reach", reach)
            with pytest.raises(Killed):
                state.commit([batch(number)], at(number))
        assert alarms(store) == episodes(store)
        state = detection(store)  # its successor; the sender sends the batch again
        state.commit([batch(number)], at(number))
        assert alarms(store) == episodes(store)
    assert len(alarms(store)) == 1


@pytest.mark.parametrize(
    ("outcome", "ended", "severity"),
    [(Done("v2"), "order_done", "info"), (Failed("oom"), "order_failed", "warning"), (Retry("500"), "order_dead", "critical")],
)
def test_an_order_is_on_record_from_its_launch_to_its_end(store: Store, outcome: Any, ended: str, severity: str) -> None:
    id_ = run(retraining(store), "e-1", outcome)
    found = happenings.newest(store)
    assert {row["kind"]: row["severity"] for row in found} == {"order_launched": "info", ended: severity}
    assert {row["subject"] for row in found} == {id_}


def test_an_order_that_is_put_back_tells_of_its_second_round_too(store: Store) -> None:
    state = retraining(store)
    id_ = run(state, "e-1", Retry("500"))
    state.retry(id_, at(4), Signature("ada"))
    settle(state, id_, Retry("500"))
    state.dismiss(id_, "known", at(5), Signature("bob", "known"))
    assert sorted(kinds(store)) == sorted(["order_launched", "order_dead"] * 2 + ["retried", "dismissed"])
    assert {row["by"] for row in happenings.newest(store, model="m")} == {None, "ada", "bob"}


def test_retrains_that_come_to_nothing_end_in_gave_up_once(store: Store) -> None:
    state = retraining(store, give_up=2)
    for number in range(2):
        id_ = run(state, f"e-{number}", Done("v2"))
        for _sent_again in range(2):
            state.verdict(id_, Verdict("did not pay", -3.0, 2.0, NOW), at(4))
    assert kinds(store).count("verdict") == 2
    assert kinds(store).count("gave_up") == 1


def test_a_trigger_and_a_silence_are_on_record_with_their_person(store: Store) -> None:
    state = retraining(store)
    for _again in range(2):
        state.admissions.trigger(asked(""), "key", at(1), reason="look", signed=Signature("ada", "look"))
        state.silence("m*", 60.0, "a sale", "key", at(2), by="bob")
    assert [(row["kind"], row["by"], row["comment"]) for row in happenings.newest(store)] == [
        ("silenced", "bob", "a sale"),
        ("triggered", "ada", "look"),
    ]


def test_a_commit_of_the_dispatcher_that_fails_leaves_no_happening(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise Killed

    state = retraining(store)
    admission = state.admissions.request(asked("e-1"), at(1))
    assert admission.order is not None
    monkeypatch.setattr("actors.retraining.tables.put_attempt", fail)  # the last statement of the commit
    with pytest.raises(Killed):
        state.begin(admission.order, at(2))
    assert happenings.newest(store) == []


def test_the_readers_join_the_parts_page_by_page_and_by_number(store: Store) -> None:
    drift(detection(store))
    run(retraining(store), "e-1", Done("v2"))
    everything = happenings.newest(store)
    assert {row["part"] for row in everything} == {"dispatcher", "detector-0"}
    page: list[NumberedHappening] = []
    while found := happenings.newest(store, limit=1, before=(page[-1]["at"], page[-1]["id"]) if page else None):
        page += found
    assert page == everything == sorted(everything, key=lambda row: (row["at"], row["id"]), reverse=True)
    written = happenings.after(store, {})
    assert sorted(row["id"] for row in written) == sorted(row["id"] for row in everything)
    assert happenings.after(store, {row["part"]: row["number"] for row in written}) == []
    assert kinds(store, since=NOW + 3600) == []
    with contextlib.closing(StoreReader(store.url)) as reader:
        assert happenings.newest(reader) == everything


def test_retention_keeps_the_newest_and_never_gives_a_number_again(store: Store) -> None:
    part = store.part(DETECTOR, 0)
    with part.write() as connection:
        rows.record(connection, of_detector, [happening("alarm", str(n), NOW + n, model="m") for n in range(10)])
        rows.prune(connection, of_detector, keep_rows=7, older_than_s=NOW + 5)
    assert [row["number"] for row in rows.after(part, of_detector, 0)] == [6, 7, 8, 9, 10]
    with part.write() as connection:
        rows.prune(connection, of_detector, keep_rows=0, older_than_s=0.0)
        rows.record(connection, of_detector, [happening("alarm", "later", NOW, model="m")])
    assert [row["number"] for row in rows.after(part, of_detector, 0)] == [11]

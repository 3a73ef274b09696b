"""The status: put together from the store, shown although a store does not answer, and read by the drivers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from actors import config, status
from actors.config.stored import store_settings
from actors.detection import stored
from actors.replies import ActorStatus
from actors.retraining import model_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import Store
from drivers import status as driver
from drivers.output import Output, shown

HEALTHY: dict[str, Any] = {
    "models": {"m": {"state": "stable", "events": 3, "duplicates": 0, "rejected": 0, "versions": {}, "open_episodes": []}},
    "clients": {},
    "retrains": {"pending": 0, "dead": 0},
    "tuner": {"studies": 0, "running_trials": 0},
    "actors": {"tuner": {"alive": True, "pid": 1, "node": "n", "epoch": 1}},
}


def test_an_empty_store_has_a_whole_status(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/s")
    assert status.read(store) == {
        "models": {},
        "refused": {"events": 0, "last": None},
        "clients": {},
        "unreadable": [],
        "sources": {},
        "receivers": {},
        "retrains": dict.fromkeys(("pending", "running", "done", "failed", "dead", "skipped"), 0),
        "tuner": {"studies": 0, "running_trials": 0},
    }
    store.close()
    assert status.read_url(f"sqlite:///{tmp_path}/s", 0.0)["models"] == {}


def test_a_store_that_does_not_answer_is_named_and_the_rest_is_told() -> None:
    tuner: ActorStatus = {"alive": True, "pid": 7, "node": "n", "epoch": 1}
    told = status.joined(TimeoutError("no answer within 1 s"), {"tuner": tuner}, namespace="n")
    assert told["store_problem"] == "TimeoutError: no answer within 1 s"
    assert told["actors"] == {"tuner": tuner}
    assert told["models"] == {}


class TestPending:
    def test_the_answer_is_given(self) -> None:
        assert status.Pending(lambda: 5).answer(60.0) == 5

    def test_what_was_raised_is_raised(self) -> None:
        nothing: dict[str, int] = {}
        with pytest.raises(KeyError, match="x"):
            status.Pending(lambda: nothing["x"]).answer(60.0)

    def test_nobody_waits_longer_than_he_said(self) -> None:
        never = threading.Event()
        with pytest.raises(TimeoutError, match="no answer within 0 s"):
            status.Pending(never.wait).answer(0.0)
        never.set()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"models": {"m": {**HEALTHY["models"]["m"], "state": "drifting"}}}, "m: drifting"),
        ({"models": {"m": {**HEALTHY["models"]["m"], "state": "no_data"}}}, "m: no_data"),
        ({"models": {"m": {**HEALTHY["models"]["m"], "flagged": ["1"]}}}, "m: has not recovered after its retrain"),
        ({"retrains": {"dead": 2}}, "2 retrain orders could not be delivered: visutility retrains ls"),
        ({"actors": {"tuner": {"alive": False}}}, "tuner: does not answer"),
        ({"store_problem": "gone"}, "gone"),
    ],
)
def test_what_a_person_should_look_at_is_a_problem(change: dict[str, Any], problem: str | None) -> None:
    assert list(driver.problems(HEALTHY | change)) == ([] if problem is None else [problem])


def test_what_json_has_no_word_for_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").result({"a": float("inf"), "b": [float("nan"), 1.5], "c": (2,)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [2]}


def test_a_table_is_tab_separated_lines_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("t", ("a", "b"), [(1, None), ("two\nlines", {"x": 0.5})])
    assert capsys.readouterr().out == "a\tb\n1\t-\ntwo lines\tx=0.5\n"


def test_nothing_but_the_result_is_printed_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("json")
    output.line("hello")
    output.table("t", ("a",), [(1,)])
    output.result([])
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (0.123456, "0.1235"),
        (9999.4, "9999"),
        (9999.6, "10,000"),
        (2.5e6, "2,500,000"),
        (float("inf"), "inf"),
        ([], "-"),
        ([1, None], "1, -"),
    ],
)
def test_values_are_shown_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_model_whose_retrains_come_to_nothing_is_known_by_the_configuration_that_runs(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    with store.part(DISPATCHER).write() as connection:
        for model, times in (("fraud", 3), ("patient", 3), ("fine", 2)):
            for _ in range(times):
                model_tables.lose_patience(connection, model)
        in_a_row = model_tables.read_patience(connection)
    assert in_a_row == {"fraud": 3, "patient": 3, "fine": 2}
    store_settings(store, config.load({"models": {"patient": {"retrain": {"give_up": 5}}}}), 0.0)
    settings = status._settings(store)
    assert status._gave_up(settings, in_a_row) == {"fraud": 3}
    assert status._gave_up(settings, {}) == {}
    store.close()


def test_a_clock_that_was_ahead_is_told_for_an_hour_and_then_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = {"s": 4000.0, "at": 1.8e9}
    monkeypatch.setattr(stored, "read_status", lambda *_, **__: {"m": {"clock_ahead": ahead, "state": "stable"}})
    store = Store(f"sqlite:///{tmp_path}/s")
    monkeypatch.setattr(store, "slots", lambda _kind: [0])
    assert status.read(store, 1.8e9 + 3599.0)["models"]["m"]["clock_ahead"] == ahead
    assert status.read(store, 1.8e9 + 3601.0)["models"]["m"]["clock_ahead"] is None
    store.close()

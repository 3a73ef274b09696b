"""Metrics against a broadcaster that loses, refuses and answers late; every event is counted once."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pytest

from actors import wire
from actors.errors import WrongTypeError, WrongValueError
from actors.metrics import pump, sender
from actors.metrics.client import Metrics
from actors.wire.messages import Message
from tests.speed import slow

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  the very thing that is refused
NOW = 4e9  # what the fake takes for now: no time of a test is ahead of it


class FakeSystem:
    """The broadcaster, the detectors and their store, behind a link that can fail in every way."""

    def __init__(self) -> None:
        self.up = True
        self.high: dict[tuple[str, str], int] = {}
        self.rows: dict[str, int] = {}
        self.numbers: list[float] = []
        self.epoch = 1
        self.outcomes: list[str] = []  # of the next calls: lost, unknown, busy, refused
        self.calls = 0
        self.clients: dict[str, dict[str, Any]] = {}
        self.hold = False
        self.shuffled: np.random.Generator | None = None
        self.done: dict[int, Any] = {}
        self.events: list[tuple[str, str, float, dict[str, Any]]] = []  # that counted: model, version, time, cells
        self.rejections: list[wire.Rejection] = []
        self.refused: list[str] = []
        self.known_schema: int | None = 2
        self.weights: list[float | None] = []
        self.stamped: list[bool] = []

    # --- the link

    def send(self, batches: list[Message]) -> Any | None:
        if not self.up:
            return None
        self.calls += 1
        outcome = self.outcomes.pop(0) if self.outcomes else "taken"
        if outcome == "lost":
            return ("reply", None)
        if outcome == "busy":
            return ("reply", [self._reply("busy", 0, retry_in_s=0.001) for _ in batches])
        if outcome == "refused":
            return ("reply", [self._reply("refused", 0, reason="no room for another model") for _ in batches])
        if self.shuffled is not None:
            return ("later", batches, outcome)
        replies = [self._take(batch) for batch in batches]
        return ("reply", None if outcome == "unknown" else replies)

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        if self.hold:
            time.sleep(min(timeout_s, 0.001))
            return []
        if self.shuffled is not None:  # carried out in any order, and answered in another
            for i in self.shuffled.permutation(len(tickets)):
                ticket = tickets[i]
                if ticket[0] == "later" and id(ticket) not in self.done:
                    replies = [self._take(batch) for batch in ticket[1]]
                    self.done[id(ticket)] = ticket, None if ticket[2] == "unknown" else replies
            return [ticket for ticket in tickets if self.shuffled.random() < 0.5]
        return list(tickets)

    def reply(self, ticket: Any) -> Any:
        return self.done.pop(id(ticket))[1] if ticket[0] == "later" else ticket[1]

    def schema(self) -> int | None:
        return self.known_schema

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        if not self.up:
            raise ConnectionError("down")
        if method == "high_water":
            return {"status": "ok", "high_water": self.high.get((arguments["model"], arguments["producer"]), 0)}
        return {"status": "learned", "arguments": arguments}

    def _take(self, batch: Any) -> dict[str, Any]:
        key = batch["model"], batch["producer"]
        high = self.high.get(key, 0)
        self.clients[batch["producer"]] = batch["client"]
        self.stamped.append(bool(batch.get("stamped")))
        message = msgpack.unpackb(bytes(wire.arrived(batch["payload"])))
        if self.known_schema is not None and message["v"] > self.known_schema:
            self.refused.append(f"schema {message['v']}")
            return self._reply("refused", high, reason="an unknown schema")
        if batch["sequence"] > high:
            return self._reply("gap", high)
        try:
            found = wire.unpack(batch["payload"])
        except ValueError as error:
            self.refused.append(str(error))
            return self._reply("refused", high, reason=str(error))
        skip = min(high - batch["sequence"], found.rows)
        verdict = wire.check(found, NOW, skip)
        found = verdict.batch
        self.rejections += verdict.listed
        for row in range(skip, found.rows):
            if verdict.ok is None or verdict.ok[row]:
                version = found.versions[0 if found.which is None else found.which[row]]
                n = found.weights
                self.weights.append(
                    None if n is None or (n.present is not None and not n.present[row]) else float(n.values[row])
                )
                self.events.append((batch["model"], version, float(found.times[row]), cells_of(found, row)))
        self.high[key] = max(high, batch["sequence"] + found.rows)
        accepted = found.rows - skip - verdict.rejected
        self.rows[batch["model"]] = self.rows.get(batch["model"], 0) + accepted
        if "n" in found.columns:
            self.numbers += found.columns["n"].values[skip:].tolist()
        return {
            **self._reply("accepted", self.high[key]),
            "accepted": accepted,
            "duplicates": skip,
            "rejected": verdict.listed,
            "bad_values": verdict.bad_values,
            "bad_value": verdict.bad_value,
        }

    def _reply(self, status: str, high: int, **more: Any) -> dict[str, Any]:
        empty = {"accepted": 0, "duplicates": 0, "rejected": []}
        return {"status": status, "high_water": high, "epoch": self.epoch, **empty, **more}


def cells_of(batch: wire.Batch, row: int) -> dict[str, Any]:
    """The metrics of one row, as they were logged."""
    cells: dict[str, Any] = {
        name: float(column.values[row])
        for name, column in batch.columns.items()
        if column.present is None or column.present[row]
    }
    return cells | {name: texts[row] for name, texts in batch.texts.items() if texts[row] is not None}


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
def made(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Metrics]]:
    monkeypatch.setattr(sender, "BACKOFF_S", (0.001,))
    monkeypatch.setattr(sender, "FIND_S", 0.005)
    monkeypatch.setattr(pump, "LINGER_S", 0.001)
    every: list[Metrics] = []

    def make(**options: Any) -> Metrics:
        every.append(Metrics(link=system, **options))
        return every[-1]

    yield make
    for metrics in every:
        metrics.close(0.0)


def test_what_was_logged_is_counted(system: FakeSystem, made: Any) -> None:
    metrics = made()
    for n in range(1000):
        metrics.log({"accuracy": 0.9, "n": n}, model="m", version="v1")
    assert metrics.flush() == {"accepted": 1000, "duplicate": 0, "rejected": 0, "dropped": 0, "bad_values": 0, "pending": 0}
    assert system.numbers == [float(n) for n in range(1000)]


@pytest.mark.parametrize("outcome", ["lost", "unknown", "busy"])
def test_whatever_happens_to_a_call_each_event_is_counted_once(system: FakeSystem, made: Any, outcome: str) -> None:
    metrics = made()
    system.outcomes = [outcome, "taken", outcome, outcome, "taken", outcome]
    for n in range(300):
        metrics.log({"accuracy": 0.9, "n": n}, model="m")
        if n % 50 == 0:
            metrics.flush(0.0)
    counts = metrics.flush()
    assert counts["pending"] == 0
    assert counts["accepted"] + counts["duplicate"] == 300
    assert system.numbers == [float(n) for n in range(300)]


def test_many_models_and_batches_with_losses_are_counted_once_in_order(system: FakeSystem, made: Any) -> None:
    metrics = made()
    random = np.random.default_rng(0)
    system.outcomes = random.choice(["taken", "lost", "unknown", "busy"], 200).tolist()
    for i in range(60):
        metrics.log_batch({"n": np.arange(100.0) + 100 * i}, model=f"m{i % 3}")
        if i % 5 == 0:
            metrics.log({"n": -1}, model="m0")
    assert metrics.flush(30)["pending"] == 0
    assert system.rows == {"m0": 2012, "m1": 2000, "m2": 2000}
    assert sorted(v for v in system.numbers if v >= 0) == [float(n) for n in range(6000)]


def test_calls_that_overtake_each_other_are_counted_once_and_the_producer_stays_the_same(
    system: FakeSystem, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "CALL_BYTES", 1)
    metrics = made()
    producer = metrics.producer
    system.shuffled = np.random.default_rng(1)
    system.outcomes = system.shuffled.choice(["taken", "unknown", "lost", "busy"], 100).tolist()
    for i in range(50):
        metrics.log_batch({"n": np.arange(10.0) + 10 * i}, model=f"m{i % 2}")
    assert metrics.flush(30)["pending"] == 0
    assert sorted(system.numbers) == [float(n) for n in range(500)]
    assert metrics.producer == producer


def test_a_batch_comes_after_what_was_logged_before_it(system: FakeSystem, made: Any) -> None:
    metrics = made()
    for i in range(20):
        metrics.log({"n": 2 * i}, model="m")
        metrics.log_batch({"n": [2 * i + 1]}, model="m")
    metrics.flush()
    assert system.numbers == [float(n) for n in range(40)]


def test_logging_works_before_the_system_is_up_and_across_its_restart(system: FakeSystem, made: Any) -> None:
    metrics = made()
    system.up = False
    for _ in range(100):
        metrics.log({"accuracy": 0.9}, model="m")
    assert metrics.flush(0.05)["pending"] == 100
    system.up = True
    assert metrics.flush()["accepted"] == 100
    system.up = False
    metrics.log({"accuracy": 0.9}, model="m")
    metrics.flush(0.02)
    system.up, system.epoch = True, 2
    assert metrics.flush()["accepted"] == 101


def test_a_full_buffer_drops_and_counts_within_its_bound(system: FakeSystem, made: Any) -> None:
    system.up = False
    metrics = made(buffer_bytes=100_000)
    for _ in range(5000):
        metrics.log({"accuracy": 0.9}, model="m")
        assert metrics._buffer.bytes <= 100_000
    metrics.log_batch({"accuracy": np.full(50_000, 0.5) + np.arange(50_000) * 1e-9}, model="m")
    counts = metrics.flush(0.02)
    assert counts["dropped"] > 50_000
    assert counts["pending"] + counts["dropped"] == 55_000
    system.up = True
    counts = metrics.flush()
    assert counts["accepted"] + counts["dropped"] == 55_000


def test_a_full_buffer_waits_where_it_is_told_to(system: FakeSystem, made: Any) -> None:
    system.up = False
    metrics = made(buffer_bytes=20_000, on_full="wait")
    threading.Timer(0.05, lambda: setattr(system, "up", True)).start()
    for _ in range(500):
        metrics.log({"accuracy": 0.9}, model="m")
    counts = metrics.flush()
    assert (counts["accepted"], counts["dropped"]) == (500, 0)


def test_several_threads_log_at_once(system: FakeSystem, made: Any) -> None:
    metrics = made()

    def work(k: int) -> None:
        for n in range(500):
            metrics.log({"n": 1000 * k + n}, model="m")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.flush()["accepted"] == 2000
    assert len(set(system.numbers)) == 2000


@pytest.mark.parametrize("value", [True, "0.9", [0.9], {"a": 1}, object(), 1j, np.array([0.5]), b"0.9"])
def test_a_wrong_type_raises_at_once_and_logs_nothing(made: Any, value: Any) -> None:
    metrics = made()
    with pytest.raises(WrongTypeError, match="accuracy must be a number"):
        metrics.log({"accuracy": value}, model="m")
    with pytest.raises((TypeError, ValueError)):
        metrics.log({"accuracy": value}, model="m")
    assert metrics.counts()["pending"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": [0.9]}, "metrics must be a mapping"),
        ({"metrics": {7: 0.9}}, "metric name must be a string"),
        ({"metrics": {"": 0.9}}, "metric name must have 1 to 200"),
        ({"metrics": {"timestamp": 0.9}}, "must not be the name of a field"),
        ({"model": ""}, "model_name must have 1 to 200"),
        ({"model": "x" * 10_000}, "model_name must have 1 to 200"),
        ({"model": "a\0"}, "control character"),
        ({"model": 7}, "model_name must be a string"),
        ({"version": 7}, "model_version must be a string"),
        ({"version": None}, "model_version must be a string"),
        ({"timestamp": "now"}, "timestamp must be seconds"),
        ({"timestamp": True}, "timestamp must be seconds"),
        ({"timestamp": 10**400}, "timestamp must be seconds"),
    ],
)
def test_a_mistake_in_the_program_raises_at_once(made: Any, arguments: dict[str, Any], message: str) -> None:
    metrics = made()
    given = {"metrics": {"accuracy": 0.9}, "model": "m", **arguments}
    with pytest.raises(WrongTypeError, match=message):
        metrics.log(given.pop("metrics"), **given)


def test_a_bad_value_never_raises_and_is_counted_and_warned_about_once(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    metrics = made()
    for _ in range(3):
        for bad in (1.2, -0.1, float("nan"), float("inf"), None, 10**400):
            metrics.log({"accuracy": bad}, model="m")
        metrics.log({"accuracy": 0.9}, model="m", timestamp=-1.0)
        metrics.log({}, model="m")
        metrics.log({"loss": float("nan")}, model="m")
        metrics.log({"accuracy": 0.9}, model="m")
        metrics.flush()
    counts = metrics.flush()
    assert (counts["accepted"], counts["rejected"]) == (3, 27)
    assert 1 <= len([r for r in caplog.records if "rejected and counted" in r.message]) <= 4


def test_numpy_numbers_and_texts_are_taken(system: FakeSystem, made: Any) -> None:
    metrics = made()
    metrics.log(
        {"accuracy": np.float32(0.5), "steps": np.int64(3), "region": "eu", "recall": None}, model="m", timestamp=np.int64(7)
    )
    assert metrics.flush()["accepted"] == 1


def test_a_refused_batch_is_given_up_and_the_next_ones_follow(system: FakeSystem, made: Any) -> None:
    metrics = made()
    system.outcomes = ["refused"]
    metrics.log({"n": 1}, model="m")
    assert metrics.flush()["rejected"] == 1
    metrics.log({"n": 2}, model="m")
    assert metrics.flush()["accepted"] == 1
    assert system.numbers == [2.0]


# --- whatever is logged is split to fit the wire ----------------------------------------------------------------


def burst(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Events of one model that no single batch can hold: their versions and metrics."""
    match kind:
        case "names":
            return [("v1", {f"metric-{i}": float(i), "accuracy": 0.5}) for i in range(1200)]
        case "text names":
            return [("v1", {f"note-{i}": "x", "accuracy": 0.5}) for i in range(600)]
        case "versions":
            return [(f"v{i}", {"accuracy": 0.5}) for i in range(2500)]
        case "texts":
            return [("v1", {"accuracy": 0.5, "note": str(i) + "x" * 15_000}) for i in range(800)]
        case "wide and sparse":
            return [("v1", {f"metric-{(7 * i + k) % 250}": float(i) for k in range(3)}) for i in range(5000)]
        case _:
            raise ValueError(kind)


@pytest.mark.parametrize("kind", ["names", "text names", "versions", "texts", "wide and sparse"])
def test_a_burst_that_no_single_batch_can_hold_arrives_whole_and_in_order(system: FakeSystem, made: Any, kind: str) -> None:
    metrics, events = made(), burst(kind)
    system.up = False
    for at, (version, held) in enumerate(events):
        metrics.log(held, model="m", version=version, timestamp=float(at))
    system.up = True
    assert metrics.flush() == {
        "accepted": len(events),
        "duplicate": 0,
        "rejected": 0,
        "dropped": 0,
        "bad_values": 0,
        "pending": 0,
    }
    assert system.events == [("m", version, float(at), held) for at, (version, held) in enumerate(events)]
    assert system.refused == []


def test_columns_beyond_the_bytes_of_a_call_arrive_whole(system: FakeSystem, made: Any) -> None:
    metrics = made()
    metrics.log_batch({f"metric-{i}": np.arange(30_000.0) + i for i in range(50)} | {"n": np.arange(30_000.0)}, model="m")
    assert metrics.flush()["accepted"] == 30_000
    assert system.numbers == [float(n) for n in range(30_000)]
    assert system.refused == []


def test_more_metrics_in_one_event_than_the_wire_takes_raise_at_once(made: Any) -> None:
    metrics = made()
    with pytest.raises(WrongTypeError, match="metrics must hold at most 256 names, got 257"):
        metrics.log({f"metric-{i}": 1.0 for i in range(257)}, model="m")
    assert metrics.counts()["pending"] == 0


@pytest.mark.parametrize("name", ["timestamp", "model_name", "", "x" * 201, "a\nb", "\ud800", 7])
def test_a_bad_name_raises_also_in_a_later_event_and_its_neighbours_arrive(made: Any, name: Any) -> None:
    metrics = made()
    metrics.log({"accuracy": 0.9}, model="m")
    with pytest.raises(WrongTypeError, match="metric name must"):
        metrics.log({"accuracy": 0.9, name: 0.5}, model="m")
    metrics.log({"accuracy": 0.9}, model="m")
    assert metrics.flush() == {"accepted": 2, "duplicate": 0, "rejected": 0, "dropped": 0, "bad_values": 0, "pending": 0}


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({"accuracy": 0.9, "note": "\ud800"}, "must be encodable as UTF-8"),
        ({"accuracy": 0.9, "note": "x" * 9_000_000}, "must have at most 16384 bytes"),
        ({"accuracy": 0.9, **{f"note-{i}": "x" * 300 for i in range(200)}}, "must have at most 16384 bytes"),
        ({"accuracy": 0.9, "note": "\u20ac" * 6_000}, "must have at most 16384 bytes"),
    ],
)
def test_an_event_that_the_wire_cannot_carry_is_rejected_alone_on_both_sides(
    system: FakeSystem, made: Any, caplog: pytest.LogCaptureFixture, bad: dict[str, Any], rule: str
) -> None:
    metrics = made()
    for at in range(100):
        metrics.log(bad if at == 50 else {"accuracy": 0.9, "note": "fine"}, model="m", timestamp=float(at))
    metrics.log({"accuracy": 0.9}, model="other")
    assert metrics.flush() == {"accepted": 100, "duplicate": 0, "rejected": 1, "dropped": 0, "bad_values": 0, "pending": 0}
    assert len(system.rejections) == 1
    assert [time for model, _, time, _ in system.events if model == "m"] == [float(at) for at in range(100) if at != 50]
    assert system.refused == []
    assert any(rule in record.getMessage() for record in caplog.records)


def test_an_event_that_cannot_be_packed_for_whatever_reason_is_rejected_alone(
    system: FakeSystem, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wire.batch_of_rows

    def picky(rows: Any) -> wire.Batch:
        if any("boom" in row[2] for row in rows):
            raise ValueError("a bug of ours")
        return whole(rows)

    monkeypatch.setattr(wire, "batch_of_rows", picky)
    metrics = made()
    for at in range(50):
        metrics.log({"accuracy": 0.9} | ({"boom": 1.0} if at == 20 else {}), model="m", timestamp=float(at))
    metrics.log({"accuracy": 0.9}, model="other")
    assert metrics.flush() == {"accepted": 50, "duplicate": 0, "rejected": 1, "dropped": 0, "bad_values": 0, "pending": 0}


def test_long_texts_count_in_the_bound_of_the_buffer(system: FakeSystem, made: Any) -> None:
    system.up = False
    metrics = made(buffer_bytes=1_000_000)
    for _ in range(1000):
        metrics.log({"accuracy": 0.9, "note": "x" * 10_000}, model="m")
    counts = metrics.counts()
    assert counts["dropped"] >= 900
    system.up = True
    assert metrics.flush()["accepted"] == 1000 - counts["dropped"]


# --- what people log, and the number of predictions behind it ---------------------------------------------------


@pytest.mark.parametrize("value", [np.array(0.5), np.float16(0.5), pd.array([0.5], dtype="Float64")[0], np.bool_(True)])
def test_a_scalar_of_any_library_is_logged(system: FakeSystem, made: Any, value: Any) -> None:
    metrics = made()
    metrics.log({"accuracy": value, "absent": np.ma.masked}, model="m", timestamp=datetime.fromtimestamp(7.5, tz=UTC))
    assert metrics.flush()["accepted"] == 1
    assert system.events == [("m", "unversioned", 7.5, {"accuracy": float(value)})]


def test_times_that_the_client_stamped_are_marked_and_those_of_the_caller_are_not(system: FakeSystem, made: Any) -> None:
    metrics = made()
    for timestamp in (None, 7.0):
        metrics.log({"accuracy": 0.9}, model="m", timestamp=timestamp)
        metrics.flush()
        metrics.log_batch({"accuracy": [0.9]}, model="m", timestamps=timestamp)
        metrics.flush()
    assert system.stamped == [True, True, False, False]


def test_a_batch_is_stamped_by_the_client_or_by_callers_and_the_order_stays(system: FakeSystem, made: Any) -> None:
    """Else an event that a clock an hour ahead has stamped is rejected, since a caller's own time is in its batch."""
    metrics = made()
    for place, timestamp in enumerate([None, None, 7.0, None, 8.0, 9.0]):
        metrics.log({"accuracy": place / 10}, model="m", timestamp=timestamp)
    assert metrics.flush()["accepted"] == 6
    assert [stamped for stamped, _ in itertools.groupby(system.stamped)] == [True, False, True, False]
    assert [metrics_of["accuracy"] for _, _, _, metrics_of in system.events] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("timestamp", [np.timedelta64(3, "s"), timedelta(1), np.bool_(True), NAIVE])
def test_what_is_no_time_raises(made: Any, timestamp: Any) -> None:
    with pytest.raises(WrongTypeError, match="timestamp must be seconds"):
        made().log({"accuracy": 0.9}, model="m", timestamp=timestamp)


@pytest.mark.parametrize("column", [[], np.array([]), pd.Series([], dtype="float64")])
def test_an_empty_batch_is_nothing(made: Any, column: Any) -> None:
    metrics = made()
    metrics.log_batch({"accuracy": column}, model="m")
    assert metrics.flush() == {"accepted": 0, "duplicate": 0, "rejected": 0, "dropped": 0, "bad_values": 0, "pending": 0}


def test_what_a_column_masks_is_absent_and_its_other_values_count(system: FakeSystem, made: Any) -> None:
    metrics = made()
    masked = np.ma.masked_array([0.5, 0.9, 0.7], mask=[False, True, False])
    metrics.log_batch({"accuracy": masked, "loss": [1.0, 2.0, 3.0]}, model="m", timestamps=[1.0, 2.0, 3.0])
    assert metrics.flush()["accepted"] == 3
    assert [cells for *_, cells in system.events] == [
        {"accuracy": 0.5, "loss": 1.0},
        {"loss": 2.0},
        {"accuracy": 0.7, "loss": 3.0},
    ]


def test_a_value_that_is_no_finite_number_is_left_out_alone_counted_and_warned_about(
    system: FakeSystem, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = made()
    for _ in range(3):
        metrics.log({"accuracy": 0.9, "loss": float("nan"), "norm": float("inf")}, model="m")
    assert metrics.flush() == {"accepted": 3, "duplicate": 0, "rejected": 0, "dropped": 0, "bad_values": 6, "pending": 0}
    assert [cells for *_, cells in system.events] == [{"accuracy": 0.9}] * 3
    assert len([record for record in caplog.records if "bad values are dropped" in record.getMessage()]) == 1


def test_n_travels_with_its_events_and_is_absent_where_it_was_left_out(system: FakeSystem, made: Any) -> None:
    metrics = made()
    metrics.log({"accuracy": 0.9, "n": 7.0}, model="m", n=200)
    metrics.log({"accuracy": 0.9}, model="m")
    metrics.log({"accuracy": 0.9}, model="m", n=np.int64(50))
    metrics.log_batch({"accuracy": [0.9, 0.8]}, model="m", n=[10, 20])
    metrics.log_batch({"accuracy": [0.9, 0.8]}, model="m", n=30)
    metrics.log_batch({"accuracy": [0.9, 0.8]}, model="m", n=np.ma.masked_array([40, 0], mask=[False, True]))
    metrics.log_batch({"accuracy": [0.9]}, model="m")
    metrics.log({"accuracy": 0.9}, model="m", n=np.ma.masked)
    assert metrics.flush()["accepted"] == 11
    assert system.weights == [200.0, None, 50.0, 10.0, 20.0, 30.0, 30.0, 40.0, None, None, None]
    assert system.events[0][3] == {"accuracy": 0.9, "n": 7.0}, "a metric of that name stays what it is"


@pytest.mark.parametrize("n", [0, -1, float("nan"), 1e13, 10**400])
def test_an_n_that_is_out_of_range_rejects_its_event_alone(
    system: FakeSystem, made: Any, caplog: pytest.LogCaptureFixture, n: float
) -> None:
    metrics = made()
    metrics.log({"accuracy": 0.9}, model="m", n=200)
    metrics.log({"accuracy": 0.9}, model="m", n=n)
    metrics.log({"accuracy": 0.9}, model="m", n=1e12)
    counts = metrics.flush()
    assert (counts["accepted"], counts["rejected"], counts["pending"]) == (2, 1, 0)
    assert system.weights == [200.0, 1e12]
    assert any("n must be a number above 0" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("n", ["200", True, [1], object()])
def test_an_n_of_a_wrong_type_raises_at_once(made: Any, n: Any) -> None:
    with pytest.raises(WrongTypeError, match="n must be a number"):
        made().log({"accuracy": 0.9}, model="m", n=n)


def test_a_system_that_does_not_know_n_gets_the_events_without_it_and_one_warning(
    system: FakeSystem, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    system.known_schema = 1
    metrics = made()
    for _ in range(3):
        metrics.log({"accuracy": 0.9}, model="m", n=200)
        metrics.flush()
    assert (metrics.counts()["accepted"], system.weights, system.refused) == (3, [None] * 3, [])
    assert len([record for record in caplog.records if "runs a build without n" in record.getMessage()]) == 1
    system.known_schema = 2  # it is upgraded
    metrics.log({"accuracy": 0.9}, model="m", n=200)
    assert metrics.flush()["accepted"] == 4
    assert system.weights[-1] == 200.0


def test_what_a_newer_system_did_not_acknowledge_goes_to_an_older_one_once(system: FakeSystem, made: Any) -> None:
    metrics = made()
    system.outcomes = ["unknown", "lost"]
    metrics.log({"accuracy": 0.9}, model="m", n=200)
    metrics.flush(0.0)
    system.known_schema = 1  # a downgrade
    counts = metrics.flush()
    assert (counts["accepted"] + counts["duplicate"], counts["pending"], system.refused) == (1, 0, [])


def test_weights_wait_for_a_system_that_cannot_be_asked_what_it_knows(system: FakeSystem, made: Any) -> None:
    system.known_schema = None
    metrics = made()
    metrics.log({"accuracy": 0.9}, model="m", n=200)
    assert metrics.flush(0.05)["pending"] == 1
    system.known_schema = 2
    assert metrics.flush()["accepted"] == 1
    assert system.weights == [200.0]


def test_a_promise_is_checked_and_sent(made: Any) -> None:
    metrics = made()
    reply = metrics.promise({"accuracy": np.float32(0.5)}, n=2500, model="m", version="v1")
    assert reply["arguments"] == {
        "model": "m",
        "version": "v1",
        "values": {"accuracy": 0.5},
        "n": 2500.0,
        "source": "cross_validation",
    }


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"metrics": {"accuracy": 1.2}}, "accuracy must be a number from 0 to 1, got 1.2"),
        ({"metrics": {"accuracy": float("nan")}}, "accuracy must be a number from 0 to 1"),
        ({"metrics": {"accuracy": True}}, "accuracy must be a number from 0 to 1"),
        ({"metrics": {}}, "values must be a mapping of 1 to 256"),
        ({"metrics": [0.9]}, "values must be a mapping"),
        ({"metrics": {"timestamp": 0.9}}, "metric name must not be the name of a field"),
        ({"n": 0.5}, "n must be a number from 1 to 1e"),
        ({"n": 0}, "n must be a number from 1 to 1e"),
        ({"n": None}, "n must be a number from 1 to 1e"),
        ({"n": float("inf")}, "n must be a number from 1 to 1e"),
        ({"source": "guess"}, "source must be one of cross_validation, hold_out, got 'guess'"),
        ({"model": "a*"}, "model_name must not contain"),
        ({"version": None}, "model_version must be a string"),
    ],
)
def test_a_bad_promise_raises_and_names_the_rule(made: Any, changes: dict[str, Any], rule: str) -> None:
    given = {"metrics": {"accuracy": 0.9}, "n": 2500, "model": "m", "version": "v1", **changes}
    with pytest.raises(WrongValueError, match=rule):
        made().promise(given.pop("metrics"), **given)


def test_a_producer_that_is_named_goes_on_where_it_was(system: FakeSystem, made: Any) -> None:
    first = made(producer="job-7")
    first.log_batch({"n": np.arange(10.0)}, model="m")
    first.flush()
    again = made(producer="job-7")
    again.log_batch({"n": np.arange(10.0)}, model="m")
    assert again.flush()["accepted"] == 10
    assert system.high["m", "job-7"] == 20


def test_a_store_that_forgot_the_producer_gets_the_rest_from_a_new_one(system: FakeSystem, made: Any) -> None:
    metrics = made()
    metrics.log({"n": 1}, model="m")
    metrics.flush()
    before = metrics.producer
    system.high.clear()
    metrics.log({"n": 2}, model="m")
    assert metrics.flush()["accepted"] == 2
    assert metrics.producer != before
    assert system.numbers == [1.0, 2.0]


def test_counters_travel_with_the_batches(system: FakeSystem, made: Any) -> None:
    metrics = made()
    metrics.log({"accuracy": 7}, model="m")
    metrics.flush()
    metrics.log({"accuracy": 0.7}, model="m")
    metrics.flush()
    assert system.clients[metrics.producer]["rejected"] == 1


def test_a_baseline_is_checked_and_sent(made: Any) -> None:
    metrics = made()
    reply = metrics.baseline({"accuracy": [0.9, 0.8]}, model="m", version="v1")
    assert reply["arguments"]["values"]["accuracy"].tolist() == [0.9, 0.8]
    with pytest.raises(ValueError, match="accuracy must have one dimension"):
        metrics.baseline({"accuracy": [[0.9]]}, model="m", version="v1")


def test_a_baseline_without_a_system_says_so(system: FakeSystem, made: Any) -> None:
    system.up = False
    with pytest.raises(ConnectionError, match="nothing within"):
        made().baseline({"accuracy": [0.9]}, model="m", version="v1", timeout_s=0.0)


def test_a_pickled_copy_is_another_producer_with_its_own_counts(made: Any) -> None:
    metrics = made()
    metrics.log({"n": 1}, model="m")
    metrics.flush()
    copy = pickle.loads(pickle.dumps(metrics))
    assert copy.producer != metrics.producer
    assert copy.counts()["accepted"] == 0


def _child(metrics: Metrics, pipe: Any) -> None:
    for _ in range(5):
        metrics.log({"accuracy": 0.9}, model="m")
    pipe.send((metrics.producer, metrics.flush(5.0)))


def test_a_fork_is_another_producer_with_its_own_counts(made: Any) -> None:
    metrics = made()
    for _ in range(10):
        metrics.log({"accuracy": 0.9}, model="m")
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_child, args=(metrics, there))
    process.start()
    producer, counts = here.recv()
    process.join()
    assert producer != metrics.producer
    assert counts["accepted"] == 5
    assert metrics.flush()["accepted"] == 10


def test_a_client_that_nobody_holds_takes_its_thread_with_it(made: Any, system: FakeSystem) -> None:
    metrics = Metrics(link=system)
    metrics.log({"accuracy": 0.9}, model="m")
    metrics.flush()
    thread = metrics._pump.thread
    assert thread is not None
    del metrics
    gc.collect()
    thread.join(slow(10))
    assert not thread.is_alive()


@pytest.mark.parametrize("up", [True, False])
def test_what_was_logged_arrives_though_nobody_holds_the_client_any_more(system: FakeSystem, up: bool) -> None:
    system.up = up

    def job() -> tuple[weakref.ref[Metrics], threading.Thread]:
        metrics = Metrics(link=system)
        metrics.log({"accuracy": 0.9}, model="m")
        metrics.log_batch({"accuracy": np.full(10, 0.9)}, model="m")
        assert metrics._pump.thread is not None
        return weakref.ref(metrics), metrics._pump.thread

    reference, thread = job()
    gc.collect()
    if not up:  # it waits for the system, however long that takes
        time.sleep(0.05)
        assert thread.is_alive()
        system.up = True
    thread.join(slow(10))
    assert system.rows == {"m": 11}
    assert reference() is None


@pytest.mark.parametrize("options", [{"on_full": "block"}, {"buffer_bytes": 0}, {"buffer_bytes": True}, {"producer": ""}])
def test_bad_options_raise(options: Any) -> None:
    with pytest.raises(ValueError, match=r"on_full|buffer_bytes|producer"):
        Metrics(**options)

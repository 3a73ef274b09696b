"""What the wire takes, what it refuses, and that a packed batch is what it was."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import wire
from actors.metrics import raw_events, sealing
from actors.wire import checking, making, messages, packing

NOW = 1_795_000_000.0
GOOD = {"model_name": "m", "model_version": "v1", "timestamp": NOW, "accuracy": 0.9}


def rejection(event: object) -> wire.Rejection:
    """Check one bad event between two good ones: it is rejected alone."""
    found = raw_events.sort_events([GOOD, event, GOOD], NOW)
    ok = wire.check(wire.batch_of_rows(found.rows["m"]), NOW).ok
    counted = found.indices["m"] if ok is None else [i for i, good in zip(found.indices["m"], ok, strict=True) if good]
    assert counted == [0, 2]
    (rejected,) = found.rejected
    assert rejected["index"] == 1
    return rejected


@pytest.mark.parametrize("value", [1.2, -0.1, math.nan, math.inf, -math.inf, "0.9", True, False, [0.9], 10**400, np.bool_(1)])
@pytest.mark.parametrize("name", ["accuracy", "precision", "recall"])
def test_a_bad_score_is_rejected_with_field_value_and_rule(name: str, value: object) -> None:
    rejected = rejection({**GOOD, "accuracy": None, name: value})
    assert rejected["field"] == name
    assert rejected["rule"] == "must be a number from 0 to 1"
    assert rejected["value"] is not None


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"accuracy": None}, "metrics", "at least one number"),
        ({"accuracy": None, "extras": {"region": "eu"}}, "metrics", "at least one number"),
        ({"acuracy": 0.9}, "acuracy", "not a field"),
        ({"extras": [1]}, "extras", "mapping"),
        ({"extras": "loss"}, "extras", "mapping"),
        ({"extras": {"a": {"b": 1}}}, "extras.a", "not nested"),
        ({"extras": {"a": [[[1]]]}}, "extras.a", "not nested"),
        ({"extras": {"a": True}}, "extras.a", "number or a string"),
        ({"extras": {"a": object()}}, "extras.a", "number or a string"),
        ({"accuracy": None, "extras": {"a": math.nan}}, "extras.a", "finite"),
        ({"extras": {"a": 10**400}}, "extras.a", "number or a string"),
        ({"n": 0}, "n", "above 0"),
        ({"n": -1}, "n", "above 0"),
        ({"n": math.nan}, "n", "above 0"),
        ({"n": 1e13}, "n", "at most 1e+12"),
        ({"n": True}, "n", "above 0"),
        ({"n": "200"}, "n", "above 0"),
        ({"model_name": "a\u200bb"}, "model_name", "an invisible character"),
        ({"model_version": "v\u202e1"}, "model_version", "an invisible character"),
        ({"model_version": "v\u2028"}, "model_version", "control character"),
        ({"extras": {"a\ufeff": 1.0}}, "extras", "an invisible character"),
        ({"extras": {"a": "\ud800"}}, "extras.a", "UTF-8"),
        ({"extras": {"a": "x" * 17_000}}, "extras", "16384 bytes"),
        ({"extras": {f"name-{i}": 1.0 for i in range(300)}}, "extras", "names"),
        ({"extras": {"timestamp": 1.0}}, "extras", "name of a field"),
        ({"extras": {"accuracy": 0.5}}, "extras", "name of a field"),
        ({"extras": {1: 1.0}}, "extras", "string"),
        ({"model_name": ""}, "model_name", "1 to 200"),
        ({"model_name": "x" * 10_000}, "model_name", "1 to 200"),
        ({"model_name": "a\nb"}, "model_name", "control character"),
        ({"model_name": "a\x9fb"}, "model_name", "control character"),
        ({"model_name": "fraud-*"}, "model_name", "* ? or ["),
        ({"model_name": "\ud800"}, "model_name", "UTF-8"),
        ({"model_name": 7}, "model_name", "string"),
        ({"model_name": None}, "model_name", "string"),
        ({"model_version": 7}, "model_version", "string"),
        ({"model_version": None}, "model_version", "string"),
        ({"timestamp": -1.0}, "timestamp", "seconds since the epoch"),
        ({"timestamp": math.nan}, "timestamp", "seconds since the epoch"),
        ({"timestamp": NOW * 1000}, "timestamp", "seconds since the epoch"),
        ({"timestamp": NOW + 3600}, "timestamp", "not in the future"),
        ({"timestamp": "now"}, "timestamp", "seconds since the epoch"),
        ({"timestamp": True}, "timestamp", "seconds since the epoch"),
    ],
)
def test_a_bad_event_is_rejected_alone(changes: dict[str, Any], field: str, rule: str) -> None:
    rejected = rejection({**GOOD, **changes})
    assert rejected["field"] == field
    assert rule in rejected["rule"]


@pytest.mark.parametrize("event", [None, 7, "accuracy", [("accuracy", 0.9)], {1, 2}])
def test_an_event_that_is_no_mapping_is_rejected(event: object) -> None:
    assert rejection(event)["field"] == "event"


@pytest.mark.parametrize("events", [None, {"accuracy": 0.9}, "events", 7, (event for event in [GOOD])])
def test_events_that_are_no_list_raise(events: object) -> None:
    with pytest.raises(ValueError, match="events must be a list of mappings"):
        raw_events.sort_events(events, NOW)


def test_ten_megabytes_in_one_call_raise() -> None:
    large = {**GOOD, "extras": {"note": "x" * 16_000}}
    with pytest.raises(ValueError, match="events must have at most 8388608 bytes"):
        raw_events.sort_events([large] * 640, NOW)
    with pytest.raises(ValueError, match="bytes in one call"):
        raw_events.sort_events([{**GOOD, "note": "x" * 10_000_000}], NOW)
    with pytest.raises(ValueError, match="events must be at most 100000"):
        raw_events.sort_events([GOOD] * 100_001, NOW)
    with pytest.raises(ValueError, match="payload must have at most 8388608 bytes"):
        wire.unpack(b"\0" * 10_000_000)


def test_numpy_scalars_are_numbers() -> None:
    event = {**GOOD, "accuracy": np.float32(0.5), "extras": {"steps": np.int64(3)}, "timestamp": np.float64(NOW)}
    found = raw_events.sort_events([event], NOW)
    assert not found.rejected
    (batch,) = sealing.split_rows(found.rows["m"])
    assert batch.columns["accuracy"].values.tolist() == [0.5]
    assert batch.columns["steps"].values.tolist() == [3.0]


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 1, 3, tzinfo=timezone(timedelta(hours=3))),
        np.datetime64("2026-11-01"),
        pd.Timestamp("2026-11-01", tz="UTC"),
    ],
)
def test_the_time_of_a_raw_event_may_be_of_any_library(time: object) -> None:
    found = raw_events.sort_events([{**GOOD, "timestamp": time}], NOW)
    assert not found.rejected
    assert [row[1] for row in found.rows["m"]] == [1_793_491_200.0]


@pytest.mark.parametrize("absent", [None, np.ma.masked, pd.NA])
def test_what_a_library_masks_is_absent_in_a_raw_event(absent: object) -> None:
    event = {**GOOD, "precision": absent, "extras": {"loss": absent, "auc": 0.5}, "n": absent}
    found = raw_events.sort_events([event], NOW)
    assert not found.rejected
    ((_, _, metrics, n),) = found.rows["m"]
    assert (metrics, n) == ({"accuracy": GOOD["accuracy"], "auc": 0.5}, None)


@pytest.mark.parametrize("time", [True, timedelta(seconds=5), datetime(2026, 11, 1), "2026-11-01", pd.NaT, math.nan, -1.0])  # noqa: DTZ001  refused
def test_what_is_no_time_rejects_its_raw_event(time: object) -> None:
    assert rejection({**GOOD, "timestamp": time})["field"] == "timestamp"


def test_a_numbered_call_keeps_a_row_for_a_rejected_event() -> None:
    found = raw_events.sort_events([GOOD, {**GOOD, "accuracy": 7}, GOOD], NOW, one_model=True)
    (packed,) = sealing.packed_rows(found.rows["m"])
    batch = wire.unpack(packed.payload)
    assert batch.rows == 3
    verdict = wire.check(batch, NOW)
    assert verdict.ok is not None
    assert verdict.ok.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="of one model, got 2"):
        raw_events.sort_events([GOOD, {**GOOD, "model_name": "other"}], NOW, one_model=True)


def test_a_rejected_event_of_a_known_model_is_counted_and_begins_no_model() -> None:
    bad = [{**GOOD, "accuracy": 7}, {**GOOD, "model_name": "other", "accuracy": 7}, {"model_name": "a*"}, "text"]
    assert raw_events.sort_events(bad, NOW).rows == {}
    found = raw_events.sort_events(bad, NOW, known={"m"})
    assert found.indices == {"m": [0]}
    assert wire.check(wire.batch_of_rows(found.rows["m"]), NOW).rejected == 1
    assert len(found.rejected) == 4


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_payload_reads_the_same_as_bytes_and_as_it_travels(rows: int) -> None:
    payload = wire.pack(
        wire.batch_of_columns(
            {"accuracy": np.full(rows, 0.5) + np.arange(rows) * 1e-6}, version="v1", timestamps=NOW, now_s=NOW
        )
    )
    travelled = wire.arrived(wire.for_travel(payload))
    assert bytes(travelled) == payload
    assert (
        wire.unpack(travelled).columns["accuracy"].values.tolist() == wire.unpack(payload).columns["accuracy"].values.tolist()
    )
    for wrong in (np.zeros(4), np.zeros((2, 2), dtype=np.uint8), "text", None):
        with pytest.raises(ValueError, match="payload must be bytes"):
            wire.unpack(wrong)


# --- columns ---------------------------------------------------------------------------------------------------


def columns(metrics: dict[str, Any], **more: Any) -> wire.Batch:
    return wire.batch_of_columns(metrics, **{"version": "v1", "timestamps": None, "now_s": NOW} | more)


@pytest.mark.parametrize(
    ("metrics", "more", "message"),
    [
        ({"accuracy": [0.1, 0.2], "recall": [0.1]}, {}, "recall must have as many rows"),
        ({"accuracy": np.zeros((2, 2))}, {}, "accuracy must have one dimension, got 2"),
        ({"accuracy": np.float64(0.5)}, {}, "accuracy must have one dimension, got 0"),
        ({"accuracy": np.array([0.5, None], dtype=object)}, {}, "accuracy must be a column of numbers, got dtype object"),
        ({"accuracy": ["0.5"]}, {}, "column of numbers"),
        ({"accuracy": "0.5"}, {}, "column of numbers, got a text"),
        ({"accuracy": [True]}, {}, "got dtype bool"),
        ({"accuracy": [[1], [1, 2]]}, {}, "column of numbers"),
        ({}, {}, "at least one"),
        ([0.5], {}, "mapping of names to columns"),
        ({"timestamp": [1.0]}, {}, "must not be the name of a field"),
        ({7: [1.0]}, {}, "metric name must be a string"),
        ({"accuracy": []}, {}, "accuracy must have 1 to"),
        ({"accuracy": [0.5]}, {"version": 7}, "model_version must be a string"),
        ({"accuracy": [0.5]}, {"timestamps": [NOW, NOW]}, "timestamps must have as many rows"),
    ],
)
def test_bad_columns_raise_and_name_the_column(metrics: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        columns(metrics, **more)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [("accuracy", 1.2, "accuracy"), ("accuracy", math.nan, "accuracy"), ("loss", math.inf, "loss"), ("recall", -0.1, "recall")],
)
def test_a_bad_value_in_a_column_is_rejected_alone(name: str, value: float, field: str) -> None:
    batch = wire.unpack(wire.pack(columns({name: [0.5, value, 0.5]})))
    verdict = wire.check(batch, NOW)
    assert verdict.rejected == 1
    assert verdict.ok is not None
    assert verdict.ok.tolist() == [True, False, True]
    assert verdict.listed[0]["index"] == 1
    assert verdict.listed[0]["field"] == field


@pytest.mark.parametrize("time", [-1.0, math.nan, NOW * 1000, NOW + 3600])
def test_a_bad_time_in_a_column_is_rejected_alone(time: float) -> None:
    batch = columns({"accuracy": [0.5, 0.5]}, timestamps=[NOW, time])
    assert [r["field"] for r in wire.check(batch, NOW).listed] == ["timestamp"]


def test_rows_that_were_counted_before_are_not_rejected_again() -> None:
    batch = columns({"accuracy": [7.0, 0.5, 7.0]})
    assert wire.check(batch, NOW, skip=1).rejected == 1
    assert wire.check(batch, NOW, skip=3).rejected == 0


def test_the_callers_array_is_copied() -> None:
    values = np.full(3, 0.5)
    batch = columns({"accuracy": values})
    values[:] = 0
    assert batch.columns["accuracy"].values.tolist() == [0.5] * 3


# --- packed batches --------------------------------------------------------------------------------------------

GOOD_PAYLOAD = wire.pack(wire.batch_of_columns({"accuracy": [0.5, 0.6]}, version="v1", timestamps=None, now_s=NOW))


def altered(**changes: Any) -> bytes:
    message = msgpack.unpackb(GOOD_PAYLOAD)
    message.update(changes)
    return bytes(msgpack.packb({key: value for key, value in message.items() if value is not ...}))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (GOOD_PAYLOAD[:-3], "whole msgpack map"),
        (b"", "whole msgpack map"),
        (GOOD_PAYLOAD + b"x", "whole msgpack map"),
        (b"\xc1", "whole msgpack map"),
        (b'{"v": 1}', "msgpack map"),
        (msgpack.packb([1, 2]), "must be a msgpack map, got list"),
        (b"\x91" * 5000, "whole msgpack map"),
        ("text", "payload must be bytes, got str"),
        (altered(v=3), "v must be 1 or 2, a schema that this build knows, got 3"),
        (altered(v=True), "v must be 1 or 2"),
        (altered(v=[]), "v must be 1 or 2"),
        (altered(v=...), "v must be 1 or 2"),
        (altered(weights=b"\0" * 16), "no other key, got 'weights'"),
        (altered(v=2, weights=b"\0" * 15), "weights must be 16 bytes"),
        (altered(n=0), "n must be a whole number"),
        (altered(n=True), "n must be a whole number"),
        (altered(n=3), "accuracy must be 24 bytes"),
        (altered(more=1), "no other key, got 'more'"),
        (altered(versions=[]), "versions must be a list"),
        (altered(versions=["a", "b"]), "which must say the version"),
        (altered(versions=["a", "b"], which=b"\1\0\2\0"), "which must be below 2"),
        (altered(which=b"\0"), "which must be 4 bytes"),
        (altered(columns=[1]), "columns must be a map"),
        (altered(columns={"accuracy": b"\0" * 12}), "accuracy must be 16 bytes"),
        (altered(columns={"accuracy": [b"\0" * 16, b"\0\0"]}), "mask of 2 bits"),
        (altered(columns={"": b"\0" * 16}), "column name must have 1 to"),
        (altered(texts={"region": ["eu"]}), "region must be a list of 2 texts"),
        (altered(texts={"region": ["eu", 7]}), "region must be a list of 2 texts"),
        (altered(time=b"\0" * 15), "time must be 16 bytes"),
    ],
    ids=lambda given: given[:40] if isinstance(given, str) else "payload",
)
def test_a_broken_payload_raises(payload: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wire.unpack(payload)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_anything_but_raise_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="payload"):
        wire.unpack(payload)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(GOOD_PAYLOAD) - 1), st.integers(0, 255))
def test_a_flipped_byte_raises_or_is_a_batch(position: int, byte: int) -> None:
    broken = bytearray(GOOD_PAYLOAD)
    broken[position] = byte
    try:
        batch = wire.unpack(bytes(broken))
    except ValueError:
        return
    wire.check(batch, NOW)


weights = st.one_of(st.none(), st.floats(1e-3, 1e12))
cells = st.dictionaries(
    st.sampled_from(["accuracy", "loss", "region", "steps"]),
    st.one_of(st.none(), st.floats(), st.integers(-(2**53), 2**53), st.text(max_size=5).filter(str.isprintable)),
    max_size=4,
)
rows = st.lists(st.tuples(st.sampled_from(["v1", "v2"]), st.floats(0, NOW), cells, weights), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_rows_come_out_of_a_packed_batch_as_they_went_in(events: list[wire.Row]) -> None:
    batch = wire.unpack(wire.pack(wire.batch_of_rows(events)))
    assert batch.rows == len(events)
    for row, (version, time, metrics, n) in enumerate(events):
        assert batch.versions[0 if batch.which is None else batch.which[row]] == version
        assert batch.times[row] == time
        assert weight(batch, row) == n
        for name in ("accuracy", "loss", "region", "steps"):
            column, texts = batch.columns.get(name), batch.texts.get(name)
            number = None
            if column is not None and (column.present is None or column.present[row]):
                number = column.values[row]
            text = None if texts is None else texts[row]
            want = metrics.get(name)
            if want is None:
                assert number is None
                assert text is None
            elif isinstance(want, str):
                assert text == want
                assert number is None
            else:
                assert number is not None
                np.testing.assert_equal(float(number), float(want))


# Small limits, so that the examples that Hypothesis finds reach them all.
many_names = st.dictionaries(
    st.sampled_from([f"metric-{i}" for i in range(12)] + ["accuracy", "\u20ac" * 60]),
    st.one_of(
        st.none(), st.floats(), st.integers(), st.text(max_size=60), st.sampled_from(["\ud800", "x" * 500, "\u20ac" * 150])
    ),
    max_size=9,
)
many_rows = st.lists(
    st.tuples(st.sampled_from([f"v{i}" for i in range(6)]), st.floats(0, NOW), many_names, weights), max_size=40
)


def limited(patched: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Set a limit of the wire to another value, in every file that reads it."""
    for module in (wire, checking, making, packing):
        if hasattr(module, name):
            patched.setattr(module, name, value)


@pytest.fixture
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {
            "MAX_COLUMNS": 8,
            "MAX_VERSIONS": 3,
            "MAX_CALL_BYTES": 4096,
            "MAX_CELLS": 200,
            "MAX_EXTRAS_BYTES": 300,
        }.items():
            limited(patched, name, value)
        patched.setattr(sealing, "PART_BYTES", 1024)
        yield


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many_rows)
def test_rows_are_sealed_into_batches_that_the_wire_takes_each_once_and_in_order(small_limits: None, events: list[Any]) -> None:
    sealed = sealing.packed_rows(events)
    found = [(batch, row) for packed in sealed for batch in [wire.unpack(packed.payload)] for row in range(batch.rows)]
    assert [packed.rows for packed in sealed] == [wire.unpack(packed.payload).rows for packed in sealed]
    assert len(found) == len(events)
    emptied = [packed.emptied for packed in sealed for _ in range(packed.rows)]
    for (version, time, metrics, n), (batch, row), rejection in zip(events, found, emptied, strict=True):
        assert batch.versions[0 if batch.which is None else batch.which[row]] == version
        assert batch.times[row] == time
        cells = {k: c.values[row] for k, c in batch.columns.items() if c.present is None or c.present[row]}
        texts = {k: t[row] for k, t in batch.texts.items() if t[row] is not None}
        if rejection is not None:
            assert not cells
            assert not texts
            assert "\ud800" in metrics.values() or len(metrics) > 8 or any(len(str(v)) > 300 for v in metrics.values())
            continue
        assert weight(batch, row) == n
        assert texts == {name: value for name, value in metrics.items() if isinstance(value, str)}
        numbers = {name: value for name, value in metrics.items() if value is not None and not isinstance(value, str)}
        assert cells.keys() == numbers.keys()
        for name, value in numbers.items():
            np.testing.assert_equal(float(cells[name]), as_float(value))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many_rows)
def test_a_rows_verdict_is_the_same_alone_and_among_others(small_limits: None, events: list[Any]) -> None:
    def verdicts(sealed: list[sealing.Packed]) -> list[bool]:
        told: list[bool] = []
        for packed in sealed:
            ok = wire.check(wire.unpack(packed.payload), NOW).ok
            told += [True] * packed.rows if ok is None else ok.tolist()
        return told

    assert verdicts(sealing.packed_rows(events)) == [
        verdict for event in events for verdict in verdicts(sealing.packed_rows([event]))
    ]


def test_the_names_of_other_events_do_not_count_as_text_of_an_event() -> None:
    names: list[wire.Row] = [("v1", NOW, {f"{i:03}" + "x" * 190: 1.0}, None) for i in range(200)]
    text: wire.Row = ("v1", NOW, {"accuracy": 0.9, "note": "short"}, None)
    (packed,) = sealing.packed_rows([*names, text])
    assert wire.check(wire.unpack(packed.payload), NOW).rejected == 0


@given(st.integers(1, 2000), st.integers(1, 8))
def test_columns_are_cut_into_batches_that_the_wire_takes(rows: int, names: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sealing, "PART_BYTES", 1024)
        limited(patched, "MAX_CALL_BYTES", 2048)
        batch = columns(
            {f"metric-{i}": np.arange(float(rows)) * (i + 1) for i in range(names)}, timestamps=np.arange(float(rows))
        )
        found = [wire.unpack(packed.payload) for packed in sealing.packed_columns(batch)]
    assert np.concatenate([part.times for part in found]).tolist() == list(range(rows))
    assert all(part.columns.keys() == batch.columns.keys() for part in found)
    assert np.concatenate([part.columns["metric-0"].values for part in found]).tolist() == list(range(rows))


def test_the_real_limits_hold_whatever_a_column_holds() -> None:
    worst = columns({"\u20ac" * 190 + f"{i:03}": np.arange(3000.0) for i in range(256)}, version="\u20ac" * 200)
    assert sum(wire.unpack(packed.payload).rows for packed in sealing.packed_columns(worst)) == 3000


def test_a_small_payload_cannot_take_much_memory() -> None:
    constant = np.zeros(1).tobytes()
    message = {"v": 1, "n": 1_000_000, "versions": ["v1"], "time": constant, "columns": {f"m{i}": constant for i in range(256)}}
    payload = bytes(msgpack.packb(message))
    assert len(payload) < 5000
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"at most 4194304 cells \(rows times columns\), got 256000000"):
        wire.unpack(payload)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("payload", "rows"),
    [(b"", 1), (GOOD_PAYLOAD, 2), (GOOD_PAYLOAD[:-3], 1), (altered(n=7), 7), (altered(n="x"), 1), (altered(n=10**12), 1)],
)
def test_a_refused_payload_says_how_many_events_it_means_to_hold(payload: bytes, rows: int) -> None:
    assert wire.declared_rows(payload) == rows


def weight(batch: wire.Batch, row: int) -> float | None:
    found = batch.weights
    return None if found is None or (found.present is not None and not found.present[row]) else float(found.values[row])


def as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


@settings(max_examples=50, deadline=None)
@given(rows, st.integers(0, 30))
def test_a_verdict_counts_each_row_once(events: list[wire.Row], skip: int) -> None:
    batch = wire.batch_of_rows(events)
    skip = min(skip, batch.rows)
    verdict = wire.check(batch, NOW, skip)
    ok = np.ones(batch.rows, bool) if verdict.ok is None else verdict.ok
    assert verdict.rejected == int((~ok[skip:]).sum()) == len(verdict.listed)
    bad_values = 0
    for row, (_, _, metrics, _) in enumerate(events):
        numbers = {k: v for k, v in metrics.items() if v is not None and not isinstance(v, str)}
        finite = {k: v for k, v in numbers.items() if math.isfinite(v)}
        fine = bool(finite) and 0 <= finite.get("accuracy", 0.5) <= 1
        assert bool(ok[row]) == fine
        if fine and row >= skip:
            bad_values += len(numbers) - len(finite)
        kept = {k: c.values[row] for k, c in verdict.batch.columns.items() if c.present is None or c.present[row]}
        assert kept == finite
    assert verdict.bad_values == bad_values
    assert (verdict.bad_value is None) == (bad_values == 0)


@pytest.mark.parametrize(
    ("producer", "sequence"), [("p", None), (None, 0), ("", 0), (7, 0), ("p", -1), ("p", True), ("p", 1.0), ("p", 2**63)]
)
def test_a_producer_and_its_sequence_come_together(producer: object, sequence: object) -> None:
    with pytest.raises(ValueError, match=r"producer|sequence"):
        messages.check_sequence(producer, sequence)

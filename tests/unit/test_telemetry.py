"""What Prometheus gets from the store's facts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.util.metrics import Gauge

from actors import telemetry
from actors.clock import Instant
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import tables as detector_tables
from actors.detection.tables import DETECTOR, pack
from actors.retraining import model_tables
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.gate import Cooldown
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, StoreReader
from actors.telemetry import OTHERS, STATES, Facts, Gauges, Reader, Sample, Telemetry, label, name_of

NOW = Instant(1_700_000_000.0, 1000.0, "boot")


def told(events: int, state: str = "stable", versions: tuple[str, ...] = ("v1",)) -> dict[str, Any]:
    return {
        "events": events,
        "duplicates": 2,
        "rejected": 1,
        "state": state,
        "last_at": 1_700_000_000.0 - events,
        "versions": {version: {} for version in versions},
    }


def facts(models: dict[str, Any], **more: Any) -> Facts:
    empty: dict[str, Any] = {"detections": {}, "retrains": {}, "cooldowns": {}}
    stored = {"models": models, "refused": {"events": 5, "last": None}, "retrains": {}, "tuner": {"running_trials": 3}}
    return Facts(stored=stored, **(empty | more))


def series(samples: list[Sample]) -> dict[tuple[str, ...], float]:
    found = {
        (each.name.removeprefix("visutility_"), *(each.labels[key] for key in sorted(each.labels))): each.value
        for each in samples
    }
    assert len(found) == len(samples), "one value for a series"
    return found


def test_every_name_of_the_contract_is_there_with_its_labels() -> None:
    samples = Telemetry(build="0.1.0+abc").samples(
        facts(
            {"fraud": told(10, "drifting", ("v1", "v2"))},
            detections={("fraud", "accuracy"): 4},
            retrains={("fraud", "done"): 2},
            cooldowns={"fraud": 12.5},
        )
    )
    states: dict[tuple[str, ...], float] = {("model_state", "fraud", state): float(state == "drifting") for state in STATES}
    assert series(samples) == states | {
        ("build_info", "0.1.0+abc"): 1,
        ("running_trials",): 3,
        ("refused_events_total",): 5,
        ("events_total", "fraud", "accepted"): 10,
        ("events_total", "fraud", "duplicate"): 2,
        ("events_total", "fraud", "rejected"): 1,
        ("drift_state", "fraud"): STATES["drifting"],
        ("last_event_timestamp_seconds", "fraud"): 1_699_999_990.0,
        ("cooldown_remaining_seconds", "fraud"): 12.5,
        ("model_info", "fraud", "v2"): 1,
        ("drift_detections_total", "accuracy", "fraud"): 4,
        ("retrains_total", "fraud", "done"): 2,
    }


def test_the_errors_lost_their_price_and_a_model_that_was_given_up_are_series_of_their_own() -> None:
    rule = {"when": "shortfall", "lost": 180.0, "price": 250.0, "missing": []}
    models = {"fraud": told(10) | {"retrain": rule, "gave_up": 3}, "plain": told(5) | {"retrain": None}}
    models["without a promise"] = told(5) | {"retrain": rule | {"lost": None, "price": None}}
    telemetry = Telemetry(build="b")
    found = series(telemetry.samples(facts(models)))
    assert found["errors_lost", "fraud"] == 180.0
    assert found["retrain_price", "fraud"] == 250.0
    assert found["retrains_gave_up", "fraud"] == 3
    assert [key for key in found if key[0] in {"errors_lost", "retrain_price", "retrains_gave_up"}] == [
        ("retrains_gave_up", "fraud"),
        ("errors_lost", "fraud"),
        ("retrain_price", "fraud"),
    ]
    over = series(telemetry.samples(facts({"fraud": told(10) | {"retrain": rule}})))
    assert over["retrains_gave_up", "fraud"] == 0, "a trigger has begun the count anew"
    assert telemetry.skipped == 0


def test_the_labels_of_a_model_are_series_to_join_with_and_go_with_the_label() -> None:
    telemetry = Telemetry(build="b", max_models=1)
    models = {"fraud": told(10, "drifting") | {"labels": {"team": "Betrug é", "tier": "1"}}}
    models["among the others"] = told(1) | {"labels": {"team": "x"}}
    found = series(telemetry.samples(facts(models)))
    assert {key: value for key, value in found.items() if key[0] == "model_label"} == {
        ("model_label", "team", "fraud", "Betrug %C3%A9"): 1,
        ("model_label", "tier", "fraud", "1"): 1,
    }
    over = series(telemetry.samples(facts({"fraud": told(10) | {"labels": {"tier": "1"}}})))
    assert (over["model_label", "team", "fraud", "Betrug %C3%A9"], over["model_label", "tier", "fraud", "1"]) == (0, 1)


def test_a_series_that_is_over_is_told_once_more_as_zero() -> None:
    telemetry = Telemetry(build="b")
    telemetry.samples(facts({"fraud": told(1)}, retrains={("fraud", "running"): 1}))
    over = facts({"fraud": told(1, versions=("v1", "v2"))}, retrains={("fraud", "done"): 1})
    found = series(telemetry.samples(over))
    assert (found["retrains_total", "fraud", "running"], found["retrains_total", "fraud", "done"]) == (0, 1)
    assert (found["model_info", "fraud", "v1"], found["model_info", "fraud", "v2"]) == (0, 1)
    again = series(telemetry.samples(over))
    assert found.keys() - again.keys() == {("retrains_total", "fraud", "running"), ("model_info", "fraud", "v1")}


def test_models_beyond_the_bound_are_one_series_and_the_worst_of_them_shows() -> None:
    models = {f"m{n}": told(1) for n in range(5)} | {"sick": told(7, "drifting"), "mute": told(0, "no_data")}
    telemetry = Telemetry(build="b", max_models=1)
    found = series(telemetry.samples(facts(models, retrains={("m1", "done"): 1, ("m2", "done"): 2})))
    assert found["drift_state", "mute"] == STATES["no_data"], "what wants a person gets a series first"
    assert found["drift_state", OTHERS] == STATES["drifting"]
    assert found["model_state", OTHERS, "drifting"] == 1
    assert [state for state in STATES if found["model_state", "mute", state]] == ["no_data"]
    assert found["events_total", OTHERS, "accepted"] == 12
    assert found["retrains_total", OTHERS, "done"] == 3
    assert not any(key[0] == "model_info" and key[1] == OTHERS for key in found)


def test_a_model_that_has_series_keeps_them() -> None:
    telemetry = Telemetry(build="b", max_models=1)
    telemetry.samples(facts({"first": told(1)}))
    found = series(telemetry.samples(facts({"first": told(1), "worse": told(1, "drifting")})))
    assert ("drift_state", "first") in found
    assert ("drift_state", "worse") not in found


def test_the_reader_counts_an_episode_once_and_keeps_it_when_retention_takes_it(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    part = store.part(DETECTOR, 0)

    def episode(number: int) -> dict[str, Any]:
        record = pack({"metric": "recall", "closed_at": None})
        row = {"id": f"s-e-{number}", "model": "fraud", "version": "1", "ordinal": number, "open": 0, "opened_at": 1.0}
        return row | {"record": record}

    with part.write() as connection:
        connection.execute(detector_tables.episodes.insert(), [episode(n) for n in range(3)])
    reader = Reader(store)
    assert reader.read(NOW).detections == {("fraud", "recall"): 3}
    with part.write() as connection:
        connection.execute(detector_tables.episodes.delete())
        connection.execute(detector_tables.episodes.insert(), [episode(9)])
    assert reader.read(NOW).detections == {("fraud", "recall"): 4}
    store.close()


def test_the_reader_gives_what_is_left_of_a_cooldown(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    with store.part(DISPATCHER).write() as connection:
        model_tables.put_cooldowns(connection, {"fraud": Cooldown("s-r-1", Countdown(NOW, 100.0))})
    later = Instant(NOW.wall_s + 86_400.0, NOW.boot_s + 40.0, NOW.boot_id)
    assert Reader(store).read(later).cooldowns == {"fraud": 60.0}
    store.close()


def one_more_episode(number: int, record: bytes) -> dict[str, Any]:
    row = {"id": f"s-e-{number}", "model": "fraud", "version": "1", "ordinal": number, "open": 0, "opened_at": 1.0}
    return row | {"record": record}


class RayGauge:
    """Ray's own gauge, which checks and encodes what it is given, and notes what it has taken."""

    taken: list[tuple[str, dict[str, str], float]]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name = name
        self._gauge = Gauge(name, description=description, tag_keys=tag_keys)

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._gauge.set(value, tags=tags)
        self.taken.append((self._name, tags, value))


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> Gauges:
    monkeypatch.setattr(RayGauge, "taken", [], raising=False)
    return Gauges(RayGauge)


ODD_NAMES = ["modèle", "50%", "名前", "a\x00b", "line\nbreak", "\udc80", '"quoted"', "back\\slash", OTHERS, "🙂"]


def test_models_of_any_name_are_exported_by_rays_own_gauge(gauges: Gauges) -> None:
    models = {name: told(5, "drifting", (f"{name}-v1",)) for name in [*ODD_NAMES, "plain"]}
    telemetry = Telemetry(build="0.1.0+é")
    wanted = telemetry.samples(
        facts(
            models,
            detections={(name, f"{name}-metric"): 2 for name in models},
            retrains={(name, "done"): 3 for name in models},
        )
    )
    assert gauges.set(wanted, skipped=telemetry.skipped) == 0
    events = {
        name_of(tags["model"]): value
        for name, tags, value in RayGauge.taken
        if name == "visutility_events_total" and tags["outcome"] == "accepted"
    }
    assert events == dict.fromkeys(models, 5.0)
    assert {name_of(tags["metric"]) for _, tags, _ in RayGauge.taken if "metric" in tags} == {f"{m}-metric" for m in models}
    assert len(RayGauge.taken) == len(wanted) + 1
    assert RayGauge.taken[-1] == ("visutility_series_skipped", {}, 0.0)


def test_a_series_that_rays_gauge_refuses_is_skipped_and_counted_and_the_others_arrive(
    gauges: Gauges, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Sample("visutility_drift_state", {"model": "modèle"}, 1.0)
    incomplete = Sample("visutility_events_total", {"model": "m"}, 1.0)
    good = [Sample("visutility_drift_state", {"model": name}, 1.0) for name in ("first", "last")]
    for _ in range(2):
        with caplog.at_level(logging.ERROR):
            assert gauges.set([good[0], bad, incomplete, good[1]], skipped=1) == 3
    assert [(name, tags) for name, tags, _ in RayGauge.taken[:2]] == [(each.name, dict(each.labels)) for each in good]
    assert RayGauge.taken[2] == ("visutility_series_skipped", {}, 3.0)
    assert len(caplog.records) == 2, "each is logged once"


def test_a_model_whose_state_cannot_be_exported_takes_no_other_along(gauges: Gauges, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(build="b")
    with caplog.at_level(logging.ERROR):
        found = telemetry.samples(facts({"broken": {"state": "stable", "events": 1}, "fine": told(10)}))
    assert telemetry.skipped == 1
    assert series(found)["events_total", "fine", "accepted"] == 10
    assert "broken" in caplog.text


def test_an_episode_that_cannot_be_read_is_skipped_and_counted(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    fine = pack({"metric": "recall"})
    with store.part(DETECTOR, 0).write() as connection:
        rows = [one_more_episode(n, record) for n, record in enumerate([fine, b"\xc1", pack({}), fine])]
        connection.execute(detector_tables.episodes.insert(), rows)
    reader = Reader(store)
    for _ in range(2):
        found = reader.read(NOW)
        assert (found.detections, found.unreadable) == ({("fraud", "recall"): 2}, 2)
    store.close()


@given(st.text(st.characters(codec=None), max_size=40))
def test_a_label_is_ascii_and_gives_its_name_back(name: str) -> None:
    assert label(name).isascii()
    assert label(name).isprintable()
    assert name_of(label(name)) == name
    assert label(name) != OTHERS


@given(st.text("ab%é(oth2FrsC\x00", max_size=9), st.text("ab%é(oth2FrsC\x00", max_size=9))
def test_two_names_never_share_a_label(one: Any, other: Any) -> None:
    assert (label(one) == label(other)) == (one == other)


def test_a_store_that_is_deleted_is_exported_as_down_and_as_up_again_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    url = f"sqlite:///{folder}"
    store = Store(url)
    store.part(DETECTOR, 0)
    store.part(DISPATCHER)
    up: list[bool] = []

    class Recorded:
        def set(self, _samples: object, *, skipped: int) -> None:
            assert skipped == 0

        def store_is_up(self, *, is_up: bool) -> None:
            up.append(is_up)

    class Clock:
        def now(self) -> Instant:
            return NOW

    async def next_round(_seconds: float) -> None:
        match len(up):
            case 1:
                (folder / "detector-0.db").rename(tmp_path / "aside")
            case 2:
                (tmp_path / "aside").rename(folder / "detector-0.db")
            case 3:
                raise asyncio.CancelledError

    monkeypatch.setattr(telemetry, "Gauges", Recorded)
    monkeypatch.setattr(asyncio, "sleep", next_round)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(telemetry.export(lambda: StoreReader(url), Clock(), build="b"))
    assert up == [True, False, True]


def test_the_public_url_of_the_page_is_exported_where_it_is_configured(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/store")) as store:
        store_settings(store, parse({"ui": {"url": "https://drift.example.com"}}, "test"), NOW.wall_s)
        found = Reader(StoreReader(f"sqlite:///{tmp_path}/store")).read(NOW)
    assert Sample("visutility_page_info", {"url": "https://drift.example.com"}, 1.0) in Telemetry(build="b").samples(found)
    without = Telemetry(build="b").samples(facts({}))
    assert "visutility_page_info" not in {each.name for each in without}

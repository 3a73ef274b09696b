"""What Prometheus is told from the store's facts."""

from __future__ import annotations

from typing import Any

from actors.clock import Instant
from actors.detection import tables as detector_tables
from actors.detection.tables import pack
from actors.retraining import tables as dispatcher_tables
from actors.storage import Store
from actors.telemetry import OTHERS, STATES, Facts, Reader, Sample, Telemetry

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
    return Facts(stored={"models": models, "retrains": {}, "tuner": {"running_trials": 3}}, **(empty | more))


def series(samples: list[Sample]) -> dict[tuple[str, ...], float]:
    found = {
        (each.name.removeprefix("visutility_"), *(each.labels[key] for key in sorted(each.labels))): each.value
        for each in samples
    }
    assert len(found) == len(samples), "one value for a series"
    return found


def test_every_name_of_the_contract_is_there_with_its_labels():
    samples = Telemetry(build="0.1.0+abc").samples(
        facts(
            {"fraud": told(10, "drifting", ("v1", "v2"))},
            detections={("fraud", "accuracy"): 4},
            retrains={("fraud", "done"): 2},
            cooldowns={"fraud": 12.5},
        )
    )
    assert series(samples) == {
        ("build_info", "0.1.0+abc"): 1,
        ("running_trials",): 3,
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


def test_a_series_that_is_over_is_told_once_more_as_zero():
    telemetry = Telemetry(build="b")
    telemetry.samples(facts({"fraud": told(1)}, retrains={("fraud", "running"): 1}))
    over = facts({"fraud": told(1, versions=("v1", "v2"))}, retrains={("fraud", "done"): 1})
    found = series(telemetry.samples(over))
    assert (found["retrains_total", "fraud", "running"], found["retrains_total", "fraud", "done"]) == (0, 1)
    assert (found["model_info", "fraud", "v1"], found["model_info", "fraud", "v2"]) == (0, 1)
    again = series(telemetry.samples(over))
    assert found.keys() - again.keys() == {("retrains_total", "fraud", "running"), ("model_info", "fraud", "v1")}


def test_models_beyond_the_bound_are_one_series_and_the_worst_of_them_shows():
    models = {f"m{n}": told(1) for n in range(5)} | {"sick": told(7, "drifting"), "mute": told(0, "no_data")}
    telemetry = Telemetry(build="b", max_models=1)
    found = series(telemetry.samples(facts(models, retrains={("m1", "done"): 1, ("m2", "done"): 2})))
    assert found["drift_state", "mute"] == STATES["no_data"], "what wants a person gets a series first"
    assert found["drift_state", OTHERS] == STATES["drifting"]
    assert found["events_total", OTHERS, "accepted"] == 12
    assert found["retrains_total", OTHERS, "done"] == 3
    assert not any(key[0] == "model_info" and key[1] == OTHERS for key in found)


def test_a_model_that_has_series_keeps_them():
    telemetry = Telemetry(build="b", max_models=1)
    telemetry.samples(facts({"first": told(1)}))
    found = series(telemetry.samples(facts({"first": told(1), "worse": told(1, "drifting")})))
    assert ("drift_state", "first") in found
    assert ("drift_state", "worse") not in found


def test_the_reader_counts_an_episode_once_and_keeps_it_when_retention_takes_it(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store")
    part = store.part("detector-0")

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


def test_the_reader_gives_what_is_left_of_a_cooldown(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store")
    with store.part("dispatcher").write() as connection:
        countdown = dispatcher_tables.Countdown(NOW, 100.0)
        dispatcher_tables.put_cooldown(connection, "fraud", "s-r-1", countdown)
    later = Instant(NOW.wall_s + 86_400.0, NOW.boot_s + 40.0, NOW.boot_id)
    assert Reader(store).read(later).cooldowns == {"fraud": 60.0}
    store.close()

"""A store that build 0.1.0 wrote (schema 1) is taken up: counts, episodes, cooldowns and studies carry over.

`schema-1.json.gz` holds the parts of that store as SQL, and what that build said of it just before it was stopped: models of
which one had drifted and was retrained, one waits for its retrain and one was given a baseline, and a study of six trials.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import status, wire
from actors.clock import Instant
from actors.config.stored import load_stored
from actors.detection.detector import DriftDetector
from actors.detection.tables import DETECTOR
from actors.retraining.dispatcher import RetrainDispatcher
from actors.retraining.offline import read_history
from actors.retraining.tables import DISPATCHER
from actors.storage import SCHEMA_VERSION, SchemaError, Store, StoreReader
from actors.storage.schema import SYSTEM
from actors.tuning.offline import read_study
from actors.tuning.tables import TUNER

WRITTEN: dict[str, Any] = json.loads(gzip.decompress((Path(__file__).parent / "schema-1.json.gz").read_bytes()))
EXPECTED: dict[str, Any] = WRITTEN["expected"]
AFTER_S = 60.0  # so long after it was written the store is taken up


class Clock:
    """A minute after the store was written, on another boot of the machine."""

    def now(self) -> Instant:
        return Instant(EXPECTED["written_at"] + AFTER_S, 100.0, "another boot")


class NoPeers:
    """Nobody answers."""

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        del timeout_s, arguments
        raise RuntimeError(f"nobody answers as {name}.{method}")


@pytest.fixture
def old(tmp_path: Path) -> str:
    folder = tmp_path / "store"
    folder.mkdir()
    for name, text in WRITTEN["parts"].items():
        with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
            connection.executescript(text)
    return f"sqlite:///{folder}"


@pytest.fixture
def url(old: str) -> str:
    with closing(Store(old)) as store:
        store.migrate((DISPATCHER, TUNER, DETECTOR))
    return old


def test_nobody_but_the_start_brings_it_forward(old: str) -> None:
    with closing(Store(old)) as store:
        assert (store.is_new, store.store_id) == (False, "1f8b541d")
        with pytest.raises(SchemaError, match="`visutility start` migrates it"):
            store.part(DETECTOR, 0)
        with pytest.raises(SchemaError, match="`visutility start` migrates it"):
            StoreReader(old)
        migrated = store.migrate((DISPATCHER, TUNER, DETECTOR))
        assert sorted(migrated) == sorted(WRITTEN["parts"])
        assert store.migrate((DISPATCHER, TUNER, DETECTOR)) == []
    kept = Path(old.removeprefix("sqlite:///")) / f"before-schema-{SCHEMA_VERSION}"
    assert sorted(path.stem for path in kept.iterdir()) == sorted(WRITTEN["parts"])


def test_counts_states_episodes_and_configuration_carry_over(url: str) -> None:
    told = status.read_url(url, EXPECTED["written_at"] + AFTER_S)
    assert told["models"].keys() == EXPECTED["models"].keys()
    for model, before in EXPECTED["models"].items():
        now = told["models"][model]
        for what in ("events", "duplicates", "rejected", "state", "open_episodes"):
            assert (model, what, now[what]) == (model, what, before[what])
        assert {name: (each["events"], each["state"]) for name, each in now["versions"].items()} == {
            name: (each["events"], each["state"]) for name, each in before["versions"].items()
        }
    assert {state: told["retrains"][state] for state in EXPECTED["retrains"]} == EXPECTED["retrains"]
    assert told["tuner"] == EXPECTED["tuner"]
    with closing(StoreReader(url)) as store:
        assert load_stored(store).for_model("drifted").cooldown_s == 6 * 3600.0


def test_the_history_and_the_study_carry_over(url: str) -> None:
    found = read_history(url, model=None, limit=100)
    for row, before in zip(
        sorted(found, key=lambda each: each["id"]), sorted(EXPECTED["history"], key=lambda each: each["id"]), strict=True
    ):
        assert dict(row).items() >= before.items()
    study = read_study(url, "kept")
    assert [[trial.id, trial.params, trial.value, trial.state] for trial in study.trials] == EXPECTED["trials"]
    assert study.best is not None
    assert [study.best.id, study.best.params, study.best.value] == EXPECTED["best"]


def test_a_detector_goes_on_where_it_was_and_counts_nothing_twice(url: str) -> None:
    with closing(StoreReader(url)) as store, store.part(DETECTOR, 0).read() as connection:
        producer, high = connection.exec_driver_sql("SELECT producer, high_water FROM producers").one()
    values = np.full(50, 0.9)
    payload = wire.pack(wire.batch_of_columns({"accuracy": values}, version="2", timestamps=None, now_s=EXPECTED["written_at"]))

    async def story() -> list[dict[str, Any]]:
        detector = DriftDetector(
            name="detector:drifted",
            namespace="unit",
            storage=url,
            slot=0,
            clock=Clock(),
            peers=NoPeers(),
            end_stale=lambda _why: None,
        )
        return [
            dict(await detector.ingest(model="drifted", producer=producer, sequence=first, payload=payload))
            for first in (high - 50, high)
        ]

    again, new = asyncio.run(story())
    assert (again["accepted"], again["duplicates"]) == (0, 50)
    assert (new["accepted"], new["duplicates"]) == (50, 0)


def test_an_open_order_is_handed_out_and_a_cooldown_still_holds(url: str) -> None:
    async def story() -> tuple[dict[str, Any], dict[str, Any]]:
        dispatcher = RetrainDispatcher(
            name="dispatcher", namespace="unit", storage=url, clock=Clock(), peers=NoPeers(), environment={}, seed=0
        )
        taken = await dispatcher.take(consumer="c", model="skipped", timeout_s=0.0)
        asked = await dispatcher.request(
            episode="1f8b541d-e-of-another",
            model="drifted",
            version="2",
            metric="accuracy",
            observed_drift=5.0,
            triggered_at=1.0,
            explanation={},
        )
        return dict(taken), dict(asked)

    taken, asked = asyncio.run(story())
    (pending,) = (row for row in EXPECTED["history"] if row["state"] == "pending")
    assert taken["order"]["id"] == pending["id"]
    assert (asked["decision"], round(asked["retry_in_s"] / 3600)) == ("skipped", 6)


def test_the_store_s_own_tables_are_at_the_version_of_this_build(url: str) -> None:
    with closing(Store(url)) as store:
        for part in (store.part(SYSTEM), store.part(DISPATCHER), store.part(TUNER), store.part(DETECTOR, 3)):
            with part.read() as connection:
                assert connection.exec_driver_sql("SELECT version FROM schema_versions").scalars().all() == [SCHEMA_VERSION]

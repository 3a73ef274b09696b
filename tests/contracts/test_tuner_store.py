"""What the tuner keeps, on SQLite and on PostgreSQL: the same to the bit, fenced alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.storage import Fence, StaleEpochError, Store
from actors.tuning import tables as tuner_tables
from actors.tuning.offline import list_studies, read_study
from actors.tuning.state import OWNER
from actors.tuning.tables import TUNER
from tests.database import Postgres, free_port
from tests.unit.tuning.kept import Kept, a_plan


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('tuner')}/store"
        return
    server = Postgres("127.0.0.1", free_port(), "of-this-test-alone")
    yield server.url
    server.stop()


def test_a_study_is_kept_exactly_taken_up_by_a_successor_and_read_by_anybody(storage: str) -> None:
    values = [0.1 + 0.2, 1e-308, -1.7976931348623157e308, 3.0]
    plan = a_plan(name="s/1", trials=4, early_stopping="asha", context={"ü": "\u2603"})
    objective = bytes(range(256))

    async def first() -> tuple[str, str, int, list[Any]]:
        kept = Kept(storage)
        study = (await kept.submit(plan, objective)).study
        (key,) = await kept.staffed(study)
        (lease,) = await kept.leases(study, key, 1)
        await kept.step(study, key, 2, wanted=False, reports=[[lease[0], 1, 1, 0.25], [lease[0], 1, 2, None]])
        leases = await kept.leases(study, key, 3, [[lease[0], 1, "completed", values[0], 1e-5, None]])
        assert (await kept.desk.read(lambda: kept.reader.terms(study)))["objective"] == objective
        await kept.close()
        return study, key, 3, leases

    async def second(study: str, key: str, sequence: int, leases: list[Any]) -> None:
        stale: list[StaleEpochError] = []
        kept = Kept(storage, stale)
        assert await kept.leases(study, key, sequence) == leases
        results = [[t, a, "completed", values[t], 1e-5, None] for t, a, _ in leases]
        while (reply := await kept.step(study, key, sequence := sequence + 1, results))["status"] == "ok":
            results = [[t, a, "completed", values[t], 1e-5, None] for t, a, _ in reply["leases"]]
        other = (await kept.submit(a_plan(name="other", trials=2))).study
        Fence.raise_epoch(Store(storage).part(TUNER), OWNER)
        with pytest.raises(StaleEpochError):
            await kept.staffed(other)
        assert len(stale) == 1
        await kept.close()

    asyncio.run(second(*asyncio.run(first())))
    study = read_study(storage, "s/1")
    assert (study.state, study.seed, study.counts()) == ("DONE", 3, {"COMPLETED": 4})
    assert [trial.value for trial in study.trials] == values
    assert study.best.id == 2
    assert [listed["name"] for listed in list_studies(storage)] == ["other", "s/1"]
    store = Store(storage)
    with store.part(TUNER).read() as connection:
        assert tuner_tables.read_status(connection) == {"studies": 2, "running_trials": 0}
        reports = tuner_tables.read_reports(connection, study.id)
    assert [(r.number, *r.report, r.stop) for r in reports] == [(0, 0, 1, 1, 0.25, False), (1, 0, 1, 2, None, False)]
    store.close()


def test_what_a_store_cannot_hold_never_leaves_a_study_running(storage: str) -> None:
    async def act() -> None:
        kept = Kept(storage)
        study = (await kept.submit(a_plan(name="poisoned", trials=2, context={"half": "\udc80", "nul": "\0"}))).study
        (key,) = await kept.staffed(study)
        results: list[Any] = []
        for sequence in range(1, 5):
            reply = await kept.step(study, key, sequence, results, node="n\0")
            leases = reply["leases"] if reply["status"] == "ok" else []
            results = [[t, a, "failed", None, 1e-5, "half \udc80 and \0"] for t, a, _ in leases]
        summary = await kept.summary("poisoned")
        assert (summary["state"], summary["counts"]["FAILED"]) == ("DONE", 2)
        assert (await kept.trials("poisoned"))[0]["error"] == r"half \udc80 and \x00"
        assert await kept.do(lambda: kept.state.delete("poisoned")) == {"status": "deleted"}
        assert await kept.desk.read(kept.reader.orphans) == [study]
        while await kept.do(lambda: kept.state.sweep(study)):
            pass
        assert await kept.desk.read(kept.reader.orphans) == []
        await kept.close()

    asyncio.run(act())

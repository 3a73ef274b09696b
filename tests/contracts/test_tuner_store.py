"""What the tuner keeps, on SQLite and on PostgreSQL: the same to the bit, fenced alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.clock import SystemClock
from actors.storage import Fence, StaleEpochError, Store
from actors.tuning import tables as tuner_tables
from actors.tuning.rules.plan import check
from actors.tuning.state import OWNER, StudyDesk
from actors.tuning.stored import list_studies, read_study
from actors.tuning.tables import TUNER
from tests.database import Postgres, free_port


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('tuner')}/store"
        return
    server = Postgres("127.0.0.1", free_port(), "of-this-test-alone")
    yield server.url
    server.stop()


class Worker:
    def __init__(self, desk: StudyDesk, study: str, key: str) -> None:
        self.desk, self.study, self.key, self.sequence = desk, study, key, 0

    async def step(self, results: Any = (), **said: Any) -> dict[str, Any]:
        self.sequence += 1
        settings = {"key": self.key, "incarnation": "i", "sequence": self.sequence, "results": results, "wanted": True,
                    "reports": (), "holding": 0, "node": "n", "leaving": False, "load_error": None} | said  # fmt: skip
        return await self.desk.do(lambda: self.desk.step(study=self.study, **settings))


def test_a_study_is_kept_exactly_taken_up_by_a_successor_and_read_by_anybody(storage: str) -> None:
    values = [0.1 + 0.2, 1e-308, -1.7976931348623157e308, 3.0]
    plan = check(name="s/1", space={"x": [0.0, 1.0]}, trials=4, seed=3, early_stopping="asha", context={"ü": "\u2603"})
    objective = bytes(range(256))

    async def first() -> tuple[Worker, list[Any]]:
        desk = StudyDesk(storage, SystemClock(), lambda error: None)
        submitted = await desk.do(lambda: desk.submit(plan, objective))
        ((study, key),) = await desk.do(lambda: desk.staff({submitted["study"]: 1}))
        worker = Worker(desk, study, key)
        (lease,) = (await worker.step())["leases"]
        await worker.step(wanted=False, reports=[[lease[0], 1, 1, 0.25], [lease[0], 1, 2, None]])
        leases = (await worker.step([[lease[0], 1, "completed", values[0], 1e-5, None]]))["leases"]
        assert (await desk.do(lambda: desk.objective(study)))["objective"] == objective
        desk.close()
        return worker, leases

    async def second(worker: Worker, leases: list[Any]) -> None:
        stale: list[StaleEpochError] = []
        desk = StudyDesk(storage, SystemClock(), stale.append)
        worker.desk, worker.sequence = desk, worker.sequence - 1
        assert (await worker.step())["leases"] == leases
        results = [[t, a, "completed", values[t], 1e-5, None] for t, a, _ in leases]
        while (reply := await worker.step(results))["status"] == "ok":
            results = [[t, a, "completed", values[t], 1e-5, None] for t, a, _ in reply["leases"]]
        running = await desk.do(lambda: desk.submit(check(name="other", space={"x": [0, 1]}, trials=2, seed=1), b"pkl:"))
        Fence.raise_epoch(Store(storage).part(TUNER), OWNER)
        with pytest.raises(StaleEpochError):
            await desk.do(lambda: desk.staff({running["study"]: 1}))
        assert len(stale) == 1
        desk.close()

    worker, leases = asyncio.run(first())
    asyncio.run(second(worker, leases))
    study = read_study(storage, "s/1")
    assert (study.state, study.seed, study.counts()) == ("DONE", 3, {"COMPLETED": 4})
    assert [trial.value for trial in study.trials] == values
    assert study.best.id == 2
    assert [listed["name"] for listed in list_studies(storage)] == ["other", "s/1"]
    store = Store(storage)
    with store.part(TUNER).read() as connection:
        assert tuner_tables.read_status(connection) == {"studies": 2, "running_trials": 0}
        reports = tuner_tables.read_reports(connection, study.id)
    assert [(r.number, r.trial, r.step, r.value, r.stop) for r in reports] == [(0, 0, 1, 0.25, False), (1, 0, 2, None, False)]
    store.close()

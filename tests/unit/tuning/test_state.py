"""The desk on a real store: what is answered is kept, whoever dies; what cannot be kept is not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from actors.clock import SystemClock
from actors.storage import Fence, StaleEpochError, Store
from actors.tuning.rules.plan import Plan, check
from actors.tuning.state import OWNER, DeskUnavailableError, StudyDesk
from actors.tuning.tables import TUNER

T = TypeVar("T")


class Ended(Exception):  # noqa: N818
    """This process would have ended."""


def desk_at(storage: str, ended: list[StaleEpochError] | None = None) -> StudyDesk:
    return StudyDesk(storage, SystemClock(), (ended if ended is not None else []).append)


def plan(**changes: Any) -> Plan:
    return check(**{"name": "s", "space": {"x": [0.0, 1.0]}, "trials": 12, "seed": 3} | changes)


def run(storage: str, act: Callable[[StudyDesk], Awaitable[T]], ended: list[StaleEpochError] | None = None) -> T:
    async def acted() -> T:
        desk = desk_at(storage, ended)
        try:
            return await act(desk)
        finally:
            await asyncio.to_thread(desk.close)

    return asyncio.run(acted())


async def step(desk: StudyDesk, study: str, key: str, sequence: int, results: Any = (), **said: Any) -> dict[str, Any]:
    settings = {"key": key, "incarnation": "i", "sequence": sequence, "results": results, "wanted": True, "holding": 0,
                "reports": (), "node": "n", "leaving": False, "load_error": None} | said  # fmt: skip
    return await desk.do(lambda: desk.step(study=study, **settings))


async def begun(desk: StudyDesk, **changes: Any) -> tuple[str, str]:
    """Submit a study and note one worker for it."""
    submitted = await desk.do(lambda: desk.submit(plan(**changes), b"pkl:x"))
    ((study, key),) = await desk.do(lambda: desk.staff({submitted["study"]: 1}))
    return study, key


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def test_a_successor_goes_on_where_the_desk_was_left(storage: str) -> None:
    async def first(desk: StudyDesk) -> tuple[str, str, dict[str, Any]]:
        study, key = await begun(desk, retries=1)
        (lease,) = (await step(desk, study, key, 1))["leases"]
        reply = await step(desk, study, key, 2, [[lease[0], 1, "completed", 0.1, 1e-5, None]])
        (failing, *_) = reply["leases"]
        await step(desk, study, key, 3, [[failing[0], 1, "failed", None, 1e-5, "ValueError"]], wanted=False)
        return study, key, reply

    study, key, reply = run(storage, first)

    async def second(desk: StudyDesk) -> None:
        assert desk.epoch == 0
        again = await step(desk, study, key, 3)  # said again: the answer may have been lost
        assert desk.epoch == 2
        assert again["leases"] == reply["leases"][1:]
        rest = [[trial, attempt, "completed", 0.2, 1e-5, None] for trial, attempt, _ in again["leases"]]
        leases = (await step(desk, study, key, 4, rest))["leases"]
        assert leases[0][:2] == [1, 2]  # what failed is tried again
        summary = await desk.do(lambda: desk.study("s"))
        assert summary["counts"]["COMPLETED"] == 1 + len(rest)
        assert (await desk.do(lambda: desk.trials("s", 0, 1)))[0]["value"] == 0.1

    run(storage, second)


def test_submitting_twice_is_one_study_and_another_search_is_refused(storage: str) -> None:
    async def act(desk: StudyDesk) -> None:
        first = await desk.do(lambda: desk.submit(plan(), b"pkl:x"))
        again = await desk.do(lambda: desk.submit(plan(trials=20), b"pkl:y"))
        assert (first["status"], again["status"], again["study"]) == ("submitted", "running", first["study"])
        assert (await desk.do(lambda: desk.study("s")))["trials"] == 20
        with pytest.raises(ValueError, match="seed of the study 's' must stay 3, got 4"):
            await desk.do(lambda: desk.submit(plan(seed=4), b"pkl:x"))
        assert (await desk.do(lambda: desk.objective(first["study"])))["objective"] == b"pkl:y"

    run(storage, act)


def test_a_finished_study_of_that_name_is_done_and_more_trials_take_it_up(storage: str) -> None:
    async def finish(desk: StudyDesk, trials: int) -> dict[str, Any]:
        submitted = await desk.do(lambda: desk.submit(plan(trials=trials), b"pkl:x"))
        staffed = await desk.do(lambda: desk.staff({submitted["study"]: 1}))
        for study, key in staffed:
            results: list[Any] = []
            for sequence in range(1, 40):
                reply = await step(desk, study, key, sequence, results)
                results = [[t, a, "completed", 0.5, 1e-5, None] for t, a, _ in reply.get("leases", [])]
        return submitted

    async def act(desk: StudyDesk) -> None:
        assert (await finish(desk, 5))["status"] == "submitted"
        summary = await desk.do(lambda: desk.study("s"))
        assert (summary["state"], summary["done"]) == ("DONE", 5)
        assert (await finish(desk, 5))["status"] == "done"
        assert (await finish(desk, 9))["status"] == "resumed"
        summary = await desk.do(lambda: desk.study("s"))
        assert (summary["state"], summary["done"], summary["best"]) == ("DONE", 9, 0)
        assert await desk.do(lambda: desk.stop("s")) == {"status": "ended"}

    run(storage, act)


def test_what_could_not_be_committed_is_not_answered_and_not_remembered(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(desk: StudyDesk) -> None:
        study, key = await begun(desk)
        (lease,) = (await step(desk, study, key, 1))["leases"]
        result = [[lease[0], 1, "completed", 0.1, 1e-5, None]]
        with monkeypatch.context() as broken:
            broken.setattr(desk._writer, "write", _disk_full)
            with pytest.raises(DeskUnavailableError, match="disk"):
                await step(desk, study, key, 2, result)
        assert (await desk.do(lambda: desk.study("s")))["done"] == 0  # memory was ahead of the store, and was dropped
        reply = await step(desk, study, key, 2, result)
        assert [trial for trial, _, _ in reply["leases"]] == [1, 2, 3, 4]
        assert (await desk.do(lambda: desk.study("s")))["done"] == 1

    run(storage, act)


def _disk_full(*_arguments: Any) -> None:
    raise OperationalError("insert", {}, Exception("database or disk is full"))


def test_a_successor_ends_a_desk_at_its_next_commit(storage: str) -> None:
    ended: list[StaleEpochError] = []

    async def act(desk: StudyDesk) -> None:
        study, key = await begun(desk)
        await step(desk, study, key, 1)
        Fence.raise_epoch(Store(storage).part(TUNER), OWNER)
        with pytest.raises(StaleEpochError):
            await step(desk, study, key, 2, [[0, 1, "completed", 0.1, 1e-5, None]])
        assert len(ended) == 1

    run(storage, act, ended)

    async def successor(desk: StudyDesk) -> None:
        assert (await desk.do(lambda: desk.study("s")))["done"] == 0

    run(storage, successor)


def test_a_strategy_that_cannot_be_made_again_fails_its_study_and_no_other(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    class Mine:
        def __init__(self, space: Any, *, seed: int) -> None: ...

        def next_params(self) -> dict[str, Any]:
            return {"x": 0.5}

    module = types.ModuleType("module_of_the_user")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "module_of_the_user", module)

    async def first(desk: StudyDesk) -> None:
        study, key = await begun(desk, strategy="module_of_the_user:Mine")
        await step(desk, study, key, 1)
        await desk.do(lambda: desk.submit(plan(name="other"), b"pkl:x"))

    run(storage, first)
    monkeypatch.delitem(sys.modules, "module_of_the_user")

    async def second(desk: StudyDesk) -> None:
        summary = await desk.do(lambda: desk.study("s"))
        assert summary["state"] == "FAILED"
        assert "module_of_the_user" in summary["error"]
        assert (await desk.do(lambda: desk.study("other")))["state"] == "RUNNING"

    run(storage, second)


def test_jobs_that_wait_together_are_committed_together(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(desk: StudyDesk) -> None:
        submitted = await desk.do(lambda: desk.submit(plan(trials=100), b"pkl:x"))
        staffed = await desk.do(lambda: desk.staff({submitted["study"]: 8}))
        commits: list[int] = []
        whole = desk._commit

        def counted() -> None:
            commits.append(1)
            whole()

        monkeypatch.setattr(desk, "_commit", counted)
        replies = await asyncio.gather(*(step(desk, study, key, 1) for study, key in staffed))
        assert sorted(trial for reply in replies for trial, _, _ in reply["leases"]) == list(range(8))
        assert len(commits) < 8

    run(storage, act)


def test_the_oldest_studies_are_forgotten_beyond_the_bound(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tuning.state.MAX_STUDIES", 2)

    async def act(desk: StudyDesk) -> None:
        for name in ("a", "b", "c", "d"):
            await desk.do(lambda name=name: desk.submit(plan(name=name), b"pkl:x"))
            await desk.do(lambda name=name: desk.stop(name))
        await desk.do(lambda: desk.submit(plan(name="e"), b"pkl:x"))
        assert [study["name"] for study in await desk.do(desk.all)] == ["e", "d", "c"]

    run(storage, act)

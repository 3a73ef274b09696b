"""The tuner's state on a real store: what is answered is kept, whichever process dies; what cannot be kept is not answered."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from actors.storage import Fence, StaleEpochError, Store
from actors.tuning import tables as tuner_tables
from actors.tuning.desk import DeskUnavailableError, UnstorableError
from actors.tuning.rules.book import Entry
from actors.tuning.rules.ledger import StudyLedger
from actors.tuning.state import OWNER
from actors.tuning.tables import TUNER, ChangeWriter
from tests.speed import slow
from tests.unit.tuning.kept import Kept, a_plan

T = TypeVar("T")


def run(storage: str, act: Callable[[Kept], Awaitable[T]], ended: list[StaleEpochError] | None = None) -> T:
    async def acted() -> T:
        kept = Kept(storage, ended)
        try:
            return await act(kept)
        finally:
            await kept.close()

    return asyncio.run(acted())


def done(leases: list[list[Any]], value: float = 0.5) -> list[list[Any]]:
    return [[trial, attempt, "completed", value, 1e-5, None] for trial, attempt, _ in leases]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def test_a_successor_goes_on_where_its_predecessor_stopped(storage: str) -> None:
    async def first(kept: Kept) -> tuple[str, str, list[list[Any]]]:
        study, key = await kept.begun(retries=1)
        (lease,) = await kept.leases(study, key, 1)
        leases = await kept.leases(study, key, 2, [[lease[0], 1, "completed", 0.1, 1e-5, None]])
        (failing, *_) = leases
        await kept.step(study, key, 3, [[failing[0], 1, "failed", None, 1e-5, "ValueError"]], wanted=False)
        return study, key, leases

    study, key, leases = run(storage, first)

    async def second(kept: Kept) -> None:
        assert kept.state.epoch == 0
        again = await kept.leases(study, key, 3)  # sent again: the answer may have been lost
        assert kept.state.epoch == 2
        assert again == leases[1:]
        rest = done(again, 0.2)
        after = await kept.leases(study, key, 4, rest)
        assert after[0][:2] == [1, 2]  # what failed is tried again
        assert (await kept.summary())["counts"]["COMPLETED"] == 1 + len(rest)
        assert (await kept.trials(limit=1))[0]["value"] == 0.1

    run(storage, second)


def test_submitting_twice_is_one_study_and_another_search_is_refused(storage: str) -> None:
    async def act(kept: Kept) -> None:
        first = await kept.submit(a_plan())
        again = await kept.submit(a_plan(trials=20), b"pkl:y")
        assert (first.status, again.status, again.study) == ("submitted", "running", first.study)
        assert (await kept.summary())["trials"] == 20
        with pytest.raises(ValueError, match="seed of the study 's' must stay 3, got 4"):
            await kept.submit(a_plan(seed=4))
        assert (await kept.desk.read(lambda: kept.reader.terms(first.study)))["objective"] == b"pkl:y"

    run(storage, act)


def test_a_study_is_taken_up_by_what_it_was_submitted_with_last(storage: str) -> None:
    async def act(kept: Kept) -> None:
        await kept.submit(a_plan())
        await kept.submit(a_plan(trials=20, retries=2), b"pkl:y")
        plan, objective = kept.reader.submitted("s")
        assert (plan.trials, plan.retries, plan.seed, objective) == (20, 2, 3, b"pkl:y")
        with pytest.raises(KeyError, match="nope"):
            kept.reader.submitted("nope")

    run(storage, act)


async def finish(kept: Kept, **changes: Any) -> str:
    """Run a study to its end; gives what its submission said."""
    begun = await kept.submit(a_plan(**changes))
    for key in await kept.staffed(begun.study):
        results: list[Any] = []
        for sequence in range(1, 40):
            reply = await kept.step(begun.study, key, sequence, results)
            results = done(reply["leases"]) if reply["status"] == "ok" else []
    return begun.status


def test_a_finished_study_of_that_name_is_done_and_more_trials_take_it_up(storage: str) -> None:
    async def act(kept: Kept) -> None:
        assert await finish(kept, trials=5) == "submitted"
        summary = await kept.summary()
        assert (summary["state"], summary["done"]) == ("DONE", 5)
        assert await finish(kept, trials=5) == "done"
        assert await finish(kept, trials=9) == "resumed"
        summary = await kept.summary()
        assert (summary["state"], summary["done"], summary["best"]) == ("DONE", 9, 0)
        assert await kept.do(lambda: kept.state.stop("s")) == {"status": "ended"}

    run(storage, act)


@pytest.mark.parametrize("strategy", ["random", {"name": "grid", "points": 3}, "optuna:TPESampler"])
def test_a_resume_that_names_the_parameters_in_another_order_is_the_same_study(storage: str, strategy: Any) -> None:
    space = {"x": [0.0, 1.0], "n": [1, 9, "int"], "kind": {"choices": ["a", "b"]}}
    turned = dict(reversed(space.items()))

    async def act(kept: Kept) -> None:
        await finish(kept, trials=12, space=space, strategy=strategy)
        assert await finish(kept, name="t", trials=5, space=space, strategy=strategy) == "submitted"
        assert await finish(kept, name="t", trials=12, space=turned, strategy=strategy) == "resumed"
        whole, resumed = await kept.trials("s"), await kept.trials("t")
        assert [list(trial["params"]) for trial in resumed] == [["x", "n", "kind"]] * len(whole)
        if strategy != "optuna:TPESampler":  # a learner's generator begins anew with a resume
            assert [trial["params"] for trial in resumed] == [trial["params"] for trial in whole]

    run(storage, act)


def test_what_could_not_be_committed_is_not_answered_and_not_remembered(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(kept: Kept) -> None:
        study, key = await kept.begun()
        (lease,) = await kept.leases(study, key, 1)
        result = done([lease], 0.1)
        with monkeypatch.context() as broken:
            broken.setattr(kept.state._writer, "write", _disk_full)
            with pytest.raises(DeskUnavailableError, match="disk"):
                await kept.step(study, key, 2, result)
        assert (await kept.summary())["done"] == 0  # memory was ahead of the store, and was dropped
        assert [trial for trial, _, _ in await kept.leases(study, key, 2, result)] == [1, 2, 3, 4]
        assert (await kept.summary())["done"] == 1

    run(storage, act)


def _disk_full(*_arguments: Any) -> None:
    raise OperationalError("insert", {}, Exception("database or disk is full"))


def test_what_can_never_be_stored_ends_its_study_with_the_cause_and_no_other(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ChangeWriter.write

    def write(self: ChangeWriter, connection: Any, study: str, changes: Any, *rest: Any) -> None:
        if any(trial.error == "poison" for trial in changes.trials):
            raise ValueError("this text cannot be stored")
        honest(self, connection, study, changes, *rest)

    monkeypatch.setattr(ChangeWriter, "write", write)

    async def act(kept: Kept) -> None:
        study, key = await kept.begun()
        other, other_key = await kept.begun(name="other")
        (lease,), (other_lease,) = await kept.leases(study, key, 1), await kept.leases(other, other_key, 1)
        poison = [[lease[0], 1, "failed", None, 1e-5, "poison"]]
        found = await asyncio.gather(
            kept.step(study, key, 2, poison), kept.step(other, other_key, 2, done([other_lease])), return_exceptions=True
        )
        assert isinstance(found[0], UnstorableError)
        assert isinstance(found[1], dict)
        assert found[1]["status"] == "ok"
        summary = await kept.summary()
        assert summary["state"] == "FAILED"
        assert "this text cannot be stored" in str(summary["error"])
        assert (await kept.step(study, key, 2, poison)) == {"status": "gone"}
        assert (await kept.summary("other"))["done"] == 1

    run(storage, act)


def test_texts_that_no_database_holds_are_written_out_and_their_study_goes_on(storage: str) -> None:
    async def act(kept: Kept) -> None:
        study, key = await kept.begun(trials=1)
        (lease,) = await kept.leases(study, key, 1)
        await kept.step(study, key, 2, [[lease[0], 1, "failed", None, 1e-5, "half \udc80 and \x00"]], node="n\x00")
        assert (await kept.summary())["state"] == "DONE"
        (trial,) = await kept.trials()
        assert trial["error"] == r"half \udc80 and \x00"

    run(storage, act)


def test_a_successor_ends_its_predecessor_at_the_next_commit(storage: str) -> None:
    ended: list[StaleEpochError] = []

    async def act(kept: Kept) -> None:
        study, key = await kept.begun()
        await kept.step(study, key, 1)
        Fence.raise_epoch(Store(storage).part(TUNER), OWNER)
        with pytest.raises(StaleEpochError):
            await kept.step(study, key, 2, [[0, 1, "completed", 0.1, 1e-5, None]])
        assert len(ended) == 1

    run(storage, act, ended)

    async def successor(kept: Kept) -> None:
        assert (await kept.summary())["done"] == 0

    run(storage, successor)


def test_a_strategy_that_cannot_be_made_again_fails_its_study_and_no_other(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine:
        def __init__(self, space: Any, *, seed: int) -> None: ...

        def next_params(self) -> dict[str, Any]:
            return {"x": 0.5}

    module = types.ModuleType("module_of_the_user")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "module_of_the_user", module)

    async def first(kept: Kept) -> None:
        study, key = await kept.begun(strategy="module_of_the_user:Mine")
        await kept.step(study, key, 1)
        await kept.submit(a_plan(name="other"))

    run(storage, first)
    monkeypatch.delitem(sys.modules, "module_of_the_user")

    async def second(kept: Kept) -> None:
        summary = await kept.summary()
        assert summary["state"] == "FAILED"
        assert "module_of_the_user" in str(summary["error"])
        assert (await kept.summary("other"))["state"] == "RUNNING"

    run(storage, second)


def test_jobs_that_wait_together_are_committed_together(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(kept: Kept) -> None:
        study = (await kept.submit(a_plan(trials=100))).study
        keys = await kept.staffed(study, 8)
        commits: list[int] = []
        whole = kept.state.commit

        def counted() -> None:
            commits.append(1)
            whole()

        monkeypatch.setattr(kept.state, "commit", counted)
        replies = await asyncio.gather(*(kept.leases(study, key, 1) for key in keys))
        assert sorted(trial for leases in replies for trial, _, _ in leases) == list(range(8))
        assert len(commits) < 8

    run(storage, act)


def test_the_oldest_studies_are_forgotten_beyond_the_bound(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tuning.state.MAX_STUDIES", 2)

    async def act(kept: Kept) -> None:
        for name in ("a", "b", "c", "d"):
            await kept.submit(a_plan(name=name))
            await kept.do(lambda name=name: kept.state.stop(name))  # type: ignore[misc]
        await kept.submit(a_plan(name="e"))
        assert [study["name"] for study in await kept.desk.read(kept.reader.studies)] == ["e", "d", "c"]

    run(storage, act)


def test_a_deleted_study_leaves_nothing_and_its_name_is_free(storage: str) -> None:
    async def act(kept: Kept) -> None:
        study, _ = await kept.begun()
        with pytest.raises(ValueError, match="must have ended to be deleted, got 's', which is running: stop it first"):
            await kept.do(lambda: kept.state.delete("s"))
        await kept.do(lambda: kept.state.stop("s"))
        await finish(kept, name="t", trials=5)
        assert await kept.do(lambda: kept.state.delete("t")) == {"status": "deleted"}
        with pytest.raises(KeyError, match="got 't'"):
            await kept.summary("t")
        with pytest.raises(KeyError):
            await kept.do(lambda: kept.state.delete("t"))
        (orphan,) = await kept.desk.read(kept.reader.orphans)
        while await kept.do(lambda: kept.state.sweep(orphan)):
            pass
        assert await kept.desk.read(kept.reader.orphans) == []
        assert not await kept.do(lambda: kept.state.sweep(study))  # what has a row is nobody's orphan
        with kept.state.part().read() as connection:
            assert connection.execute(select(func.count()).select_from(tuner_tables.trials)).scalar() == 0
        assert await finish(kept, name="t", trials=3, seed=9) == "submitted"

    run(storage, act)


# ---- large ones: nothing holds the store's thread for long ----------------------------------------------------------------


def fill(storage: str, trials: int) -> None:
    """Keep a study of many completed trials that has been stopped."""
    store = Store(storage)
    plan = a_plan(trials=2 * trials)
    ledger = StudyLedger("large", plan)
    with store.part(TUNER).write() as connection:
        connection.execute(
            tuner_tables.studies.insert().values(
                study="large", name="s", plan=plan.document(), objective=b"", state="STOPPED", created_at=1.0
            )
        )
        changes = ledger.take_changes()
        for number in range(trials):
            changes.trials.append(Entry(number, '{"x": 0.5}', "COMPLETED", 0.5, 1, seconds=0.1, node="n", finished_at=1.0))
        ChangeWriter().write(connection, "large", changes, {}, 1.0)
    store.close()


class Pulse:
    """How long the desk keeps a small job waiting while something large is done."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.longest_s = 0.0

    async def beat(self) -> None:
        while True:
            began_s = time.perf_counter()
            await self._kept.do(lambda: None)
            self.longest_s = max(self.longest_s, time.perf_counter() - began_s)
            await asyncio.sleep(0.001)


def test_a_large_study_is_taken_up_read_and_deleted_without_holding_others(storage: str) -> None:
    fill(storage, 150_000)

    async def act(kept: Kept) -> None:
        await kept.do(lambda: None)
        pulse = Pulse(kept)
        beating = asyncio.ensure_future(pulse.beat())
        began_s = time.perf_counter()
        assert (await kept.submit(a_plan(trials=300_000))).status == "resumed"
        assert (await kept.summary())["done"] == 150_000
        whole_s = time.perf_counter() - began_s
        page = await kept.trials(since=70_000, limit=5000)
        assert [page[0]["id"], page[-1]["id"]] == [70_000, 74_999]
        await kept.do(lambda: kept.state.stop("s"))
        page = await kept.trials(since=145_500, limit=5000)
        assert [page[0]["id"], page[-1]["id"]] == [145_500, 149_999]
        await kept.do(lambda: kept.state.delete("s"))
        while await kept.do(lambda: kept.state.sweep("large")):
            pass
        beating.cancel()
        # On whatever machine: a fraction of what reading the whole study takes, which is what held everybody before.
        assert pulse.longest_s < max(whole_s / 2, slow(0.5))

    run(storage, act)


def test_a_page_is_bounded_by_its_size_too(storage: str) -> None:
    async def act(kept: Kept) -> None:
        big = "v" * 60_000
        first = [{"x": {"a": f"{number}{big}"}["a"]} for number in range(12)]
        space = {"x": {"choices": [each["x"] for each in first]}}
        study, key = await kept.begun(space=space, first=first, trials=200)
        results: list[Any] = []
        sequence, sizes = 0, list[int]()
        while (reply := await kept.step(study, key, sequence := sequence + 1, results))["status"] == "ok":
            sizes.append(sum(len(params) for _, _, params in reply["leases"]))
            results = done(reply["leases"])
        assert max(sizes) < 2**20 + 70_000
        seen: list[int] = []
        while page := await kept.trials(since=len(seen), limit=5000):
            assert sum(len(trial["params"]["x"]) for trial in page) < 5 * 2**20
            seen += [trial["id"] for trial in page]
        assert seen == list(range(200))

    run(storage, act)


def test_readers_do_not_run_on_the_store_thread(storage: str) -> None:
    async def act(kept: Kept) -> None:
        writer = await kept.do(threading.get_ident)
        assert await kept.desk.read(threading.get_ident) != writer

    run(storage, act)

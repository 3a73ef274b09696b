"""What every actor shares: its hello, and the one thread that owns its store."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from actors import wire
from actors.cluster import actor
from actors.cluster.store_thread import StoreThread, or_unavailable
from actors.storage import SCHEMA_VERSION, StaleEpochError, Store, StoreError


def thread_at(folder: Path, ended: list[object] | None = None) -> StoreThread[list[str]]:
    return StoreThread(f"sqlite:///{folder}/store", lambda store: [store.store_id], end_stale=(ended or []).append)


def test_hello_has_the_same_keys_for_every_actor() -> None:
    reply = actor.hello("tuner", epoch=3, boot="boot-1")
    assert list(reply) == ["actor", "build", "epoch", "schema", "wire", "pid", "node", "boot_id"]
    assert (reply["actor"], reply["epoch"], reply["boot_id"]) == ("tuner", 3, "boot-1")
    assert (reply["schema"], reply["wire"], reply["node"]) == (SCHEMA_VERSION, wire.SCHEMA, "")


def test_everything_runs_in_one_thread_and_the_store_is_opened_once(tmp_path: Path) -> None:
    async def story() -> None:
        thread = thread_at(tmp_path)
        assert thread.state is None
        seen = await asyncio.gather(*(thread.do(lambda state: (threading.get_ident(), id(state))) for _ in range(20)))
        assert len(set(seen)) == 1
        assert seen[0] == (seen[0][0], id(thread.state))
        assert seen[0][0] != threading.get_ident()

    asyncio.run(story())


def test_a_store_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        blocked = tmp_path / "store"
        blocked.write_text("no folder")
        thread = thread_at(tmp_path)
        reply = await or_unavailable(thread.do(len))
        assert isinstance(reply, dict)
        assert (reply["status"], reply["retry_in_s"]) == ("unavailable", 0.5)
        blocked.unlink()
        assert await or_unavailable(thread.do(len)) == 1

    asyncio.run(story())


def test_settings_of_another_build_count_as_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    def make(_store: Store) -> None:
        raise ValueError("settings: cooldown must be a duration")

    async def story() -> None:
        with pytest.raises(StoreError, match="cooldown must be a duration"):
            await StoreThread(f"sqlite:///{tmp_path}/store", make).do(lambda _: None)

    asyncio.run(story())


def test_a_process_that_was_succeeded_ends_and_its_caller_is_told_to_ask_again(tmp_path: Path) -> None:
    ended: list[object] = []

    def stale(_state: list[str]) -> None:
        raise StaleEpochError("epoch 1 has been succeeded by 2")

    async def story() -> None:
        thread = StoreThread(f"sqlite:///{tmp_path}/store", lambda _: [""], end_stale=ended.append)
        reply = await or_unavailable(thread.do(stale))
        assert reply == {"status": "unavailable", "reason": "epoch 1 has been succeeded by 2", "retry_in_s": 0.5}

    asyncio.run(story())
    assert len(ended) == 1


def test_a_full_disk_is_unavailable_and_a_mistake_of_the_caller_is_not(tmp_path: Path) -> None:
    def full(_state: list[str]) -> None:
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    def mistake(_state: list[str]) -> None:
        raise KeyError("model")

    async def story() -> None:
        thread = thread_at(tmp_path)
        assert await or_unavailable(thread.do(full)) == {
            "status": "unavailable",
            "reason": "database or disk is full",
            "retry_in_s": 0.5,
        }
        with pytest.raises(KeyError):
            await or_unavailable(thread.do(mistake))

    asyncio.run(story())

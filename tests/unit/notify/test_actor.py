"""The notifier as an actor: each receiver by itself, a hint is enough, and a store that is gone is reported from memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import config
from actors.config.notify import CustomReceiverSettings, ReceiverSettings
from actors.config.stored import store_settings
from actors.detection.tables import DETECTOR
from actors.detection.tables import happened as of_detector
from actors.notify.actor import NotifierActor
from actors.notify.notification import Notification, ReceiverError
from actors.replies import happening
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, happenings
from tests.speed import slow

NOW = 1_795_003_200.0


class Inbox:
    """A receiver of the test's own."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.got: list[Notification] = []
        self.open = threading.Event()
        self.open.set()

    def send(self, notification: Notification) -> None:
        assert self.open.wait(slow(30))
        if self.fails is not None:
            raise self.fails
        self.got.append(notification)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(f"sqlite:///{tmp_path}/store")) as opened:
        opened.part(DISPATCHER)
        opened.part(DETECTOR, 0)
        yield opened


def document(*names: str) -> dict[str, Any]:
    routes = [{"receivers": list(names), "group_wait": 0, "group_interval": 0}]
    receivers = {name: {"kind": "module:Class", "options": {"name": name}} for name in names}
    return {"notify": {"receivers": receivers, "routes": routes, "title": "{{ firing[0].words }} {{ nothing.of.it }}"}}


def write(store: Store, key: str) -> None:
    with store.part(DETECTOR, 0).write() as connection:
        rows = [happening("alarm", key, NOW, "warning", model="fraud", version="7", metric="accuracy", subject=key)]
        happenings.record(connection, of_detector, rows)


def play(store: Store, inboxes: dict[str, Inbox], scene: Callable[[NotifierActor], Awaitable[None]]) -> None:
    """Run `scene` with the actor, whose receivers are these."""
    store_settings(store, config.load(document(*inboxes)), NOW)

    def make(settings: ReceiverSettings) -> Inbox:
        assert isinstance(settings, CustomReceiverSettings)
        return inboxes[settings.options["name"]]

    async def whole() -> None:
        notifier = NotifierActor(name="notifier", namespace="n", storage=store.url, make=make)
        await until(lambda: notifier._thread.state is not None and notifier._thread.state._seen != {})
        await scene(notifier)
        assert notifier._loop is not None
        notifier._loop.cancel()

    asyncio.run(whole())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(slow(20)):
        while not is_so():  # noqa: ASYNC110  what it waits for is in another thread
            await asyncio.sleep(0.005)


def test_a_receiver_that_hangs_or_fails_holds_up_no_other(store: Store) -> None:
    inboxes = {"good": Inbox(), "bad": Inbox(KeyError("x")), "slow": Inbox()}
    inboxes["slow"].open.clear()

    async def scene(notifier: NotifierActor) -> None:
        for number in range(3):
            write(store, f"e{number}")
            await notifier.hint()
            await until(lambda number=number: len(inboxes["good"].got) == number + 1)  # type: ignore[misc]
        inboxes["slow"].open.set()
        await until(lambda: len(inboxes["slow"].got) == 2)  # the first, and all that came meanwhile
        assert notifier._thread.state is not None
        board = notifier._thread.state._board
        assert board is not None
        await until(lambda: "bad" in board.health and board.health["bad"]["problem"] == "KeyError: 'x'")

    play(store, inboxes, scene)
    assert [len(each.firing) for each in inboxes["slow"].got] == [1, 3]


def test_a_template_that_fails_gives_way_to_our_own_words(store: Store) -> None:
    inboxes = {"good": Inbox()}

    async def scene(notifier: NotifierActor) -> None:
        write(store, "e1")
        await notifier.hint()
        await until(lambda: bool(inboxes["good"].got))

    play(store, inboxes, scene)
    assert inboxes["good"].got[0].title == "fraud: accuracy has drifted"


def test_a_test_says_what_came_of_it_and_leaves_no_trace(store: Store) -> None:
    inboxes = {"good": Inbox(), "bad": Inbox(ReceiverError("HTTP 403"))}

    async def scene(notifier: NotifierActor) -> None:
        assert await notifier.test(receiver="good") == {"status": "sent", "reason": None}
        assert await notifier.test(receiver="bad") == {"status": "failed", "reason": "HTTP 403"}
        with pytest.raises(KeyError, match="receiver must be one of bad, good"):
            await notifier.test(receiver="nobody")

    play(store, inboxes, scene)
    assert "a test, nothing has happened" in inboxes["good"].got[0].text


def test_a_store_that_stays_away_is_told_of_from_memory_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    inboxes = {"good": Inbox()}
    monkeypatch.setattr("actors.notify.actor._TROUBLE_S", 0.05)

    async def scene(notifier: NotifierActor) -> None:
        for _ in range(20):
            await notifier._warn_of_store("database is locked")
            await asyncio.sleep(0.01)

    play(store, inboxes, scene)
    ((told,),) = [each.firing for each in inboxes["good"].got]
    assert (told["happening"]["kind"], told["happening"]["comment"]) == ("store_trouble", "database is locked")

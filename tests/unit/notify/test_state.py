"""The state of notifications: wherever its process is killed, each happening is sent, and no message twice under another id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from actors import config, failpoints, status
from actors.clock import Instant
from actors.config.stored import store_settings
from actors.detection.tables import DETECTOR
from actors.detection.tables import happened as of_detector
from actors.notify.notification import ReceiverError
from actors.notify.state import NotifyState
from actors.replies import Happening, happening
from actors.retraining.state import RetrainingState
from actors.retraining.tables import DISPATCHER
from actors.storage import StaleEpochError, Store, StoreReader, happenings

NOW = 1_795_003_200.0
POINTS = ("notifier.read", "notifier.begun", "notifier.sent", "notifier.settled")
HOOK = {"kind": "webhook", "url": "http://127.0.0.1:9/"}


class Killed(BaseException):
    """The process has ended."""


class Clock:
    """Stands where it was put."""

    now_s = NOW

    def now(self) -> Instant:
        return Instant(self.now_s, self.now_s, "boot")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(f"sqlite:///{tmp_path}/store")) as opened:
        opened.part(DISPATCHER)
        yield opened


def settings(**notify: Any) -> config.Settings:
    routes = [{"receivers": ["hook"], "group_wait": 0, "group_interval": 0}]
    return config.load({"notify": {"receivers": {"hook": HOOK}, "routes": routes} | notify})


def alarm(key: str, model: str = "fraud") -> Happening:
    return happening("alarm", key, NOW, "warning", model=model, subject=key)


def write(store: Store, *rows: Happening, slot: int = 0) -> None:
    with store.part(DETECTOR, slot).write() as connection:
        happenings.record(connection, of_detector, rows)


def opened(store: Store, clock: Clock, said: config.Settings) -> NotifyState:
    state = NotifyState(store, clock)
    state.configure(said)
    return state


def deliver(state: NotifyState, inbox: dict[str, list[str]]) -> None:
    """Send what is due; the inbox drops a message that it has by its id."""
    for key, notification in state.look().outgoing:
        inbox.setdefault(notification.id, [told["happening"]["subject"] or "" for told in notification.firing])
        state.settle(key, None)


def test_what_happened_before_the_first_start_is_not_told_and_a_part_that_is_made_later_is_read_whole(store: Store) -> None:
    write(store, alarm("before"))
    inbox: dict[str, list[str]] = {}
    state = opened(store, Clock(), settings())
    deliver(state, inbox)
    write(store, alarm("later"), slot=7)
    write(store, alarm("after"))
    deliver(state, inbox)
    assert sorted(chain.from_iterable(inbox.values())) == ["after", "later"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_it_tells_all_and_nothing_twice(store: Store, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    def reach(name: str) -> None:
        if name == point:
            raise Killed(name)

    clock, inbox = Clock(), dict[str, list[str]]()
    state = opened(store, clock, settings(routes=[{"receivers": ["hook"], "kinds": ["order_dead"], "group_wait": 0}]))
    for number in range(5):
        write(store, happening("order_dead", str(number), NOW, "critical", model="fraud", subject=str(number)))
        clock.now_s += 1000.0
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "reach", reach)
            with pytest.raises(Killed):
                deliver(state, inbox)
        state = opened(store, clock, settings(routes=[{"receivers": ["hook"], "kinds": ["order_dead"], "group_wait": 0}]))
        clock.now_s += 1.0
    for _ in range(2):  # what was on its way, and what came meanwhile
        clock.now_s += 1000.0
        deliver(state, inbox)
    assert sorted(chain.from_iterable(inbox.values())) == ["0", "1", "2", "3", "4"]


def test_a_commit_that_fails_leaves_what_is_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox: dict[str, list[str]] = {}
    state = opened(store, Clock(), settings())
    state.look()
    write(store, alarm("e1"))
    with monkeypatch.context() as patch:
        patch.setattr("actors.notify.state._write", lambda *_arguments: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            state.look()
    deliver(state, inbox)
    assert list(inbox.values()) == [["e1"]]


def test_a_file_of_the_store_that_is_damaged_holds_up_no_other(store: Store) -> None:
    inbox: dict[str, list[str]] = {}
    state = opened(store, Clock(), settings())
    write(store, alarm("e1"))
    write(store, alarm("e2"), slot=1)
    deliver(state, inbox)
    store.close()
    for ending in ("", "-wal"):
        Path(store.url.removeprefix("sqlite:///"), f"detector-0.db{ending}").write_bytes(b"no database" * 1000)
    with contextlib.closing(Store(store.url)) as again:
        write(again, alarm("e3"), slot=1)
        deliver(opened(again, Clock(), settings()), inbox)
    assert sorted(set(chain.from_iterable(inbox.values()))) == ["e1", "e2", "e3"]


def test_a_process_that_has_been_succeeded_commits_nothing_more(store: Store) -> None:
    old = opened(store, Clock(), settings())
    old.look()
    new = opened(store, Clock(), settings())
    write(store, alarm("e1"))
    with pytest.raises(StaleEpochError):
        old.look()
    assert len(new.look().outgoing) == 1


def test_status_shows_how_each_receiver_does(store: Store) -> None:
    clock = Clock()
    said = settings(receivers={"hook": HOOK, "other": HOOK})
    store_settings(store, said, NOW)
    state = opened(store, clock, said)
    state.look()
    write(store, alarm("e1"), alarm("e2"))
    ((key, _),) = state.look().outgoing
    assert state.settle(key, ReceiverError("HTTP 503", after_s=60.0)) == 1
    with contextlib.closing(StoreReader(store.url)) as reader:
        told = status.read(reader)["receivers"]
    assert told["hook"] == {
        "state": "failing",
        "problem": "HTTP 503",
        "sent": 0,
        "failed": 1,
        "lost": 0,
        "waiting": 2,
        "retry_at": NOW + 60,
        "last_at": None,
    }
    assert told["other"]["state"] == "new"
    assert state.configure(settings(receivers={"other": HOOK}, routes=[])) == ["hook"]
    assert state.settle(key, None) == 0  # the one that was on its way


def test_a_silence_holds_what_its_models_have_to_tell(store: Store) -> None:
    clock, inbox = Clock(), dict[str, list[str]]()
    state = opened(store, clock, settings())
    deliver(state, inbox)
    silence(store, "fraud*", 600.0, clock)
    write(store, alarm("e1"), alarm("e2", model="other"))
    deliver(state, inbox)
    assert list(inbox.values()) == [["e2"]]
    clock.now_s += 601.0
    deliver(state, inbox)
    assert list(inbox.values())[1:] == [["e1", "e2"]]


def silence(store: Store, pattern: str, duration_s: float, clock: Clock) -> None:
    from actors.retraining.commits import Plan
    from actors.retraining.rules.delivery import Backoff
    from actors.storage import Fence

    plan = Plan(cooldown_s=0.0, dry_run=False, handler="webhook", handler_settings={}, lease_s=60.0)
    fence = Fence.raise_epoch(store.part(DISPATCHER), "dispatcher")
    state = RetrainingState(fence, store.store_id, plan_of=lambda _model: plan, backoff=Backoff(), jitter=None)  # type: ignore[arg-type]
    state.silence(pattern, duration_s, "a sale", "key", clock.now())

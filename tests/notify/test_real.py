"""Notifications to a real Alertmanager and over real SMTP."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from actors import config
from actors.config.notify import AlertmanagerSettings, AppriseSettings, Route
from actors.notify import receivers, texts
from actors.notify.notification import Notification
from actors.notify.rules.board import Board
from actors.replies import Happening, happening
from tests.database import free_port
from tests.notify.drill import run
from tests.notify.stage import NEEDS, PROGRAM, Alertmanager
from tests.speed import slow

SETTINGS = config.load({"ui": {"url": "https://page.example"}})

pytestmark = [
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=NEEDS),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]


def eventually(check: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + slow(30)
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Alertmanager]:
    started = Alertmanager(tmp_path / "alertmanager", group_by="[alertname]", group_wait="2s")
    yield started
    started.stop()


class Sender:
    """The rules with one Alertmanager behind them, at the wall's time."""

    def __init__(self, url: str) -> None:
        settings = AlertmanagerSettings.model_validate({"kind": "alertmanager", "url": url, "resend": "1s"})
        self._notifier = receivers.make(settings, {})
        self._board = Board()

    def tell(self, *rows: Happening) -> None:
        now = time.time()
        for row in rows:
            self._board.take(row, {"team": "risk"}, [Route(receivers=["a"])], {"a": 1.0}, now)
        for key, notification in self._board.due(now):
            self._notifier.send(texts.written(notification, SETTINGS))
            self._board.delivered(key, now)


def alarm(key: str) -> Happening:
    return happening(
        "alarm", key, time.time(), "warning", model=f"model {key} ü/1", version="7", metric="accuracy", subject=key
    )


def test_alertmanager_groups_what_fires_keeps_it_and_resolves_what_is_over(manager: Alertmanager) -> None:
    sender = Sender(manager.url)
    sender.tell(*(alarm(f"e{number}") for number in range(20)))
    eventually(lambda: len(manager.alerts()) == 20, "it has all alerts")
    eventually(lambda: len(manager.passed_on()) == 20, "it passes them on")
    assert len(manager.inbox.got) == 1  # as one group
    sender.tell(happening("recovered", "e3", time.time(), subject="e3"))
    eventually(lambda: ("resolved", "alarm:e3") in manager.passed_on(), "it passes on what is over")
    time.sleep(1.1)
    sender.tell()  # again, in time
    assert sorted(alert["labels"]["id"] for alert in manager.alerts()) == sorted(f"alarm:e{n}" for n in range(20) if n != 3)
    assert {alert["labels"]["label_team"] for alert in manager.alerts()} == {"risk"}


def test_alertmanager_that_was_down_learns_again_what_lasts(manager: Alertmanager) -> None:
    sender = Sender(manager.url)
    sender.tell(alarm("e1"))
    manager.end()
    shutil.rmtree(manager._folder / "data")
    manager.start()
    assert manager.alerts() == []
    time.sleep(1.1)
    sender.tell()
    eventually(lambda: [alert["labels"]["id"] for alert in manager.alerts()] == ["alarm:e1"], "it has it again")


def test_mail_goes_out_by_apprise_over_smtp() -> None:
    got: list[bytes] = []

    class Keep:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
            await asyncio.sleep(0)
            got.append(envelope.content)
            return "250 kept"

    server = Controller(Keep(), hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        url = f"mailto://127.0.0.1:{server.port}?from=drift@example.org&to=ada@example.org&mode=insecure"
        said = AppriseSettings.model_validate({"kind": "apprise", "url": "${MAIL}"})
        told = {"happening": alarm("e1"), "labels": {}}
        message = Notification("n-1", "mail", time.time(), "warning", {}, [told], [])  # type: ignore[list-item]
        receivers.make(said, {"MAIL": url}).send(texts.written(message, SETTINGS))
    finally:
        server.stop()
    (mail,) = (message_from_bytes(content) for content in got)
    assert str(make_header(decode_header(mail["Subject"]))) == "model e1 ü/1: accuracy has drifted"
    body = next(part for part in mail.walk() if part.get_content_maintype() == "text").get_payload(decode=True)
    assert b"https://page.example/episodes/e1" in bytes(body)


def test_a_notifier_that_is_killed_loses_nothing_and_tells_nothing_twice() -> None:
    with run(kills=25, seed=1) as drill:
        lost, doubled = drill.counts()
    assert set(lost.values()) | set(doubled.values()) == {0}

"""Notifications on a real Ray: an alarm is sent at once, and whichever process is killed each alarm is sent under one id."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import failpoints as points
from actors import happenings
from actors.storage import StoreReader
from actors.system import System
from tests.cluster.waiting import eventually
from tests.server import Server, reply


class Inbox:
    """A webhook's receiver, which drops a message that it has by its id."""

    def __init__(self) -> None:
        self.messages: dict[str, list[str]] = {}
        self.server = Server(self.take)
        self.url = self.server.url

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        data = json.loads(body)["data"]
        self.messages.setdefault(data["id"], [each["happening"]["model"] for each in data["firing"]])
        reply(request, 204)

    def models(self) -> list[str]:
        return [model for message in list(self.messages.values()) for model in message]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    opened = Inbox()
    yield opened
    opened.server.stop()


def drift(system: System, model: str) -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([0.9, 0.5], [600, 200])
    system.metrics.log_batch({"accuracy": np.clip(rng.normal(levels, 0.01), 0, 1)}, model=model, version="1")


def downs(url: str) -> list[tuple[str | None, str | None]]:
    reader = StoreReader(url)
    try:
        return [(row["subject"], row["comment"]) for row in happenings.newest(reader) if row["kind"] == "actor_down"]
    finally:
        reader.close()


def test_a_notifier_that_is_killed_at_every_step_tells_every_alarm_once(
    start: Callable[..., System], settings: dict[str, Any], failpoints: Path, inbox: Inbox
) -> None:
    route = {"receivers": ["hook"], "group_by": ["model"], "group_wait": 0, "kinds": ["alarm"]}
    notify = {"receivers": {"hook": {"kind": "webhook", "url": inbox.url}}, "routes": [route]}
    system = start(notify=notify, defaults={"false_alarm_every": 1000}, detectors={"processes": 1})
    eventually(lambda: "notifier" in system.status()["actors"], "the notifier is there")
    drift(system, "first")
    eventually(lambda: inbox.models() == ["first"], "the alarm is told")
    told = ["first"]
    for step in ("notifier.read", "notifier.begun", "notifier.sent", "notifier.settled", "kill"):
        if step == "kill":
            with suppress(ProcessLookupError):
                os.kill(system.status()["actors"]["notifier"]["pid"] or 2**30, signal.SIGKILL)
        else:
            points.arm(failpoints, step, "exit")
        drift(system, step)
        told.append(step)
        eventually(lambda: sorted(inbox.models()) == sorted(told), f"the alarm after {step} is told once")
    eventually(lambda: system.status()["receivers"]["hook"]["waiting"] == 0, "that the last one has arrived is on record")
    seen = system.status()["receivers"]["hook"]
    assert (seen["state"], seen["lost"]) == ("ok", 0)
    eventually(lambda: ("notifier", "its process ended and was restarted by Ray") in downs(settings["storage"]), "it is told")

    system.reload({"notify": {"receivers": notify["receivers"], "routes": [route | {"models": "last"}]}})
    drift(system, "not told")
    eventually(lambda: system.status()["models"].get("not told", {}).get("state") == "drifting", "it has drifted")
    drift(system, "last")
    eventually(lambda: sorted(inbox.models()) == sorted([*told, "last"]), "the routes that were read again count")

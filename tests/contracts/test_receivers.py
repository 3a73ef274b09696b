"""Receivers against real HTTP servers that misbehave: what is tried again, what is refused for good, and what is signed."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from actors import config
from actors.config.notify import (
    AlertmanagerSettings,
    AppriseSettings,
    ReceiverSettings,
    WebhookReceiverSettings,
)
from actors.notify import receivers, texts
from actors.notify.notification import Notification, ReceiverError
from actors.replies import happening
from tests.server import Server

NOW = 1_795_003_200.0
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()

Act = Callable[[BaseHTTPRequestHandler], None]


class Hook(Server):
    """Answers as the test says, and keeps what it was sent."""

    def __init__(self, act: Act) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self._act = act
        super().__init__(self._take)
        self.url += "hook"

    def _take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.got.append((dict(request.headers.items()), body))
        self._act(request)


@pytest.fixture
def serve() -> Iterator[Callable[[Act], Hook]]:
    begun: list[Hook] = []

    def start(act: Act) -> Hook:
        begun.append(Hook(act))
        return begun[-1]

    yield start
    for each in begun:
        each.stop()


def answer(status: int, **headers: str) -> Act:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def hang(handler: BaseHTTPRequestHandler) -> None:
    del handler
    time.sleep(0.5)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10):
        try:
            handler.wfile.write(b".")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\0\xff neither HTTP nor anything else\r\n\r\n")


def message(*, over: bool = False) -> Notification:
    alarm = happening("alarm", "e-1", NOW, "warning", model="fraud", version="7", metric="accuracy", subject="e-1")
    told: Any = {"happening": alarm, "labels": {"team": "risk", "on call": "Ada"}}
    if over:
        told["resolved"] = happening("recovered", "e-1", NOW + 60, model="fraud", subject="e-1")
    rows = ([], [told]) if over else ([told], [])
    made = Notification("n-1", "hook", NOW, "warning", {"model": "fraud"}, *rows)
    return texts.written(made, config.load({"ui": {"url": "https://page.example/"}}))


def webhook(url: str, **said: Any) -> ReceiverSettings:
    return WebhookReceiverSettings.model_validate({"kind": "webhook", "url": url, "timeout": "200ms"} | said)


@pytest.mark.parametrize(
    ("act", "problem", "for_good"),
    [
        (answer(500), "HTTP 500", False),
        (answer(302, Location="http://127.0.0.1:9/"), "HTTP 302", False),
        (answer(400), "HTTP 400", True),
        (answer(410), "HTTP 410", True),
        (hang, "no answer within 0.2 s", False),
        (drip, "no answer within 0.2 s", False),
        (reset, "no answer: ConnectionResetError", False),
        (garbage, "no answer: BadStatusLine", False),
    ],
)
def test_a_server_that_misbehaves_is_named_by_what_it_did(
    serve: Callable[[Act], Hook], act: Act, problem: str, *, for_good: bool
) -> None:
    server = serve(act)
    with pytest.raises(ReceiverError) as found:
        receivers.make(webhook(server.url), {}).send(message())
    assert (str(found.value), found.value.for_good) == (problem, for_good)


def test_a_server_says_when_it_wants_to_be_asked_again(serve: Callable[[Act], Hook]) -> None:
    with pytest.raises(ReceiverError, match="HTTP 503") as found:
        receivers.make(webhook(serve(answer(503, Retry_After="120")).url), {}).send(message())
    assert found.value.after_s == 120


def test_nobody_listens_and_the_url_is_not_told() -> None:
    with pytest.raises(ReceiverError) as found:
        receivers.make(webhook("http://127.0.0.1:9/secret"), {}).send(message())
    assert str(found.value) == "no answer: ConnectionRefusedError"


def test_a_webhook_is_signed_and_has_the_same_id_on_every_resend(serve: Callable[[Act], Hook]) -> None:
    server = serve(answer(204))
    notifier = receivers.make(webhook(server.url, secret_env="SECRET"), {"SECRET": SECRET})
    for _ in range(2):
        notifier.send(message())
    (headers, body), (_, again) = server.got
    assert body == again
    verified = Webhook(SECRET).verify(body.decode(), {name.lower(): value for name, value in headers.items()})
    assert verified == json.loads(body)
    data = verified["data"]
    assert (data["id"], headers["webhook-id"], data["title"]) == ("n-1", "n-1", "fraud: accuracy has drifted")
    assert data["firing"][0]["happening"]["subject"] == "e-1"
    assert data["link"] == "https://page.example/episodes/e-1"


def test_an_alert_has_labels_its_time_and_an_end(serve: Callable[[Act], Hook]) -> None:
    server = serve(answer(200))
    url = server.url.removesuffix("/hook")
    settings = AlertmanagerSettings.model_validate({"kind": "alertmanager", "url": url, "headers": {"X-Scope": "${TENANT}"}})
    notifier = receivers.make(settings, {"TENANT": "one"})
    notifier.send(message())
    notifier.send(message(over=True))
    firing, over = (json.loads(body)[0] for _, body in server.got)
    assert server.got[0][0]["X-Scope"] == "one"
    assert firing["labels"] == over["labels"]
    assert firing["labels"] == {
        "alertname": "VisuTilityAlarm",
        "id": "alarm:e-1",
        "kind": "alarm",
        "severity": "warning",
        "model": "fraud",
        "version": "7",
        "metric": "accuracy",
        "label_team": "risk",
        "label_on_call": "Ada",
    }
    assert firing["startsAt"] == over["startsAt"] == "2026-11-18T12:00:00+00:00"
    assert over["endsAt"] == "2026-11-18T12:01:00+00:00"
    assert firing["generatorURL"] == "https://page.example/episodes/e-1"


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # by Apprise, on Python 3.11 and 3.12
def test_apprise_delivers_and_says_where_it_could_not(serve: Callable[[Act], Hook]) -> None:
    pytest.importorskip("apprise")
    server = serve(answer(200))
    said = AppriseSettings.model_validate({"kind": "apprise", "url": "json://${HOST}"})
    receivers.make(said, {"HOST": server.url.removeprefix("http://")}).send(message())
    sent = json.loads(server.got[0][1])
    assert (sent["title"], sent["type"]) == ("fraud: accuracy has drifted", "warning")
    with pytest.raises(ReceiverError, match="Apprise could not deliver it"):
        receivers.make(said, {"HOST": "127.0.0.1:9"}).send(message())
    with pytest.raises(ReceiverError, match="url must be one that Apprise knows"):
        receivers.make(AppriseSettings.model_validate({"kind": "apprise", "url": "nothing://${HOST}"}), {"HOST": "h"})


def test_a_class_of_the_users_own_is_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.config.notify import CustomReceiverSettings

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugin_example"))
    said = {"kind": "visutility_halving:Notebook", "options": {"path": str(tmp_path / "sent")}}
    receivers.make(CustomReceiverSettings.model_validate(said), {}).send(message())
    assert (tmp_path / "sent").read_text() == "n-1 fraud: accuracy has drifted\n"
    for kind in ("visutility_halving:Nobody", "nowhere"):
        with pytest.raises(ReceiverError, match="kind"):
            receivers.make(CustomReceiverSettings(kind=kind), {})

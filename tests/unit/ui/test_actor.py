"""The page as an actor: it serves what the configuration says, says what keeps it from that, and begins again."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from collections.abc import Callable

import pytest

from actors import config
from actors.cluster import deployment
from actors.config.stored import store_settings
from actors.storage import Store
from actors.ui import serving
from actors.ui.actor import Page
from tests.speed import slow


def free_port() -> int:
    with serving.bound("127.0.0.1", 0) as found:
        return int(found.getsockname()[1])


def told(url: str, ui: dict[str, object]) -> config.Settings:
    settings = config.parse({"ui": ui}, "file")
    store = Store(url, makes=False)
    store_settings(store, settings, 0.0)
    store.close()
    return settings


def get(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=slow(10)) as answer:  # it listens once hello has answered
        return int(answer.status)


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + slow(20)
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_serves_says_what_keeps_it_from_that_and_begins_again_by_itself(url: str) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        settings = told(url, {"enabled": True, "port": port})
        with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            Page.check(settings)
        page = Page(name="page", namespace="visutility", storage=url)
        assert f"port {port}" in asyncio.run(page.hello())["problem"]
    eventually(lambda: "problem" not in asyncio.run(page.hello()))
    assert get(port) == 200

    other = free_port()
    told(url, {"enabled": True, "port": other})
    assert asyncio.run(page.reload())["status"] == "reloaded"
    assert get(other) == 200, "the reply to a reload comes once it serves again"

    told(url, {"enabled": False, "port": other})
    asyncio.run(page.reload())
    with pytest.raises(OSError, match="refused"):
        get(other)


def test_a_token_that_is_not_set_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.parse({"ui": {"enabled": True, "port": free_port(), "tokens": {"reader": "${READER}"}}}, "file")
    with pytest.raises(ValueError, match="has no READER"):
        deployment.check("page", settings)
    monkeypatch.setenv("READER", "short")
    with pytest.raises(ValueError, match="at least 16 characters"):
        deployment.check("page", settings)
    monkeypatch.setenv("READER", "r" * 16)
    deployment.check("page", settings)


def test_a_system_has_a_page_only_where_its_configuration_says_so() -> None:
    assert "page" in deployment.needed(config.parse({"ui": {"enabled": True}}, "file"))
    assert "page" not in deployment.needed(config.parse({"ui": {"port": 8421}}, "file"))
    assert deployment.role("page") == "page"

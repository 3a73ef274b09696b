"""What the configuration says of the page."""

from __future__ import annotations

import socket

import pytest

from actors import config
from actors.inspection import inspect


@pytest.mark.parametrize("url", ["https://page.example.org", "http://10.0.0.1:8420/", "https://example.org/visutility"])
def test_the_address_that_links_lead_to_is_taken_without_its_last_slash(url: str) -> None:
    assert config.parse({"ui": {"url": url}}, "file").ui.url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["page.example.org", "ftp://example.org", "https://", "https://me:secret@example.org", "https://a/?b=c"]
)
def test_an_address_that_no_browser_opens_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"ui\.url: must be the page's address like https://"):
        config.parse({"ui": {"url": url}}, "file")


@pytest.mark.parametrize("name", ["reader", "operator", "writer"])
def test_a_token_that_is_too_short_is_found_before_the_launch(name: str) -> None:
    settings = config.parse({"ui": {"tokens": {name: "${TOKEN}"}}}, "file")
    (found,) = inspect(settings, {"TOKEN": "short"})
    assert str(found) == f"ui.tokens.{name}: ${{TOKEN}} must have at least 16 characters"


def test_a_port_that_is_in_use_is_noted_and_no_problem() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = inspect(config.parse({"ui": {"enabled": True, "port": port}}, "file"), {})
    assert [(each.path, each.problem) for each in found] == [("ui.port", False)]
    assert f"port {port} of 127.0.0.1 is in use here" in found[0].text


@pytest.mark.parametrize(
    ("ui", "said"),
    [
        ({"host": "0.0.0.0"}, "ui.host: must be a loopback address without ui.tokens and ui.trusted_proxies, got '0.0.0.0'"),
        ({"tokens": {"reader": "${T}", "writer": "${T}"}}, "ui.tokens: reader, operator and writer must differ"),
    ],
)
def test_what_would_let_everybody_in_is_found_before_the_launch(ui: dict[str, object], said: str) -> None:
    (found,) = inspect(config.parse({"ui": ui}, "file"), {"T": "t" * 16})
    assert found.problem
    assert str(found).startswith(said)

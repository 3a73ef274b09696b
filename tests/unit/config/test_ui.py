"""What the configuration says of the page."""

from __future__ import annotations

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

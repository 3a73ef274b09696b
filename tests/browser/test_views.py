"""Every view in a real browser: `make test-ui`. Skipped where Playwright, Chromium or axe-core is not at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page import page_of
from tests.unit.ui.conftest import write

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = Path(os.environ.get("VISUTILITY_CHROMIUM", "/usr/bin/chromium"))
AXE = Path(os.environ.get("VISUTILITY_AXE", "node_modules/axe-core/axe.min.js"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists() or not AXE.exists(), reason="needs Chromium and axe-core: make test-ui")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"sqlite:///{tmp_path_factory.mktemp('ui')}/store"
    write(url)
    with page_of(url) as address:
        yield address


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_opens_without_errors_and_axe_finds_no_serious_fault(
    served: str, scheme: str, width: int, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("VISUTILITY_SHOTS", tmp_path))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page = context.new_page()
        page.goto(f"{served}/episodes")
        episode = page.locator("tbody a.mono").first.get_attribute("href")
        page.close()
        views = {"fleet": "/", "model": "/models/m", "story": episode, "orders": "/orders", "system": "/system"}
        for name, path in (views | {"what-if": "/what-if/m", "studies": "/studies"}).items():
            check_view(context, name, f"{served}{path}", folder / f"{name}-{scheme}-{width}.png")
        browser.close()


def check_view(context: Any, name: str, url: str, picture: Path) -> None:
    """Open a view, take its picture, and find it as wide as the window, without errors and without serious faults of axe's."""
    page = context.new_page()
    wrong = noted(page)
    page.goto(url)
    page.wait_for_selector("#live[data-state=live]")
    if name in {"model", "story"}:
        page.wait_for_selector("canvas")
    page.screenshot(path=picture, full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in {"serious", "critical"}]
    assert (name, wrong, serious) == (name, [], [])
    page.close()


def noted(page: Any) -> list[str]:
    """Return a list that gets whatever goes wrong on a page: its console, its scripts and its requests."""
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url) if _counts(request) else None)
    return wrong


def _counts(request: Any) -> bool:
    """A stream, and what a page was still loading when it was left, end so."""
    return "/events" not in request.url and request.failure != "net::ERR_ABORTED"

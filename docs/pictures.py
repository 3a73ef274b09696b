"""Take the pictures of the page and of the report that the documentation shows: `python -m docs.pictures STORE`.

STORE is the URL of the demo's store, `sqlite:///./demo-out/store` after `make demo`. The fleet is one that this script makes.
Needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from actors import config, wire
from actors.clock import Instant, SystemClock
from actors.config.stored import store_settings
from actors.detection.state import DetectionState, Ingest
from actors.storage import Store
from drivers import report
from tests.page import page_of

_IMAGES: Final = Path(__file__).parent / "img"
_CHROMIUM: Final = os.environ.get("VISUTILITY_CHROMIUM", "/usr/bin/chromium")
_COLOURS: Final = 250  # of a palette: half of the size, and nothing that a reader sees
# The level of each model of the fleet before and after, and its labels.
_FLEET: Final = {
    "fraud-eu": (0.93, 0.71, {"team": "risk", "tier": "1"}),
    "fraud-us": (0.94, 0.94, {"team": "risk", "tier": "1"}),
    "churn": (0.81, 0.76, {"team": "growth"}),
    "delivery-time": (0.88, 0.88, {"team": "logistics"}),
    "search-ranking": (0.72, 0.72, {"team": "growth", "tier": "1"}),
    "price": (0.9, 0.9, {"team": "growth"}),
    "spam": (0.97, 0.97, {"team": "trust"}),
}


def main(argv: list[str] | None = None) -> int:
    """Take each picture."""
    (url,) = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        fleet = f"sqlite:///{folder}/store"
        _make_fleet(fleet)
        with page_of(fleet) as page:
            _take(browser, f"{page}/", "ui-fleet", height=520)
        with page_of(url) as page:
            _take(browser, f"{page}/models/flights", "ui-model", height=800)
            _take(browser, _second(browser, f"{page}/episodes"), "ui-story", height=1000, scheme="dark")
            _take(browser, f"{page}/what-if/flights", "ui-what-if", height=900, click="Rehearse")
        written = Path(folder) / "report.html"
        report.main(["--storage", url, "-o", str(written)])
        _take(browser, written.as_uri(), "report", width=1100, height=1370)
        browser.close()
    return 0


def _make_fleet(url: str) -> None:
    store, now_s = Store(url), SystemClock().now().wall_s
    random = np.random.default_rng(0)
    document = {"models": {name: {"labels": labels} for name, (_, _, labels) in _FLEET.items()}}
    store_settings(store, config.parse(document, "pictures"), now_s)
    for number, (name, (before, after, _)) in enumerate(_FLEET.items()):
        count = 600 - 40 * number
        values = np.clip(random.normal(np.repeat([before, after], [count, 60]), 0.01), 0, 1)
        times = now_s - 30 * np.arange(len(values))[::-1] - 9 * number
        detection = DetectionState(store, f"detector:{name}", number, Instant(now_s, 0.0, "boot"))
        for at in range(0, len(values), 30):
            chosen = slice(at, at + 30)
            batch = wire.batch_of_columns({"accuracy": values[chosen]}, version="v3", timestamps=times[chosen], now_s=now_s)
            received = Instant(float(times[chosen][-1]), 0.0, "boot")
            detection.commit([Ingest(name, "p", at, wire.pack(batch))], received)
    store.close()


def _second(browser: Any, url: str) -> str:
    """Return the URL of the second episode of a list: the first is open."""
    page = browser.new_page()
    page.goto(url)
    found = page.locator("tbody a.mono").nth(1).get_attribute("href")
    page.close()
    return url.rpartition("/")[0] + str(found)


def _take(
    browser: Any, url: str, name: str, *, width: int = 1280, height: int, scheme: str = "light", click: str | None = None
) -> None:
    page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}).new_page()
    page.goto(url)
    if url.startswith("http"):
        page.wait_for_selector("#live[data-state=live]")
    if click:
        page.get_by_role("button", name=click).click()
        page.wait_for_selector("#live[data-state=live]")
    page.wait_for_timeout(700)  # the charts are drawn
    target = _IMAGES / f"{name}.png"
    page.screenshot(path=target)
    page.context.close()
    with Image.open(target) as taken:
        taken.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    sys.exit(main())

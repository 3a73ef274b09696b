"""A running system with its page, seen and acted on in a real browser alone: `make test-ui`."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import people
from actors.system import System
from actors.ui import serving
from tests.browser.test_views import CHROMIUM, check_view, noted, playwright, pytestmark
from tests.speed import slow

__all__ = ["pytestmark"]
SHOTS = os.environ.get("VISUTILITY_SHOTS")


def eventually(claim: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    deadline = time.monotonic() + slow(within_s)
    while not (found := claim()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    asked = urllib.request.Request(f"{url}/api/v1{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=slow(30)) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def get(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}/api/v1{path}", timeout=slow(30)) as answer:
        return json.load(answer)


def log(url: str, model: str, level: float, count: int, version: str = "v1") -> None:
    events = [{"model_name": model, "model_version": version, "accuracy": level + 0.01 * (i % 5 - 2)} for i in range(count)]
    told = post(url, "/events", {"events": events})
    assert told["accepted"] == count, told


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, str]]:
    """A private Ray with a system that serves its page; `fraud` drifts, `dead` has an order that nothing launches."""
    import ray

    import actors

    with serving.bound("127.0.0.1", 0) as free:
        port = int(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("live")
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=150 * 2**20, log_to_driver=False)
    hook = {"kind": "webhook", "url": "http://127.0.0.1:9/none"}
    system = actors.start(
        {
            "storage": f"sqlite:///{folder}/store",
            "ui": {"enabled": True, "port": port},
            "detectors": {"processes": 1},
            "delivery": {"attempts": 1, "backoff": "100ms"},
            "orders": {"max_running": 2},
            "defaults": {"cooldown": "0s"},
            "models": {"dead*": {"handler": hook, "labels": {"team": "risk"}}, "fraud": {"labels": {"team": "pay"}}},
        }
    )
    url = f"http://127.0.0.1:{port}"
    for model in ("fraud", "dead", "dead-too", "calm"):
        log(url, model, 0.93, 600)
    for model in ("fraud", "dead", "dead-too"):
        log(url, model, 0.6, 60)
    eventually(lambda: len(get(url, "/orders?state=dead")) == 2, "two orders are dead letters")
    yield system, url
    system.stop()
    ray.shutdown()


@pytest.fixture
def page(live: tuple[System, str]) -> Iterator[Any]:
    """A page of the browser on which nothing may go wrong."""
    del live
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(slow(15) * 1000)
        wrong = noted(page)
        yield page
        assert wrong == []
        browser.close()


def opened(page: Any, url: str, name: str | None = None) -> None:
    page.goto(url)
    page.wait_for_selector("#live[data-state=live]")
    if name and SHOTS:
        page.wait_for_timeout(500)
        page.screenshot(path=Path(SHOTS) / f"live-{name}.png")


def clicked(page: Any, button: str, said: str, comment: str | None = None, within: str = "#main") -> str:
    """Click the first button of that name, with a comment where it takes one, and return what the page says."""
    form = page.locator(f"{within} form.act", has=page.get_by_role("button", name=button, exact=True)).first
    if comment:
        form.locator("input[name=comment]").fill(comment)
    form.get_by_role("button", name=button, exact=True).click()
    page.locator("#said", has_text=said).wait_for()
    return str(page.locator("#said").inner_text())


def test_every_act_is_done_by_clicking_and_found_in_the_store(live: tuple[System, str], page: Any) -> None:
    system, url = live
    me = people.local_user()
    episode = next(each for each in get(url, "/episodes?model=fraud"))["id"]
    opened(page, f"{url}/episodes/{episode}", "episode")
    clicked(page, "Acknowledge", "is acknowledged", "the sale")
    page.locator("select[name=verdict]").select_option("false")
    clicked(page, "Record verdict", "false alarm", "a holiday")
    told = get(url, f"/story/{episode}")["episode"]
    assert told["acknowledged_by"] == me
    assert (told["judged"]["verdict"], told["judged"]["by"], told["judged"]["comment"]) == ("false", me, "a holiday")

    opened(page, f"{url}/models/fraud", "model")
    page.locator("select[name=duration]").select_option("6h")
    clicked(page, "Silence", "is silent for 6h", "migration")
    (silence,) = system.retrains.silences("fraud")
    assert (silence["by"], silence["comment"]) == (me, "migration")
    opened(page, f"{url}/models/fraud")
    clicked(page, "End it", "has ended")
    assert system.retrains.silences("fraud") == []
    opened(page, f"{url}/models/calm")
    clicked(page, "Trigger a retrain", "retrain of calm: ", "new labels")
    triggered = eventually(lambda: get(url, "/orders?model=calm"), "the order is there")[0]
    assert [(act["act"], act["by"], act["comment"]) for act in triggered["acts"]] == [("triggered", me, "new labels")]

    first, second = (each["id"] for each in get(url, "/orders?state=dead"))
    opened(page, f"{url}/episodes/{first}", "order")
    clicked(page, "Retry", f"order {first}", "the receiver is back")
    opened(page, f"{url}/episodes/{second}")
    clicked(page, "Dismiss", "is dismissed", "by hand")
    acts = {act["act"]: act["by"] for each in (first, second) for act in get(url, f"/story/{each}")["order"]["acts"]}
    assert acts == {"retried": me, "dismissed": me}

    log(url, "calm", 0.93, 60, "v2")
    opened(page, f"{url}/models/calm")
    clicked(page, "Roll back", "is live again")
    assert next(each["version"] for each in get(url, "/versions/calm") if each["state"] == "live") == "v1"
    # The page still shows v2 as live until it is told of the rollback.
    clicked(page, "Promote", "version v2 of calm is live", within="#rest tr:has-text('v2')")
    live_version = next(each for each in get(url, "/versions/calm") if each["state"] == "live")
    assert (live_version["version"], live_version["by"]) == ("v2", me)


def test_an_order_that_waits_is_moved_to_the_front(live: tuple[System, str], page: Any) -> None:
    system, url = live
    for number in range(4):
        log(url, f"line-{number}", 0.9, 1)
        system.retrains.trigger(f"line-{number}", reason="in line")
    waiting = eventually(lambda: [row["id"] for row in system.retrains.queue()], "orders wait")
    opened(page, f"{url}/orders", "orders")
    row = page.locator("tr", has_text=waiting[-1])
    row.get_by_role("button", name="To the front").click()
    page.locator("#said", has_text="is the next").wait_for()
    # It may have been launched since: its record says what was done.
    assert "front" in [act["act"] for act in get(url, f"/story/{waiting[-1]}")["order"]["acts"]]


def test_a_new_point_is_on_an_open_page_within_two_seconds_of_its_acknowledgement(live: tuple[System, str], page: Any) -> None:
    _, url = live
    opened(page, f"{url}/models/fraud")
    page.wait_for_selector("canvas")
    took = []
    for number in range(5):
        with page.expect_response(lambda answer: "/series/fraud" in answer.url, timeout=slow(20) * 1000) as seen:
            log(url, "fraud", 0.61 + number / 1000, 5)
            acknowledged = time.monotonic()
        points = seen.value.json()["metrics"]["accuracy"]["values"]
        took.append(time.monotonic() - acknowledged)
        assert points[-1] == pytest.approx(0.61 + number / 1000, abs=0.03)
        page.wait_for_timeout(400)
    print(f"\nfrom the acknowledgement to the point on the page: {', '.join(f'{each:.2f} s' for each in took)}")  # noqa: T201  a figure
    assert sorted(took)[2] < slow(2.0)


def test_a_study_is_seen_while_it_runs_and_is_stopped(live: tuple[System, str], page: Any) -> None:
    system, url = live

    def objective(params: dict[str, Any]) -> float:
        import time

        time.sleep(0.05)
        return float((params["lr"] - 3e-4) ** 2 + params["dropout"])

    space = {"lr": [1e-5, 1e-2, "log"], "dropout": [0.0, 0.5], "kind": {"choices": ["a", "b"]}}

    def search() -> None:
        system.tuner.run(objective, space, trials=2000, name="search", seed=0, max_concurrent=2)

    running = threading.Thread(target=search, daemon=True)
    running.start()
    eventually(
        lambda: any(each["name"] == "search" and get(url, "/studies/search")["done"] > 20 for each in get(url, "/studies")),
        "it runs",
        60,
    )
    opened(page, f"{url}/studies")
    page.get_by_role("link", name="search").click()
    page.wait_for_selector("svg.parallel path.best")
    before = page.locator("svg.parallel path").count()
    eventually(lambda: page.locator("svg.parallel path").count() > before, "new trials are drawn")
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / "live-study.png", full_page=True)
    clicked(page, "Stop the study", "is stopped")
    eventually(lambda: get(url, "/studies/search")["state"] == "STOPPED", "it has stopped")
    running.join(slow(30))


def test_the_keyboard_alone_goes_through_the_fleet_and_acknowledges(live: tuple[System, str], page: Any) -> None:
    _, url = live
    opened(page, f"{url}/", "fleet")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "/models/dead":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/dead")
    episode = get(url, "/episodes?model=dead")[0]["id"]
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == f"/episodes/{episode}":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/episodes/**")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Comment: Acknowledge":
            break
    page.keyboard.type("seen")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="is acknowledged").wait_for()
    assert get(url, f"/story/{episode}")["episode"]["acknowledged_at"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_of_a_live_system_is_whole_and_axe_finds_no_serious_fault(
    live: tuple[System, str], scheme: str, width: int, tmp_path: Path
) -> None:
    _, url = live
    episode = get(url, "/episodes?model=fraud")[0]["id"]
    views = {"fleet": "/", "model": "/models/fraud", "story": f"/episodes/{episode}", "orders": "/orders", "system": "/system"}
    views |= {"what-if": "/what-if/fraud", "episodes": "/episodes", "studies": "/studies"}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        for name, path in views.items():
            check_view(context, name, f"{url}{path}", Path(SHOTS or tmp_path) / f"live-{name}-{scheme}-{width}.png")
        browser.close()

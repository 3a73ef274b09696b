"""Measure the page: server time, first paint and the cost of an open page on a store; a new point on a live system.

python -m tests.bench ui --section server --models 20000
python -m tests.bench ui --section browser      # needs Chromium and Playwright
python -m tests.bench ui --section live         # a system on a Ray of its own, with the page as one of its actors
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from actors.cluster.watchdog import processor_s
from actors.detection.tables import DETECTOR, models
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from tests.database import free_port
from tests.speed import slow
from tests.unit.ui.conftest import write

_PATHS: Final = ("/", "/?page=200", "/?sort=events&order=down", "/?text=model-00", "/?state=drifting&page=7", "/models/m")
_FIRST: Final = 600  # events before the page is opened
_CHROMIUM: Final = os.environ.get("VISUTILITY_CHROMIUM", "/usr/bin/chromium")
# In frames after the answer with the new point: drawn, and then shown.
_SHOWN: Final = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of a section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=_SECTIONS, default="server")
    parser.add_argument("--models", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=60, help="of each path; of the browser: loads; live: points")
    parser.add_argument("--idle-s", type=float, default=30.0, help="how long the cost of an open page is measured")
    asked = parser.parse_args(argv)
    _SECTIONS[asked.section](asked)
    return 0


def _filled(folder: str, count: int) -> str:
    """Return the URL of a new store with so many models."""
    url = f"sqlite:///{folder}/store"
    store = write(url)
    with store.part(DETECTOR, 0).write() as connection:
        row = dict(connection.execute(select(models).where(models.c.model == "m")).mappings().one())
        connection.execute(insert(models), [{**row, "model": f"model-{number:05d}"} for number in range(count)])
    store.close()
    return url


def _server(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = StoreBackend(_filled(folder, asked.models))
        began = time.perf_counter()
        backend.fleet()
        print(f"{asked.models} models, first read of the store: {time.perf_counter() - began:.2f} s")
        page = TestClient(create(backend, Access()), base_url="http://127.0.0.1", client=("127.0.0.1", 5))
        for path in _PATHS:
            took_ms = []
            for _ in range(asked.requests):
                began = time.perf_counter()
                assert page.get(path).status_code == 200
                took_ms.append(1000 * (time.perf_counter() - began))
            print(f"{path:30} {_quantiles(took_ms)}")
        print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        backend.close()


def _browser(asked: argparse.Namespace) -> None:
    """First paint with nothing cached, and the processor time of the server with a page open and without."""
    with tempfile.TemporaryDirectory() as folder, _served(_filled(folder, asked.models)) as (url, pid), _chromium() as browser:
        for path in ("/", "/models/m"):
            took_ms = []
            for _ in range(asked.requests):
                page = browser.new_context().new_page()
                page.goto(f"{url}{path}")
                page.wait_for_selector("#live[data-state=live]")
                took_ms.append(float(_until(lambda page=page: page.evaluate(_PAINT), "it is painted")))  # type: ignore[misc]
                page.context.close()
            print(f"first paint of {path:10} with {asked.models} models, nothing cached: {_quantiles(took_ms)}")
        print(f"the page's process without an open page: {_share(pid, asked.idle_s):.2%} of a core")
        page = browser.new_page()
        page.goto(f"{url}/")
        page.wait_for_selector("#live[data-state=live]")
        page.wait_for_timeout(2000)
        print(f"the page's process with an open page:    {_share(pid, asked.idle_s):.2%} of a core")


def _live(asked: argparse.Namespace) -> None:
    """From the acknowledgement of an event to its point on an open page, and what that page costs while nothing happens."""
    import ray

    import actors

    port = free_port()
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder, _chromium() as browser:
        document = {
            "storage": f"sqlite:///{folder}/store",
            "ui": {"enabled": True, "port": port},
            "detectors": {"processes": 1},
        }
        system = actors.start(document, namespace="bench-ui")
        url = f"http://127.0.0.1:{port}"
        _post(url, [0.9 + 0.01 * (each % 5 - 2) for each in range(_FIRST)])
        pid = int(system.status()["actors"]["page"]["pid"] or 0)
        print(f"the page's actor without an open page: {_share(pid, asked.idle_s):.2%} of a core")
        page = browser.new_page()
        page.goto(f"{url}/models/m")
        page.wait_for_selector("#live[data-state=live]")
        page.wait_for_selector("canvas")
        page.wait_for_timeout(2000)
        print(f"the page's actor with an open page:    {_share(pid, asked.idle_s):.2%} of a core")
        took_ms = []
        for number in range(asked.requests):
            rows = _FIRST + number + 1
            with page.expect_response(lambda answer, rows=rows: _has(answer, rows), timeout=slow(30) * 1000):
                _post(url, [0.9])
                acknowledged = time.perf_counter()
            page.evaluate(_SHOWN)
            took_ms.append(1000 * (time.perf_counter() - acknowledged))
            page.wait_for_timeout(700)
        print(f"from the acknowledgement of an event to its point on an open page: {_quantiles(took_ms)}")
        system.stop()
    ray.shutdown()


def _has(answer: Any, rows: int) -> bool:
    """Return whether an answer to the page holds so many events."""
    return "/series/m" in answer.url and sum(answer.json()["metrics"]["accuracy"]["rows"]) == rows


def _post(url: str, values: Sequence[float]) -> None:
    events = [{"model_name": "m", "model_version": "1", "accuracy": value} for value in values]
    body = json.dumps({"events": events}).encode()
    asked = urllib.request.Request(f"{url}/api/v1/events", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=slow(30)) as answer:
        told = json.load(answer)
    assert told["accepted"] == len(values), told


@contextlib.contextmanager
def _served(url: str) -> Iterator[tuple[str, int]]:
    """Run `visutility ui` on a store; give its address and its process."""
    port = free_port()
    command = [sys.executable, "-m", "drivers.ui", "--storage", url, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            assert "read only" in served.stdout.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=slow(60)):
                pass  # the fleet has been read
            yield f"http://127.0.0.1:{port}", served.pid
        finally:
            served.terminate()


@contextlib.contextmanager
def _chromium() -> Iterator[Any]:
    if not Path(_CHROMIUM).exists():
        raise SystemExit(f"this section needs Chromium at {_CHROMIUM}: set VISUTILITY_CHROMIUM")
    from playwright.sync_api import sync_playwright  # the extra `browser`; the server's times do without

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _share(pid: int, for_s: float) -> float:
    """Return the share of a core that a process uses over a time."""
    before, began = processor_s(pid), time.perf_counter()
    time.sleep(for_s)
    after = processor_s(pid)
    assert before is not None
    assert after is not None
    return (after - before) / (time.perf_counter() - began)


def _until(claim: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + slow(30)
    while not (found := claim()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def _quantiles(took_ms: Sequence[float]) -> str:
    p50, p95 = np.quantile(took_ms, [0.5, 0.95])
    return f"median {p50:6.1f} ms   p95 {p95:6.1f} ms   most {max(took_ms):6.1f} ms"


_SECTIONS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {"server": _server, "browser": _browser, "live": _live}

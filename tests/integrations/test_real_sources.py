"""Sources against the real programs: Prometheus (Debian's package) and an MLflow server on SQLite, killed meanwhile."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import config
from actors.sources import kinds
from actors.sources.feed import Feed
from actors.sources.state import SourcesState
from actors.storage import Store
from tests.contracts.test_sources import Ledger
from tests.speed import slow

PROMETHEUS = os.environ.get("PROMETHEUS") or shutil.which("prometheus")


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(check: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    deadline = time.monotonic() + slow(within_s)
    while time.monotonic() < deadline:
        try:
            if found := check():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not in time: {what}")


class Program:
    """A server that can be killed and begun again."""

    def __init__(self, command: list[str], ready: str, folder: Path) -> None:
        self.command, self.ready, self.folder = command, ready, folder
        self.begin()

    def begin(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        until(lambda: urllib.request.urlopen(self.ready, timeout=5).status == 200, f"{self.ready} answers")

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


class Page(http.server.BaseHTTPRequestHandler):
    """Exposes a gauge that counts up: no two scrapes have one value."""

    value = 0

    def do_GET(self) -> None:
        type(self).value += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            f'accuracy{{model="fraud",version="7"}} {self.value / 2**20}\nrequests{{model="fraud",version="7"}} 20\n'.encode()
        )

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def exposed() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def feed(tmp_path: Path, ledger: Ledger, source: dict[str, Any]) -> Callable[[float], None]:
    """Return what lets the source work for some seconds, each time in a new process's state on the same store."""
    settings = config.load({"sources": {"it": source}}).sources["it"]

    def work(seconds: float) -> None:
        made = Feed("it", settings, SourcesState(Store(f"sqlite:///{tmp_path}/store")), ledger, kinds.make)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(made.step(time.time()), 0.3))

    return work


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on the PATH (PROMETHEUS=file names one)")
def test_prometheus_that_is_killed_is_caught_up_on_and_no_step_counts_twice(tmp_path: Path, exposed: int) -> None:
    own = port()
    (tmp_path / "prometheus.yml").write_text(
        f"scrape_configs:\n- job_name: x\n  scrape_interval: 1s\n  static_configs: [{{targets: ['127.0.0.1:{exposed}']}}]\n"
    )
    command = [str(PROMETHEUS), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    program = Program([*command, f"--web.listen-address=127.0.0.1:{own}"], f"http://127.0.0.1:{own}/-/ready", tmp_path)
    ledger = Ledger()
    source = {"kind": "prometheus", "url": f"http://127.0.0.1:{own}", "query": "accuracy", "n": "requests"}
    work = feed(tmp_path, ledger, source | {"step": "1s", "delay": "3s", "backfill": "1m", "every": "500ms"})
    try:
        until(lambda: Page.value > 5, "it was scraped")
        work(6.0)
        program.kill()
        work(3.0)  # nothing to read; it backs off
        ledger.is_down = True
        program.begin()
        work(4.0)
        ledger.is_down = False
        work(8.0)
        until(lambda: work(1.0) or len(set(ledger.values)) > 15, "it is caught up on")
    finally:
        program.kill()
    assert ledger.models == {"fraud"}
    assert set(ledger.weights) == {20.0}
    # A step without a scrape of its own repeats the value before, as PromQL says; at no step is an older value read again.
    assert ledger.values == sorted(ledger.values)
    (mark,) = ledger.marks.values()
    assert mark == len(ledger.values)


def test_mlflow_server_that_is_killed_loses_nothing_and_nothing_counts_twice(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    own = port()
    url = f"http://127.0.0.1:{own}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(own), "--workers", "1"]
    program = Program([*command, "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"], f"{url}/health", tmp_path)
    ledger = Ledger()
    source = {
        "kind": "mlflow",
        "url": url,
        "experiments": ["fraud"],
        "metrics": {"val": "val"},
        "promise": "val",
        "every": "500ms",
    }
    work = feed(tmp_path, ledger, source)
    script = (
        "import sys, mlflow\n"
        f"mlflow.set_tracking_uri({url!r}); mlflow.set_experiment('fraud')\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_param('n', 300)\n"
        "    for step in range(5): mlflow.log_metric('val', (int(sys.argv[1]) * 5 + step) / 1024, step=step)\n"
    )
    try:
        for turn in range(3):
            subprocess.run(
                [sys.executable, "-c", script, str(turn)], check=True, capture_output=True, cwd=tmp_path, timeout=slow(100)
            )
            work(3.0)
            program.kill()
            work(1.0)
            program.begin()
        until(lambda: work(2.0) or len(ledger.values) >= 15, "all are read")
    finally:
        program.kill()
    assert sorted(ledger.values) == [value / 1024 for value in range(15)]
    assert sorted(each["values"]["accuracy"] for each in ledger.promises) == [4 / 1024, 9 / 1024, 14 / 1024]
    assert {each["n"] for each in ledger.promises} == {300.0}

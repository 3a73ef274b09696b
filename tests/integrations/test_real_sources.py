"""Sources against the real programs: Prometheus (Debian's package) and an MLflow server on SQLite, killed meanwhile."""

from __future__ import annotations

import http.server
import importlib.util
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
# A Python with MLflow: its hundred packages may stand in a venv of their own.
MLFLOW = os.environ.get("MLFLOW_PYTHON") or (sys.executable if importlib.util.find_spec("mlflow") else None)
needs_mlflow = pytest.mark.skipif(MLFLOW is None, reason="no mlflow here (MLFLOW_PYTHON=file names a Python that has it)")


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

    def __init__(self, command: list[str], ready: str, folder: Path, *, ready_s: float = 60.0, **environment: str) -> None:
        self.command, self.ready, self.folder, self.ready_s = command, ready, folder, ready_s
        self.environment = os.environ | environment
        self.begin()

    def begin(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, env=self.environment, start_new_session=True
            )
        until(lambda: urllib.request.urlopen(self.ready, timeout=5).status == 200, f"{self.ready} answers", self.ready_s)

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


class MlflowServer(Program):
    """A tracking server and registry on SQLite."""

    def __init__(self, folder: Path) -> None:
        own = port()
        self.url = f"http://127.0.0.1:{own}"
        command = [str(MLFLOW), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(own), "--workers", "1"]
        super().__init__(
            [*command, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"],
            f"{self.url}/health",
            folder,
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # its runners of jobs of its own, seven processes more
            MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http",  # by itself it calls only https and public addresses
            MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
        )

    def run(self, script: str, *arguments: str) -> str:
        """Run a script that has `mlflow` and a `client`, as a job elsewhere would; return its last line."""
        head = f"import sys, mlflow\nmlflow.set_tracking_uri({self.url!r})\nclient = mlflow.MlflowClient()\n"
        done = subprocess.run(
            [str(MLFLOW), "-c", head + script, *arguments], check=False, capture_output=True, text=True, timeout=slow(100)
        )
        assert done.returncode == 0, done.stderr
        return next(iter(done.stdout.split()[-1:]), "")


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path)
    yield made
    made.kill()


TRAIN = """
mlflow.set_experiment('fraud')
with mlflow.start_run() as run:
    mlflow.log_param('n', 300)
    for step in range(5): mlflow.log_metric('val', (int(sys.argv[1]) * 5 + step) / 1024, step=step)
print(run.info.run_id)
"""
LATE = """
import time
client.log_metric(sys.argv[1], 'val', 77 / 1024, timestamp=1000, step=0)   # behind what was read of this metric
client.log_metric(sys.argv[1], 'val', 15 / 1024, step=9)
"""


@needs_mlflow
def test_mlflow_server_that_is_killed_loses_nothing_and_nothing_counts_twice(tmp_path: Path, mlflow: MlflowServer) -> None:
    ledger = Ledger()
    source = {
        "kind": "mlflow",
        "url": mlflow.url,
        "experiments": ["fraud"],
        "metrics": {"val": "val"},
        "promise": "val",
        "every": "500ms",
    }
    work = feed(tmp_path, ledger, source)
    for turn in range(3):
        run = mlflow.run(TRAIN, str(turn))
        if turn:  # the first is read before it is deleted below, with the process that reads killed by every `work`
            work(3.0)
        mlflow.kill()
        work(1.0)
        mlflow.begin()
        work(2.0)
    until(lambda: work(2.0) or len(ledger.values) >= 15, "all are read")
    mlflow.run("client.delete_run(sys.argv[1])", run)
    work(3.0)
    assert sorted(ledger.values) == [value / 1024 for value in range(15)]
    assert sorted(each["values"]["accuracy"] for each in ledger.promises) == [4 / 1024, 9 / 1024, 14 / 1024]
    assert {(each["n"], each["source"]) for each in ledger.promises} == {(300.0, "hold_out")}


@needs_mlflow
def test_values_of_a_running_run_that_come_late_and_a_run_that_is_deleted_before_it_ended(
    tmp_path: Path, mlflow: MlflowServer
) -> None:
    ledger = Ledger()
    work = feed(tmp_path, ledger, {"kind": "mlflow", "url": mlflow.url, "experiments": ["fraud"], "every": "300ms"})
    run = mlflow.run("client.create_experiment('fraud')\nprint(client.create_run('1').info.run_id)")
    mlflow.run("for step in range(5): client.log_metric(sys.argv[1], 'val', step / 1024, step=step)", run)
    until(lambda: work(1.0) or len(ledger.values) >= 5, "what was logged first is read")
    mlflow.run(LATE, run)
    until(lambda: work(1.0) or len(ledger.values) >= 6, "what is new is read")
    # Of a metric that was read, a value with an older time is behind its place, and is not read.
    assert sorted(ledger.values) == [*(value / 1024 for value in range(5)), 15 / 1024]
    mlflow.run("client.delete_run(sys.argv[1])", run)
    other = mlflow.run("print(client.create_run('1').info.run_id)")
    mlflow.run("client.log_metric(sys.argv[1], 'val', 0.75)", other)
    until(lambda: work(1.0) or len(ledger.values) >= 7, "the runs after a deleted one are read")
    assert ledger.values[-1] == 0.75

"""The targets of notifications in tests: a webhook's receiver, and Debian's Alertmanager with a configuration of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from tests.database import free_port
from tests.server import Server, reply
from tests.speed import slow

PROGRAM: Final = "prometheus-alertmanager"
NEEDS: Final = f"needs Debian's {PROGRAM}: apt-get install {PROGRAM}"
_CONFIGURATION: Final = """\
route: {{receiver: inbox, group_by: {group_by}, group_wait: {group_wait}, group_interval: 1s, repeat_interval: 4h}}
receivers:
  - {{name: inbox, webhook_configs: [{{url: "{inbox}", send_resolved: true, max_alerts: 0}}]}}
"""


class Inbox(Server):
    """Keeps each body that is posted, with the time of its receipt."""

    def __init__(self) -> None:
        self.got: list[tuple[float, dict[str, Any]]] = []
        super().__init__(self._take)

    def _take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.got.append((time.time(), json.loads(body)))
        reply(request, 204)


class Alertmanager:
    """A real one in `folder`, on a port of its own; what it passes on goes to an inbox."""

    def __init__(self, folder: Path, *, group_by: str = "['...']", group_wait: str = "1s") -> None:
        self.inbox = Inbox()
        self._folder, self._port = folder, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        said = _CONFIGURATION.format(group_by=group_by, group_wait=group_wait, inbox=self.inbox.url)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alertmanager.yml").write_text(said)
        self.start()

    def start(self) -> None:
        """Start it, again too; it finds what it knew."""
        program = shutil.which(PROGRAM)
        assert program is not None, NEEDS
        options = {"config.file": "alertmanager.yml", "storage.path": "data", "web.listen-address": f"127.0.0.1:{self._port}"}
        command = [program, "--cluster.listen-address=", *(f"--{name}={value}" for name, value in options.items())]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + slow(20)
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.1)
            else:
                return

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that it has now."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=slow(10)) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
            return found

    def passed_on(self) -> list[tuple[str, str]]:
        """Return the status and the id of every alert of every notification that it has sent."""
        sent = [body for _, body in list(self.inbox.got)]
        return [(alert["status"], alert["labels"]["id"]) for body in sent for alert in body["alerts"]]

    def end(self) -> None:
        """End the process; `start` begins it again."""
        self._process.terminate()
        self._process.wait(slow(20))

    def stop(self) -> None:
        """End it and its inbox."""
        self.end()
        self.inbox.stop()

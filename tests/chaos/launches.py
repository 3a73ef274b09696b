"""The launches as their targets see them: the function, the class and the receiver that the handlers call in a run.

A launch that runs holds a file lock which goes with its process: a second one of the same order at the same time cannot get
it, and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock
from typing import Any, Final

from actors.events import RetrainEvent
from tests.chaos import ledger
from tests.chaos.scenario import FOLDER_VARIABLE
from tests.server import Server, reply

LAUNCHES: Final = "launches.jsonl"
_RUNS_S: Final = 0.3


def retrain(event: RetrainEvent) -> None:
    """The retrain of the handler `task`."""
    with _running(Path(os.environ[FOLDER_VARIABLE]), "task", event):
        time.sleep(_RUNS_S)


class Launches:
    """The handler `module:Class` of the run."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def on_retrain(self, event: RetrainEvent) -> None:
        """Launch a retrain."""
        with _running(self._folder, "class", event):
            time.sleep(_RUNS_S)


@contextlib.contextmanager
def _running(folder: Path, handler: str, event: RetrainEvent) -> Iterator[None]:
    path = folder / LAUNCHES
    lock = os.open(folder / f"running-{event.id}", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    launch = {"handler": handler, "order": event.id, "episode": event.episode, "model": event.model_name}
    ledger.note(path, **launch, at=time.time(), alone=alone)
    try:
        yield
    finally:
        os.close(lock)


class Receiver:
    """The receiver of webhooks: keeps the ids that it has seen, as docs tell receivers to, and launches once for each.

    `cuts` decides, for the nth post, whether the connection is cut after the launch and before the answer. Every other order
    is put off (503) until `late_s` seconds after its first post: the effect comes late after the claim, the next one does not.
    """

    def __init__(self, folder: Path, cuts: Callable[[int], bool], *, late_s: float = 0.0) -> None:
        self._path = folder / LAUNCHES
        self._cuts = cuts
        self._late_s = late_s
        self._seen: set[str] = set()
        self._first: dict[str, float] = {}  # when each order was posted for the first time
        self._posts = 0
        self._taken: Counter[str] = Counter()  # how often each order was posted and not put off
        self._launched: list[tuple[float, bool]] = []  # when each order was launched, and whether that was late
        self._lock = Lock()
        self._server = Server(self._answer)
        self.port = self._server.port

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        status = self.take(json.loads(body))
        if status is not None:
            reply(request, status)
            return
        with contextlib.suppress(OSError):
            request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    def take(self, event: dict[str, Any]) -> int | None:
        """Take one post; give the status of the answer, None where it is to be cut off."""
        with self._lock:
            order, now_s = event["data"]["id"], time.monotonic()
            first_s = self._first.setdefault(order, now_s)
            is_late = list(self._first).index(order) % 2 == 0
            if is_late and now_s < first_s + self._late_s:
                return 503
            self._posts += 1
            if order not in self._taken:
                self._launched.append((now_s, is_late))
            self._taken[order] += 1
            number = self._posts
            if event["id"] not in self._seen:
                self._seen.add(event["id"])
                data = event["data"]
                launch = {"handler": "webhook", "order": event["id"], "episode": data["episode"], "model": data["model_name"]}
                ledger.note(self._path, **launch, at=time.time(), alone=True)
        return None if self._cuts(number) else 202

    def launched(self, *, times: int = 1) -> int:
        """Count the orders that were posted so often at least, posts that were put off left out."""
        with self._lock:
            return sum(posted >= times for posted in self._taken.values())

    def after_late(self) -> list[float]:
        """Return the seconds from each late launch to the one that came next."""
        with self._lock:
            return [after_s - before_s for (before_s, late), (after_s, _) in itertools.pairwise(self._launched) if late]

    def close(self) -> None:
        """Listen no more."""
        self._server.stop()

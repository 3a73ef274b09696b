"""Kill the notifier at each of its steps and at any moment, and count what is lost or sent twice.

    python -m tests.notify.drill --kills 200

Its receivers are a webhook and a real Alertmanager, which passes on what it gets. Exit 1 where anything is lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from actors import config, failpoints
from actors.config.stored import store_settings
from actors.detection.tables import DETECTOR, happened
from actors.replies import happening
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, happenings
from actors.storage.notify import NOTIFY, read_receivers
from tests.notify.stage import NEEDS, PROGRAM, Alertmanager, Inbox
from tests.speed import slow

_STEPS: Final = ("notifier.read", "notifier.begun", "notifier.sent", "notifier.settled", "any moment")
_PATIENCE_S: Final = 60.0


class Lives:
    """The process that begins notifiers."""

    def __init__(self, url: str, points: Path) -> None:
        command = [sys.executable, "-m", "tests.notify.lives", url]
        environment = {**os.environ, "VISUTILITY_FAILPOINTS": str(points)}
        self._process = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self) -> int:
        """Begin a life, and return its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> None:
        """Wait until the life has ended."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ended\n"

    def stop(self) -> None:
        """End it, between two lives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(slow(20))
        self._process.stdout.close()


class Drill:
    """One run: what was written, and what came out."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.hook = Inbox()
        self.manager = Alertmanager(folder / "alertmanager")
        self.store = Store(f"sqlite:///{folder}/store")
        self._points = folder / "points"
        self._points.mkdir()
        route = {"group_by": ["model"], "group_wait": 0, "group_interval": 0, "repeat_every": None, "silences": "ignore"}
        receivers = {
            "hook": {"kind": "webhook", "url": self.hook.url},
            "manager": {"kind": "alertmanager", "url": self.manager.url, "resend": "5s"},
        }
        document = {"notify": {"receivers": receivers, "routes": [{"receivers": ["hook", "manager"], **route}]}}
        store_settings(self.store, config.load(document), time.time())
        self.store.part(DISPATCHER)
        self.store.part(DETECTOR, 0)
        self.lives = Lives(self.store.url, self._points)
        self.written: list[str] = []
        self._random = random.Random(seed)
        self._one_life(lambda: bool(self._waiting() == 0 and self._has_started()))

    def kill_once(self, number: int) -> None:
        """Write what happens before and while a notifier lives, and kill it."""
        step = _STEPS[number % len(_STEPS)]
        self._write(2)
        point = self._points / step
        if step in _STEPS[:-1]:
            failpoints.arm(self._points, step, "exit")
        life = self.lives.begin()
        for _ in range(self._random.randrange(3)):
            time.sleep(self._random.uniform(0, 0.02))
            self._write(1)
        if step == _STEPS[-1]:
            time.sleep(self._random.uniform(0, 0.15))
        else:
            self._until(lambda: not point.exists(), f"{step} is reached")
        self._kill(life)
        self.lives.wait()

    def settle(self) -> None:
        """Let a notifier live until everything is told."""
        self._one_life(lambda: self._waiting() == 0)
        self._until(lambda: len(self.manager.passed_on()) >= len(self.written), "Alertmanager has passed all on", fails=False)

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many are lost, and how many doubled, at each receiver."""
        told: dict[str, list[str]] = {}
        for _, body in self.hook.got:
            data = body["data"]
            told.setdefault(data["id"], [each["happening"]["id"] for each in data["firing"]])
        at = {
            "webhook, by id": Counter(id_ for message in told.values() for id_ in message),
            "Alertmanager's alerts": Counter(alert["labels"]["id"] for alert in self.manager.alerts()),
            "passed on by Alertmanager": Counter(id_ for _, id_ in self.manager.passed_on()),
        }
        lost = {name: len(set(self.written) - counted.keys()) for name, counted in at.items()}
        return lost, {name: sum(number - 1 for number in counted.values()) for name, counted in at.items()}

    def stop(self) -> None:
        """End all that was started."""
        self.lives.stop()
        self.manager.stop()
        self.hook.stop()
        self.store.close()

    def _write(self, rows: int) -> None:
        made = []
        for _ in range(rows):
            key, now = f"o-{len(self.written)}", time.time()
            made.append(happening("order_dead", key, now, "critical", model=key, subject=key))
            self.written.append(made[-1]["id"])
        with self.store.part(DETECTOR, 0).write() as connection:
            happenings.record(connection, happened, made)

    def _has_started(self) -> bool:
        with self.store.part(NOTIFY).read() as connection:
            return connection.exec_driver_sql("SELECT count(*) FROM notify_cursors").scalar() != 0

    def _waiting(self) -> int:
        with self.store.part(NOTIFY).read() as connection:
            waits = sum(each["waiting"] for each in read_receivers(connection, ["hook", "manager"]).values())
            read = connection.exec_driver_sql("SELECT number FROM notify_cursors WHERE part = 'detector-0'").scalar() or 0
        return waits + len(self.written) - int(read)

    def _one_life(self, is_over: object) -> None:
        life = self.lives.begin()
        self._until(is_over, "all is told")
        self._kill(life)
        self.lives.wait()

    def _kill(self, life: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(life, signal.SIGKILL)

    def _until(self, is_so: object, what: str, *, fails: bool = True) -> None:
        assert callable(is_so)
        deadline = time.monotonic() + slow(_PATIENCE_S)
        while not is_so():
            if time.monotonic() > deadline:
                assert not fails, f"not within {slow(_PATIENCE_S):g} s: {what}"
                return
            time.sleep(0.005)


@contextlib.contextmanager
def run(kills: int, seed: int) -> Iterator[Drill]:
    """Run the drill and give what came out."""
    with tempfile.TemporaryDirectory() as folder:
        drill = Drill(Path(folder), seed)
        try:
            for number in range(kills):
                drill.kill_once(number)
            drill.settle()
            yield drill
        finally:
            drill.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    if shutil.which(PROGRAM) is None:
        print(NEEDS, file=sys.stderr)
        return 2
    began = time.monotonic()
    with run(asked.kills, asked.seed) as drill:
        lost, doubled = drill.counts()
        posts = len(drill.hook.got)
        took_s = time.monotonic() - began
        print(f"{asked.kills} kills, {len(drill.written)} happenings, {posts} posts to the webhook, {took_s:.0f} s")
        for name in lost:
            print(f"{name:28} lost {lost[name]}, doubled {doubled[name]}")
    return int(any(lost.values()) or any(doubled.values()))


if __name__ == "__main__":
    sys.exit(main())

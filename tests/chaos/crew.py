"""Producers and consumers around the system, started again after a kill, and a reader of their acknowledgements."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tests.chaos import processes
from tests.chaos.ledger import Ack, AckReader
from tests.chaos.producers import CLIENT_SOURCES, ack_path
from tests.chaos.scenario import MODELS, Scenario
from tests.speed import slow

# The producer whose acknowledgements say how long a fault was felt.
_WATCHED: Final = 0
PRODUCERS: Final = ("packed", "plain", "client")
CONSUMERS: Final = 2
_HOME_S: Final = slow(90.0)


class Crew:
    """The processes of a run that are not the system's."""

    def __init__(self, scenario: Scenario, kinds: Sequence[str], consumers: int) -> None:
        """`kinds`: of the producers; the first is the watched one and speaks the packed wire."""
        self._scenario = scenario
        self._kinds = dict(enumerate(kinds))
        self._orders = range(consumers)
        self._producers: dict[int, subprocess.Popen[bytes]] = {}
        self._consumers: dict[int, subprocess.Popen[bytes]] = {}
        self._incarnations = dict.fromkeys(self._kinds, 0)
        self._reader = AckReader(ack_path(scenario.path("."), _WATCHED))
        self._seen: list[Ack] = []
        self._thaws: list[threading.Timer] = []
        self.acks: dict[int, list[Ack]] = {index: [] for index in range(len(MODELS))}

    def begin(self) -> None:
        """Start all."""
        for number in self._kinds:
            self._produce(number)
        for number in self._orders:
            self._consume(number)

    def keep(self) -> None:
        """Start again those that have ended."""
        for number, process in list(self._producers.items()):
            if process.poll() is not None:
                self._incarnations[number] += 1
                self._produce(number)
        for number, process in list(self._consumers.items()):
            if process.poll() is not None:
                self._consume(number)

    def kill_producer(self, random: np.random.Generator) -> str:
        """Kill -9 a producer."""
        number = int(random.choice(sorted(self._producers)))
        processes.kill([self._producers[number].pid])
        return f"producer ({self._kinds[number]})"

    def kill_consumer(self, random: np.random.Generator) -> str:
        """Kill -9 a consumer."""
        processes.kill([self._consumers[int(random.choice(sorted(self._consumers)))].pid])
        return "consumer"

    def thaw_later(self, pids: list[int], after_s: float) -> None:
        """Let frozen processes go on after a while."""
        timer = threading.Timer(after_s, processes.thaw, [pids])
        timer.daemon = True
        timer.start()
        self._thaws.append(timer)

    def thawed(self) -> None:
        """Wait until nothing is frozen any more."""
        for timer in self._thaws:
            timer.join()

    def look(self) -> None:
        """Read what the watched producer has recorded since the last time."""
        for ack in self._reader.more():
            self.acks[ack.model].append(ack)

    def acknowledged_since(self, since_s: float) -> float | None:
        """Return when every model had an acknowledgement of a call that began after `since_s`; None: not yet."""
        self.look()
        latest_s = 0.0
        for acks in self.acks.values():
            first_s = first_after(acks, since_s)
            if first_s is None:
                return None
            latest_s = max(latest_s, first_s)
        return latest_s

    def home(self) -> list[str]:
        """Let the producers send until nothing is pending, and end; return what went wrong."""
        self.keep()
        for process in self._producers.values():
            process.terminate()
        problems = []
        for number, process in self._producers.items():
            try:
                code: int | None = process.wait(_HOME_S)
            except subprocess.TimeoutExpired:
                processes.kill([process.pid])
                code = None
            if code != 0:
                problems.append(f"producer {number} ({self._kinds[number]}) could not bring its events home: exit {code}")
        return problems

    def dismiss(self) -> None:
        """End all, at once."""
        for process in [*self._producers.values(), *self._consumers.values()]:
            processes.thaw([process.pid])
            processes.kill([process.pid])
            process.wait()

    def sources(self) -> list[int]:
        """Return every source of events that there has been."""
        found = []
        for number, kind in self._kinds.items():
            lives = range(self._incarnations[number] + 1)
            found += [CLIENT_SOURCES + life for life in lives] if kind == "client" else [number]
        return found

    def _produce(self, number: int) -> None:
        kind = self._kinds[number]
        told = self._incarnations[number] if kind == "client" else number
        self._producers[number] = self._spawned("producers", kind, str(told))

    def _consume(self, number: int) -> None:
        self._consumers[number] = self._spawned("consumers", str(number))

    def _spawned(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command: list[Any] = [sys.executable, "-m", f"tests.chaos.{module}", *arguments, json.dumps(self._scenario.plain())]
        with self._scenario.path("crew.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for_first_acks(self, timeout_s: float) -> None:
        """Wait until every model has been acknowledged once. TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self.acknowledged_since(0.0) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no acknowledgement for every model within {timeout_s:g} s")
            time.sleep(0.1)


def first_after(acks: list[Ack], since_s: float) -> float | None:
    """Return the first acknowledgement of a call that began after `since_s`; `acks` are in the order of the calls."""
    low, high = 0, len(acks)
    while low < high:
        middle = (low + high) // 2
        if acks[middle].sent_s > since_s:
            high = middle
        else:
            low = middle + 1
    return acks[low].acked_s if low < len(acks) else None

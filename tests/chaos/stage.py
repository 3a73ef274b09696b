"""What a drill runs on: a Ray of its own, a system with a store of its own, and somebody who looks at its actors meanwhile."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import ray

import actors
from actors.cluster import deployment
from actors.system import System
from tests.chaos import controls as patches
from tests.chaos.machine import Machine

# An actor that has not answered by then counts as silent in this round.
_ROUND_S: Final = 15.0
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of a drill's table; `control` names the protection without which it must not hold."""

    name: str
    found: str
    must: str
    holds: bool
    control: str | None = None

    def row(self) -> tuple[str, str, str, bool]:
        """Return the row."""
        return self.name, self.found, self.must, self.holds


@dataclass(frozen=True, slots=True)
class Stage:
    """A running system and where it keeps its store."""

    system: System
    folder: Path

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.folder / "store"

    def actor(self, name: str) -> Any:
        """Return the handle of an actor; LookupError where there is none."""
        handle = deployment.find(name, self.system.namespace)
        if handle is None:
            raise LookupError(f"{name} is not there")
        return handle


@contextmanager
def stage(document: dict[str, Any], controls: Sequence[str] = ()) -> Iterator[Stage]:
    """Run a system of this configuration on a Ray of its own; `controls` name protections that are taken away."""
    if controls:
        os.environ[patches.VARIABLE] = ",".join(controls)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray tells of its processes there
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="visutility-drill-", ignore_cleanup_errors=True)))
        machine = Machine(nodes=0, setup_hook=patches.HOOK if controls else None)
        stack.callback(machine.close)
        storage = f"sqlite:///{folder}/store"
        system = actors.start(document | {"storage": storage}, namespace=f"drill-{uuid.uuid4().hex[:6]}")
        stack.callback(_stopped, system)
        yield Stage(system, folder)


def _stopped(system: System) -> None:
    with contextlib.suppress(Exception):  # what a drill has broken may not stop
        system.stop()


class Pulse:
    """Asks every actor `hello`, round after round, while something is done to the system."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._before = self._pids()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.longest_s = 0.0
        self.slowest = ""
        self.replaced: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._compare()

    def figure(self, name: str, limit_s: float, control: str) -> Figure:
        """Return what was seen: how long the slowest hello took, and who was replaced."""
        replaced = ", ".join(sorted(self.replaced)) or "nobody"
        found = f"longest hello {self.longest_s:.1f} s ({self.slowest or 'none'}), replaced: {replaced}"
        return Figure(name, found, f"{limit_s:g} s, nobody", self.longest_s <= limit_s and not self.replaced, control)

    def _look(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            handles = {name: deployment.find(name, self._namespace) for name in self._before}
            began_s = time.monotonic()
            asked: dict[Any, str] = {each.hello.remote(): name for name, each in handles.items() if each is not None}
            waiting = list(asked)
            while waiting and (left_s := began_s + _ROUND_S - time.monotonic()) > 0:
                ready, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
                for reference in ready:
                    self._note(asked[reference], time.monotonic() - began_s)
            for reference in waiting:
                self._note(asked[reference], _ROUND_S)
            self._compare()

    def _note(self, name: str, took_s: float) -> None:
        if took_s > self.longest_s:
            self.longest_s, self.slowest = took_s, name

    def _compare(self) -> None:
        now = self._pids()
        self.replaced.update(name for name, pid in self._before.items() if now.get(name) not in {pid, 0})

    def _pids(self) -> dict[str, int]:
        found = {}
        for name in deployment.names(self._namespace):
            handle = deployment.find(name, self._namespace)
            if handle is not None:
                found[name] = int(deployment.record(handle)["pid"])
        return found


def resolved(references: Sequence[Any], within_s: float) -> list[Any]:
    """Return the replies that came in time; an error stands for itself, None for what did not come."""
    ready, _ = ray.wait(list(references), num_returns=len(references), timeout=within_s)
    came = set(ready)
    found: list[Any] = []
    for reference in references:
        try:
            found.append(ray.get(reference) if reference in came else None)
        except Exception as error:  # noqa: BLE001  whatever a call raised is its outcome
            found.append(error)
    return found

"""What a drill runs on: a Ray of its own, a system with a store of its own, and a process that asks its actors meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray

import actors
from actors.cluster import deployment
from actors.system import System
from tests.chaos import controls as patches
from tests.chaos import pulse
from tests.chaos.machine import Machine


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
    """Run a system of this configuration on a Ray of its own; `controls` name protections to remove."""
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
    """Asks every actor `hello`, round after round, while something is done to the system.

    It asks from a process of its own, as the watchdog does: thousands of calls keep the one that makes them busy for seconds,
    and what it would measure then is itself.
    """

    def __init__(self, namespace: str) -> None:
        command = [sys.executable, "-m", "tests.chaos.pulse", namespace, ray.get_runtime_context().gcs_address]
        # The protections are removed from the system, not from the process that looks.
        inherited = {name: value for name, value in os.environ.items() if name != patches.VARIABLE}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=inherited)
        self._seen = pulse.Seen(0.0, "", [])

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != pulse.READY:
            raise RuntimeError("the process that asks `hello` has ended before its first round")
        return self

    def __exit__(self, *_exception: object) -> None:
        told, _ = self._process.communicate("")
        self._seen = pulse.Seen(*json.loads(told.splitlines()[-1]))

    def figure(self, name: str, limit_s: float, control: str) -> Figure:
        """Return what was seen: how long the slowest hello took, and who was replaced."""
        longest_s, slowest, replaced = self._seen
        found = f"longest hello {longest_s:.1f} s ({slowest or 'none'}), replaced: {', '.join(replaced) or 'nobody'}"
        return Figure(name, found, f"{limit_s:g} s, nobody", longest_s <= limit_s and not replaced, control)


def resolved(references: Sequence[Any], within_s: float) -> list[Any]:
    """Return the replies that came in time: an error in the place of a reply, None where none came."""
    ready, _ = ray.wait(list(references), num_returns=len(references), timeout=within_s)
    came = set(ready)
    found: list[Any] = []
    for reference in references:
        try:
            found.append(ray.get(reference) if reference in came else None)
        except Exception as error:  # noqa: BLE001  whatever a call raised is its outcome
            found.append(error)
    return found

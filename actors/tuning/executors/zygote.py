"""The zygote: a clean process that opens the objective once and then only forks.

Forking a Ray worker hangs now and then, because its threads hold locks at that moment (measured: 6 of 125 runs); a process
that has no threads of its own does not (0 of 352). It speaks over
one socket: first the settings and the objective, then `fork` and `reap`. It ends with its worker, and its children with it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from actors.tuning.executors.pipe import ClosedError, Pipe
from actors.tuning.executors.trial import Assignment, LoadError, Objective, RunningTrial, TrialTerms

_PR_SET_PDEATHSIG = 1
# Looked up here: what a child looks up it writes down in memory of its own, and 40 copied pages are a tenth of a fork's cost.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def main(descriptor: int) -> None:
    """Serve one worker until it is gone."""
    control = Pipe(socket.socket(fileno=descriptor))
    try:
        settings = control.receive()
        sys.path[:] = settings["path"]
        terms = TrialTerms(**settings["terms"])
        try:
            objective = Objective(settings["objective"])
        except LoadError as error:
            control.send(["failed", str(error)])
            return
        gc.collect()
        gc.freeze()  # exclude existing objects from garbage collection, so that children do not copy their pages
        control.send(["loaded", ""])
        _serve(control, objective, terms)
    except ClosedError:
        pass


def _serve(control: Pipe, objective: Objective, terms: TrialTerms) -> None:
    children: set[int] = set()
    try:
        while True:
            command, pid = control.receive()
            status = _reap(pid) if pid else 0
            children.discard(pid)
            if command == "reap":
                control.send(["reaped", status])
                continue
            ours, theirs = socket.socketpair()
            child = os.fork()
            if child == 0:
                ours.close()
                control.close()
                _live(Pipe(theirs), objective, terms)
            theirs.close()
            with suppress(OSError):
                os.setpgid(child, child)  # as the child does: the group exists when its id is known, whichever comes first
            children.add(child)
            control.send(["forked", child], (ours.fileno(),))
            ours.close()
    finally:
        for child in children:
            kill(child)


def _live(channel: Pipe, objective: Objective, terms: TrialTerms) -> None:
    """Run trials as a child, and never return."""
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        _die_with_parent()
        _limit_memory(terms.memory_bytes)
        _reseed()
        while True:
            number, attempt, params, seed = channel.receive()

            def reported(step: int, value: float) -> bool:
                channel.send(["report", step, value])
                return bool(channel.receive())

            assignment = Assignment(number, attempt, params)
            outcome = objective(RunningTrial(assignment, seed=partial(int, seed), context=terms.context, reported=reported))
            sys.stdout.flush()
            sys.stderr.flush()
            channel.send(["done", outcome.kind, outcome.value, outcome.error])
    except BaseException:  # noqa: BLE001  the other side is gone, or there is no memory left to say anything
        os._exit(1)


def kill(pid: int) -> None:
    """End a child and everything that it has started in its process group."""
    for end in (os.kill, os.killpg):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _reap(pid: int) -> int:
    with suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0


def _die_with_parent() -> None:
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(memory_bytes: int | None) -> None:
    if memory_bytes is None:
        return
    used_bytes = 0
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmData:"):
                used_bytes = int(line.split()[1]) * 1024
    limit_bytes = used_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def _reseed() -> None:
    """Seed the random numbers of this child: forked ones would all draw the same. `random` does so by itself."""
    if "numpy.random" in sys.modules:
        numpy_random: Any = sys.modules["numpy.random"]
        numpy_random.seed()

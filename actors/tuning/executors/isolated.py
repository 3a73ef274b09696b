"""The executors that contain a trial: `child`, one process for many trials, and `fork`, a fresh one for each.

Both get their processes from a zygote. Whatever a trial does to its process (exit, segfault, no memory, a hang) costs that
trial alone; a time-out or a cancellation kills the child with all that it started in its process group.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from actors.tuning.executors.pipe import ClosedError, Pipe
from actors.tuning.executors.trial import Assignment, LoadError, TrialTerms
from actors.tuning.executors.zygote import kill
from actors.tuning.rules.steps import Outcome

logger = logging.getLogger(__name__)

# How much of a trial's output goes into the worker's log, and into the error of a crash.
_MAX_PASSED_ON_BYTES = 64 * 1024
_MAX_TAIL_BYTES = 1500
# How often is looked whether a trial that prints and prints has filled more than this of the disk.
_MAX_OUTPUT_BYTES = 4 * 2**20
_LOOK_S = 1.0
# How long opening the objective may take where trials have a shorter time-out: imports are not the trial's fault.
_LOAD_TIMEOUT_S = 120.0
# How often a zygote that dies by itself is started again for one trial.
_MAX_STARTS = 2
_ZYGOTE = "import sys; from actors.tuning.executors.zygote import main; main(int(sys.argv[1]))"


class IsolatedExecutor:
    """Runs each trial in a child process, a fresh one or one that is kept until it misbehaves."""

    def __init__(
        self,
        shipped: bytes,
        terms: TrialTerms,
        *,
        reported: Callable[[Assignment, int, float], bool],
        seed_of: Callable[[int], int],
        one_trial_per_child: bool,
    ) -> None:
        """Start the zygote and have it open the objective; LoadError where it cannot."""
        self._seed_of = seed_of
        self._shipped = shipped
        self._terms = terms
        self._reported = reported
        self._one_trial = one_trial_per_child
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the executor
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: Pipe | None = None
        self._child: Pipe | None = None
        self._exit = -1  # the child's pidfd: readable when it has ended, even where a grandchild holds its socket open
        self._pid = 0
        self._dead_pid = 0  # to be reaped with the next fork
        self._asked = False  # the zygote has been asked to fork, and its answer not been read yet
        self._spare: tuple[int, int] | None = None  # the next child: its pid and the socket to it
        self._look_s = 0.0  # when the output is looked at again, by the monotonic clock
        self._cancelled = threading.Event()
        self._killing = threading.Lock()
        try:
            self._start_zygote()
        except BaseException:
            self.close()
            raise

    def run(self, assignment: Assignment) -> Outcome:
        """Run one attempt within the study's time-out."""
        for _ in range(_MAX_STARTS):
            try:
                child = self._child or self._fork()
                child.send([assignment.trial, assignment.attempt, assignment.params, self._seed_of(assignment.trial)])
                if self._one_trial:
                    self._ask_for_child()  # for the next trial, while this one runs
                break
            except ClosedError:
                self._discard_child()
                self._stop_zygote()
                self._start_zygote()
        else:
            return Outcome("failed", None, "no process could be started for this trial")
        outcome = self._await(assignment)
        self._pass_output_on()
        return outcome

    def cancel(self) -> bool:
        """Kill what is running, from any thread; the executor is of no use afterwards."""
        self._cancelled.set()
        with self._killing:
            if self._pid:
                kill(self._pid)
        return True

    def close(self) -> None:
        """End all processes."""
        self._discard_child()
        self._stop_zygote()
        self._output.close()

    def _await(self, assignment: Assignment) -> Outcome:
        child = self._child
        if child is None:
            raise RuntimeError("no child")
        deadline_s = math.inf if self._terms.timeout_s is None else time.monotonic() + self._terms.timeout_s
        try:
            while (message := self._heard(child, deadline_s))[0] == "report":
                child.send(self._reported(assignment, message[1], message[2]))
        except TimeoutError:
            self._discard_child()
            return Outcome("timed_out", None, f"killed after {self._terms.timeout_s:g} s")
        except ClosedError:
            return Outcome("failed", None, self._obituary())
        _, kind, value, error = message
        if self._one_trial:
            self._retire_child()
        return Outcome(kind, value, error)

    def _heard(self, child: Pipe, deadline_s: float) -> Any:
        """Wait for the child's next message; TimeoutError at the deadline, ClosedError where it has ended."""
        poll = select.poll()
        poll.register(child.fileno(), select.POLLIN)
        if self._exit >= 0:
            poll.register(self._exit, select.POLLIN)
        while (left_s := deadline_s - time.monotonic()) > 0:  # one that reports all the time comes to its deadline too
            ready = {descriptor for descriptor, _ in poll.poll(min(left_s, _LOOK_S) * 1000)}
            if time.monotonic() >= self._look_s:
                self._bound_output()
                self._look_s = time.monotonic() + _LOOK_S
            if child.fileno() in ready:
                # What has come need not be a message: the objective may have written into a descriptor that is not its own.
                return child.receive(within_s=None if math.isinf(left_s) else left_s)
            if ready:
                raise ClosedError("ended")
        raise TimeoutError

    def _fork(self) -> Pipe:
        if self._cancelled.is_set():
            raise ClosedError("cancelled")
        self._ask_for_child()
        self._take_answer()
        if self._spare is None:
            raise ClosedError("no child")
        (self._pid, descriptor), self._spare = self._spare, None
        with suppress(OSError, AttributeError):  # no such call on this system: the socket's end has to do
            self._exit = os.pidfd_open(self._pid)
        self._child = Pipe(socket.socket(fileno=descriptor))
        return self._child

    def _ask_for_child(self) -> None:
        """Have the zygote fork, without waiting for it."""
        if self._asked or self._spare is not None:
            return
        if self._control is None:
            raise ClosedError("no zygote")
        self._control.send(["fork", self._dead_pid])
        self._dead_pid, self._asked = 0, True

    def _take_answer(self) -> None:
        if self._asked and self._control is not None:
            (_, pid), descriptor = self._control.receive_with_descriptor()
            self._spare, self._asked = (pid, descriptor), False

    def _retire_child(self) -> None:
        """Kill the child and whatever it left behind; it is reaped with the next fork, to save a round trip."""
        with self._killing:  # once it is reaped its number may be another's
            kill(self._pid)
            self._dead_pid, self._pid = self._pid, 0
        if self._exit >= 0:
            os.close(self._exit)
            self._exit = -1
        if self._child is not None:
            self._child.close()
            self._child = None

    def _discard_child(self) -> int | None:
        """Kill the child and reap it; gives its exit code (negative: the signal)."""
        if not self._pid:
            return None
        pid = self._pid
        self._retire_child()
        self._dead_pid = 0
        if self._control is None:
            return None
        try:
            self._take_answer()
            self._control.send(["reap", pid])
            return int(self._control.receive()[1])
        except ClosedError:
            return None

    def _obituary(self) -> str:
        """Say how the child ended, with the last that it printed."""
        if self._exit >= 0:
            select.select([self._exit], [], [], 1.0)  # it closed its socket; let it end by itself and leave its own code
        code = self._discard_child()
        if code is None:
            text = "the trial's process was lost"
        elif code >= 0:
            text = f"the trial's process ended with exit code {code}"
        else:
            name = signal.Signals(-code).name
            text = f"the trial's process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        tail = self._tail()
        return f"{text}\n{tail}" if tail else text

    def _bound_output(self) -> None:
        """Truncate the output to its end if it has become too long."""
        size = os.fstat(self._output.fileno()).st_size
        if size > _MAX_OUTPUT_BYTES:
            self._output.seek(size - _MAX_PASSED_ON_BYTES)
            kept = self._output.read(_MAX_PASSED_ON_BYTES)
            self._output.truncate(0)
            with self._for_appending() as output:
                output.write(b"[much that was printed before was dropped]\n" + kept)

    def _for_appending(self) -> BinaryIO:
        """Open the output again as those do that write there: several processes, under whose hands it is emptied."""
        return Path(f"/proc/self/fd/{self._output.fileno()}").open("ab")

    def _tail(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(size - _MAX_TAIL_BYTES, 0))
        return self._output.read().decode(errors="replace").strip()

    def _pass_output_on(self) -> None:
        size = os.fstat(self._output.fileno()).st_size
        if not size:
            return
        self._output.seek(max(size - _MAX_PASSED_ON_BYTES, 0))
        text = self._output.read(_MAX_PASSED_ON_BYTES).decode(errors="replace")
        dropped = f"[{size - _MAX_PASSED_ON_BYTES} bytes dropped] " if size > _MAX_PASSED_ON_BYTES else ""
        with suppress(OSError, ValueError):
            sys.stdout.write(dropped + text)
            sys.stdout.flush()
        self._output.truncate(0)

    def _start_zygote(self) -> None:
        ours, theirs = socket.socketpair()
        output = self._for_appending()
        try:
            self._zygote = subprocess.Popen(  # noqa: S603  our own interpreter and our own text
                [sys.executable, "-X", "faulthandler", "-c", _ZYGOTE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        finally:
            theirs.close()
            output.close()
        self._control = Pipe(ours)
        try:
            self._control.send({"path": sys.path, "terms": asdict(self._terms), "objective": self._shipped})
            ready, _, _ = select.select([ours], [], [], max(_LOAD_TIMEOUT_S, self._terms.timeout_s or 0.0))
            if not ready:
                raise LoadError(f"not open after {_LOAD_TIMEOUT_S:g} s")
            answer, error = self._control.receive()
        except ClosedError:
            code = self._zygote.wait()
            self._stop_zygote()
            raise LoadError(f"the process that opened it ended with code {code}\n{self._tail()}") from None
        except LoadError:
            self._stop_zygote()
            raise
        if answer != "loaded":
            self._stop_zygote()
            raise LoadError(error)

    def _stop_zygote(self) -> None:
        self._asked = False
        if self._spare is not None:
            os.close(self._spare[1])
            self._spare = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.wait()
            self._zygote = None

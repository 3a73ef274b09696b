"""Begin a Ray on this laptop with the system in it; both outlive the command, until `visutility down`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from drivers.arguments import FINE, Parser, run
from drivers.output import Output

# Ray's own start, four actors, and a slow laptop.
_READY_S: Final = 150.0
_LOG_TAIL_LINES: Final = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility up [FILE]`."""
    parser = Parser("up", __doc__, example="visutility up")
    parser.add_argument("file", nargs="?", help="the configuration, YAML (default: the defaults, stored in ./visutility-data)")
    parser.add_argument("--cpus", type=int, default=None, help="how many CPUs the Ray may use (default: all)")
    parser.add_argument("--dashboard", action="store_true", help="begin Ray's dashboard too (`ray job submit` needs it)")
    parser.add_argument("--hold", action="store_true", help=argparse.SUPPRESS)  # we ourselves, as the process that stays
    return run(parser, argv, _up)


def _up(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.hold:
        return _hold(arguments)
    from actors import config, system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415 --help needs no Ray

    if arguments.file is not None:
        config.load(arguments.file)
    known = connection.remembered()
    if known is None or not connection.alive(known["pid"]):
        known = _begin(arguments, output, connection.note())
    else:
        connection.attach_remembered(known)
        system.start(arguments.file, namespace=None if arguments.file else known["namespace"])
    output.line(f"Ray at {known['address']}, the system in namespace {known['namespace']!r}, process {known['pid']}")
    output.line("log from any script here:  actors.connect().metrics.log({'accuracy': 0.93}, model='my-model')")
    output.line("look: visutility status    end: visutility down")
    output.result(known)
    return FINE


def _begin(arguments: argparse.Namespace, output: Output, note: Path) -> dict[str, Any]:
    """Begin the process that stays, and wait until it says what it has begun."""
    note.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    log = note.with_suffix(".log")
    command = [sys.executable, "-m", "drivers.up", "--hold"]
    command += [arguments.file] if arguments.file else []
    command += ["--cpus", str(arguments.cpus)] if arguments.cpus is not None else []
    command += ["--dashboard"] if arguments.dashboard else []
    with log.open("wb") as sink:
        holder = subprocess.Popen(  # noqa: S603 our own module, no shell
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        known = _wait(holder, output, note, log)
    except BaseException:
        holder.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.wait(30.0)
        raise
    holder.returncode = 0  # it is to outlive us: no warning that it still runs
    return known


def _wait(holder: subprocess.Popen[bytes], output: Output, note: Path, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_S
    with output.progress("beginning Ray and the system", None):
        while time.monotonic() < deadline:
            if note.exists():
                known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
                return known
            if holder.poll() is not None:
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
                raise RuntimeError(f"the system could not be brought up ({log}):\n{tail}")
            time.sleep(0.1)
    raise TimeoutError(f"not up within {_READY_S:g} s; see {log}")


def _hold(arguments: argparse.Namespace) -> int:
    """Be the process that stays: begin Ray and the system, note them, wait for the signal to end."""
    import ray  # noqa: PLC0415 --help needs no Ray

    from actors import config, system  # noqa: PLC0415
    from actors.cluster import connection  # noqa: PLC0415

    endings = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in endings:
        signal.signal(number, _interrupt)
    note = connection.note()
    os.environ.pop("RAY_ADDRESS", None)
    try:
        # num_cpus=None is what the machine has.
        dashboard = arguments.dashboard or config.needs_jobs(config.load(arguments.file))
        context = ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=dashboard)
        started = system.start(arguments.file)
        known = {
            "address": ray.get_runtime_context().gcs_address,
            "pid": os.getpid(),
            "began": connection.began(os.getpid()),
            "auth": os.environ.get("RAY_AUTH_MODE"),  # a new Ray switches tokens on for its own process alone
            "namespace": started.namespace,
            "dashboard": f"http://{context.dashboard_url}" if context.dashboard_url else None,
        }
        waiting = note.with_suffix(".new")
        waiting.write_text(json.dumps(known), encoding="utf-8")
        waiting.rename(note)
        while True:
            signal.pause()
    except _EndedError:
        return FINE
    finally:
        for number in endings:
            signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


class _EndedError(BaseException):
    """Told to end, at whatever point."""


def _interrupt(_number: int, _frame: object) -> None:
    raise _EndedError


if __name__ == "__main__":
    sys.exit(main())

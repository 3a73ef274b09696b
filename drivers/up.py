"""Start a Ray on this machine with the system in it.

Both keep running after the command, until `visutility down`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from drivers.commands import FINE, command, run
from drivers.output import Output

if TYPE_CHECKING:
    from actors.cluster.connection import Remembered
    from actors.system import System

# Ray's own start, four actors, and a slow laptop.
_READY_S: Final = 150.0
_LOG_TAIL_LINES: Final = 12


@command(
    "up", help=__doc__, examples=["visutility up", "visutility up --ui", "visutility up visutility.yaml --cpus 4 --dashboard"]
)
@click.argument("file", required=False)
@click.option("--cpus", type=int, help="Number of CPUs for Ray (default: all).")
@click.option("--dashboard", is_flag=True, help="Also start Ray's dashboard (`ray job submit` needs it).")
@click.option("--ui", "page", is_flag=True, help="Also serve the page, as `ui: {enabled: true}` does.")
@click.option("--hold", is_flag=True, hidden=True)  # this command itself, as the process that stays
def up(*, file: str | None, cpus: int | None, dashboard: bool, page: bool, hold: bool, output: Output) -> int:
    """Begin with the configuration FILE, by default with the defaults, stored in ./visutility-data."""
    if hold:
        return _hold(file, cpus, dashboard=dashboard, page=page)
    from actors import config  # 0.4 s; help does without
    from actors.cluster import connection

    if file is not None:
        config.load(file)
    known = connection.remembered()
    if known is None or not connection.alive(known["pid"]):
        known = _begin(_command(file, cpus, dashboard=dashboard, page=page), output, connection.note())
    else:
        connection.attach_remembered(known)
        known |= {"page": _page(_start(file, None if file else known["namespace"], page=page))}
    output.line(f"Ray at {known['address']}, the system in namespace {known['namespace']!r}, process {known['pid']}")
    output.line("log from any script here:  actors.connect().metrics.log({'accuracy': 0.93}, model='my-model')")
    if known.get("page"):
        output.line(f"the page: {known['page']}")
    output.line("look: visutility status    end: visutility down")
    output.result(known)
    return FINE


def _start(file: str | None, namespace: str | None, *, page: bool) -> System:
    """Start the system or attach to it, with the page where that is asked for."""
    from actors import config, system  # 1 s; help does without
    from actors.cluster import places

    if not page:
        return system.start(file, namespace=namespace)
    if file is None:
        started = system.start(None, namespace=namespace)
        document = json.loads(config.document(started.settings()))
        if not document.get("ui", {}).get("enabled"):
            started.reload({**document, "ui": {**document.get("ui", {}), "enabled": True}})
        return started
    settings = config.load(file)
    document = json.loads(config.document(settings))
    storage = places.named(settings, file)
    document |= {"namespace": settings.namespace, "ui": {**document.get("ui", {}), "enabled": True}}
    return system.start(document if storage is None else {**document, "storage": storage}, namespace=namespace)


def _page(started: System) -> str | None:
    """Return where the system serves the page, None where it serves none."""
    ui = started.settings().ui
    host = f"[{ui.host}]" if ":" in ui.host else ui.host
    return f"http://{host}:{ui.port}/" if ui.enabled else None


def _command(file: str | None, cpus: int | None, *, dashboard: bool, page: bool = False) -> list[str]:
    """Return the command line of the process that stays."""
    command_line = [sys.executable, "-m", "drivers.up", "--hold"]
    command_line += [file] if file else []
    command_line += ["--cpus", str(cpus)] if cpus is not None else []
    command_line += ["--dashboard"] if dashboard else []
    command_line += ["--ui"] if page else []
    return command_line


def _begin(command_line: list[str], output: Output, note: Path) -> Remembered:
    """Begin the process that stays, and wait until it says what it has begun."""
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    log = note.with_suffix(".log")
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
        log.chmod(0o600)  # one that an earlier release left
        holder = subprocess.Popen(  # noqa: S603 our own module, no shell
            command_line, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
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


def _wait(holder: subprocess.Popen[bytes], output: Output, note: Path, log: Path) -> Remembered:
    deadline = time.monotonic() + _READY_S
    with output.progress("starting Ray and the system", None):
        while time.monotonic() < deadline:
            if note.exists():
                known: Remembered = json.loads(note.read_text(encoding="utf-8"))
                return known
            if holder.poll() is not None:
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
                raise RuntimeError(f"the system could not be started ({log}):\n{tail}")
            time.sleep(0.1)
    raise TimeoutError(f"not up within {_READY_S:g} s; see {log}")


def _hold(file: str | None, cpus: int | None, *, dashboard: bool, page: bool) -> int:
    """Be the process that stays: begin Ray and the system, note them, wait for the signal to end."""
    import ray  # 1 s with the next line; help does without

    from actors import config
    from actors.cluster import connection

    endings = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in endings:
        signal.signal(number, _interrupt)
    note = connection.note()
    os.environ.pop("RAY_ADDRESS", None)
    try:
        # num_cpus=None is what the machine has.
        dashboard = dashboard or config.needs_jobs(config.load(file))
        context = ray.init(address="local", num_cpus=cpus, include_dashboard=dashboard)
        started = _start(file, None, page=page)
        known: Remembered = {
            "address": ray.get_runtime_context().gcs_address,
            "pid": os.getpid(),
            "began": connection.began(os.getpid()),
            "auth": os.environ.get("RAY_AUTH_MODE"),  # a new Ray switches tokens on for its own process alone
            "namespace": started.namespace,
            "page": _page(started),
            "dashboard": f"http://{context.dashboard_url}" if context.dashboard_url else None,
        }
        waiting = note.with_suffix(".new")
        waiting.touch(mode=0o600)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility up [FILE]`."""
    return run(up, argv)


if __name__ == "__main__":
    sys.exit(main())

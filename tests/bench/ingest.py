"""Measure the data path with its peers in the same run: MLflow's tracking store and river's ADWIN."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from drivers.output import Output
from tests.bench.arguments import FAILED, FINE, Parser, run

SECTIONS: Final = ("throughput", "judged", "caller", "order", "models", "start", "away", "growth")
_USUAL: Final = SECTIONS[:-1]  # growth takes minutes and must be asked for
# (figure, section, how to read it, must, aim, whether larger is better): the table of the data path's figures.
Read = Callable[[dict[str, Any]], Any]


def _median(name: str) -> Read:
    return lambda found: found[name]["median"]


FIGURES: Final[tuple[tuple[str, str, Read, float, float, bool], ...]] = (
    ("log_batch of 5,000, events/s", "throughput", _median("batches of 5000"), 1e6, 2e6, True),
    (
        "the same at a false alarm every 10,000 events",
        "throughput",
        _median("batches of 5000, a false alarm every 10,000 events"),
        1e6,
        2e6,
        True,
    ),
    ("log_batch of 5,000 over MLflow's log_batch into SQLite", "throughput", lambda f: f.get("over_mlflow"), 200, 400, True),
    ("log_batch of 5,000 over river's ADWIN bare in process", "throughput", lambda f: f.get("over_river"), 0.25, 0.5, True),
    ("log_batch of 5,000 with n and the retrain rule, over without", "judged", _median("ratio"), 0.9, 0.97, True),
    ("log_batch of 100, events/s", "throughput", _median("batches of 100"), 45e3, 70e3, True),
    ("log_batch of 20,000, events/s", "throughput", _median("batches of 20000"), 2e6, 4e6, True),
    ("log in the caller's thread, median, us", "caller", _median("p50_us"), 15, 5, False),
    ("log in the caller's thread, p99, us", "caller", _median("p99_us"), 200, 50, False),
    ("MLflow's asynchronous call over it", "caller", lambda f: f.get("over_mlflow"), 100, 100, True),
    ("flushed event to order in hand, p50, ms", "order", lambda f: f["p50"], 30, 15, False),
    ("flushed event to order in hand, p99, ms", "order", lambda f: f["p99"], 120, 60, False),
    ("10,000 models in 4 processes, s a round", "models", _median("round_s"), 6, 3, False),
    ("10,000 models in 4 processes, KB a model", "models", lambda f: f["kb_a_model"], 64, 32, False),
    ("start to first acknowledgement, s", "start", lambda f: f["median"], 6, 3, False),
    ("system away: caller's memory over the bound", "away", lambda f: f["grown_mb"] / f["bound_mb"], 1, 1, False),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.bench ingest`."""
    parser = Parser("ingest", __doc__, example="python -m tests.bench ingest --quick", program="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter laps: about a minute and a half")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; may be given again")
    parser.add_argument("--laps", type=int, help="laps of each figure (default 5, quick 2)")
    parser.add_argument("--plot", type=Path, help="draw the section `growth` into this file")
    return run(parser, argv, _bench)


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    from tests.bench import ingest_sections as sections
    from tests.bench.ingest_judged import judged

    laps = arguments.laps or (2 if arguments.quick else 5)
    if laps < 1:
        raise ValueError(f"--laps must be 1 or more, got {laps}")
    found: dict[str, Any] = {"machine": _machine()}
    with sections.bench_ray():
        for name in arguments.section or _USUAL:
            output.note(f"{name} ...")
            section = judged if name == "judged" else getattr(sections, name)
            found[name] = section(laps, 0.5 if arguments.quick else 2.0, output.note)
    if arguments.plot is not None and "growth" in found:
        sections.plot(found["growth"], arguments.plot)
    rows = [row for row in map(_row, FIGURES, [found] * len(FIGURES)) if row is not None]
    output.line(", ".join(f"{key} {value}" for key, value in found["machine"].items()))
    output.table("ingest", ("figure", "measured", "must", "aim", "verdict"), rows)
    for name, points in found.get("growth", {}).items():
        output.table(
            f"events/s over {name}",
            (name, "median", "low", "high"),
            [(x, p["median"], p["low"], p["high"]) for x, p in points.items()],
        )
    output.result(found)
    return FAILED if any(row[-1] == "missed" for row in rows) else FINE


def _row(figure: tuple[str, str, Read, float, float, bool], found: dict[str, Any]) -> tuple[object, ...] | None:
    name, section, read, must, aim, larger = figure
    if section not in found:
        return None
    value = read(found[section])
    if value is None:
        return name, None, must, aim, "peer not installed"
    sign = 1 if larger else -1
    verdict = "aim" if sign * value >= sign * aim else "must" if sign * value >= sign * must else "missed"
    return name, value, must, aim, verdict


def _machine() -> dict[str, Any]:
    known: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    for package in ("visutility", "ray", "numpy", "sqlalchemy", "mlflow", "river"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


if __name__ == "__main__":
    sys.exit(main())

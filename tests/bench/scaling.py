"""Measure how the system grows: producers, batch sizes, models, nodes, retrain requests, trials; and where one process ends.

All nodes are simulated on this machine and share its cores, so a rate alone would say how fast this machine is. What carries
over to a larger cluster is the processor time that each process spends per unit of work: a single process ends where that time
fills one core. Both are told, as the median of the laps (the lowest - the highest).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any, Final

from drivers.output import Output
from tests.bench.arguments import FINE, Parser, run

SECTIONS: Final = ("producers", "batches", "callers", "models", "nodes", "requests", "idle", "trials")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.bench scaling`."""
    parser = Parser("scaling", __doc__ or "", example="python -m tests.bench scaling --quick", program="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer points, shorter runs: about two minutes")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; may be given again")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/results/scaling.md holds them")
    parser.add_argument("--storage", help="postgresql://... (default: a SQLite store that is removed afterwards)")
    return run(parser, argv, _bench)


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    from tests.bench import scaling_sections as scaling

    plan = scaling.Plan.quick() if arguments.quick else scaling.Plan()
    measured: dict[str, Any] = {"machine": _machine(), "storage": "postgresql" if arguments.storage else "sqlite"}
    # Ray prints warnings of its nodes to standard output, which is for the result.
    with redirect_stdout(sys.stderr), scaling.simulated(arguments.storage) as stage:
        runs: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "producers": lambda: scaling.producers(stage, plan, output.note),
            "batches": lambda: scaling.batches(stage, plan, output.note),
            "callers": lambda: scaling.callers(stage, plan, output.note),
            "models": lambda: scaling.models(stage, plan, output.note),
            "nodes": lambda: scaling.nodes(stage, plan, output.note),
            "requests": lambda: scaling.requests(stage, plan, output.note),
            "idle": lambda: scaling.idle(stage, plan, output.note),
            "trials": lambda: scaling.trials(stage, plan, output.note),
        }
        for section in arguments.section or SECTIONS:
            measured[section] = runs[section]()
    _told(measured, output, markdown=arguments.markdown)
    output.result(measured)
    return FINE


def _told(measured: dict[str, Any], output: Output, *, markdown: bool) -> None:
    output.line(", ".join(f"{key} {value}" for key, value in measured["machine"].items()) + f", store {measured['storage']}")
    for section in SECTIONS:
        rows = measured.get(section)
        if rows:
            columns = list(rows[0])
            cells = [[_cell(row[column]) for column in columns] for row in rows]
            output.line()
            if markdown:
                for line in [columns, ["---"] * len(columns), *cells]:
                    output.line(f"| {' | '.join(line)} |")
            else:
                output.table(section, columns, cells)


def _cell(value: float | list[float]) -> str:
    """Return a figure as a table holds it: of several laps the median and the range."""
    if not isinstance(value, list):
        return _short(value)
    low, middle, high = (_short(each) for each in (min(value), statistics.median(value), max(value)))
    return middle if low == high else f"{middle} ({low} - {high})"


def _short(value: float) -> str:
    """Return three digits: a lap tells no more."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine() -> dict[str, Any]:
    versions = {package: version(package) for package in ("ray", "numpy")}
    return {"cpus": os.cpu_count(), "python": platform.python_version(), **versions, "load": round(os.getloadavg()[0], 1)}


if __name__ == "__main__":
    sys.exit(main())

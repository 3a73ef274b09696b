"""Measure the tuner with its peers in the same run: Optuna, Rustuna and Ray Tune."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from drivers.output import Output
from tests.bench.arguments import FAILED, FINE, Parser, run

SECTIONS: Final = ("throughput", "start", "makespan-64", "makespan-400", "faults", "timeouts", "equality", "tpe")
# (figure, how to read it, must, aim, whether larger is better): the table of the tuner's figures.
Read = Callable[[dict[str, Any]], Any]
Row = tuple[str, str, Read, float, float, bool]


def _over(peer: str, executor: str) -> Read:
    return lambda found: found[f"over_{peer}"] and found[f"over_{peer}"][executor]


def _makespan(executor: str) -> Read:
    return lambda found: found["over"][executor]["median"]


def _fault(case: str, what: str) -> Read:
    return lambda found: found[case][what]


def _cold(found: dict[str, Any]) -> Any:
    return found["over_ray"]["median"]


def _late(executor: str) -> Read:
    return lambda found: found[executor]["late_ms"]["max"]


_TUNER, _WORKERS, _DRIVER = "tuner killed 3 times", "workers killed 3 times", "driver killed, study resumed by name"
FIGURES: Final[tuple[Row, ...]] = (
    ("no-op trials/s, inline, over Optuna in memory", "throughput", _over("optuna", "inline"), 2.0, 4.0, True),
    ("no-op trials/s, child, over Optuna in memory", "throughput", _over("optuna", "child"), 0.5, 0.8, True),
    ("no-op trials/s, fork, over Optuna in memory", "throughput", _over("optuna", "fork"), 0.1, 0.16, True),
    ("no-op trials/s, inline, over Ray Tune, actors reused", "throughput", _over("ray_tune", "inline"), 100.0, 1000.0, True),
    ("no-op trials/s, child, over Ray Tune, actors reused", "throughput", _over("ray_tune", "child"), 30.0, 250.0, True),
    ("no-op trials/s, fork, over Ray Tune, actors reused", "throughput", _over("ray_tune", "fork"), 6.0, 60.0, True),
    ("64 trials on 8 cold workers: until the eighth runs, over Ray alone", "start", _cold, 1.3, 1.1, False),
    ("64 exponential trials at 8 over the ideal, inline", "makespan-64", _makespan("inline"), 0.03, 0.02, False),
    ("64 exponential trials at 8 over the ideal, child", "makespan-64", _makespan("child"), 0.06, 0.04, False),
    ("64 exponential trials at 8 over the ideal, fork", "makespan-64", _makespan("fork"), 0.06, 0.04, False),
    ("400 trials of 50 ms at 8 over the ideal, inline", "makespan-400", _makespan("inline"), 0.15, 0.08, False),
    ("tuner killed -9 three times: finished trials lost", "faults", _fault(_TUNER, "lost"), 0, 0, False),
    ("tuner killed -9 three times: trials repeated", "faults", _fault(_TUNER, "repeated"), 0, 0, False),
    ("workers killed -9: repeated although reported", "faults", _fault(_WORKERS, "repeated although reported"), 0, 0, False),
    ("driver killed -9 and resumed: wasted executions", "faults", _fault(_DRIVER, "repeated"), 2, 1, False),
    ("hard time-out, child: late by at most, ms", "timeouts", _late("child"), 100, 20, False),
    ("hard time-out, fork: late by at most, ms", "timeouts", _late("fork"), 100, 20, False),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.bench tuning`."""
    parser = Parser("tuning", __doc__, example="python -m tests.bench tuning --quick", program="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer laps and seeds, shorter trials: about two minutes")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; may be given again")
    parser.add_argument("--laps", type=int, help="laps of throughput and makespan (default 3)")
    parser.add_argument("--seeds", type=int, help="seeds of the TPE comparison (default 20, quick 4)")
    return run(parser, argv, _bench)


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    from tests.bench import tuning_sections as sections
    from tests.bench.tuning_stage import stage

    quick = arguments.quick
    laps = arguments.laps or 3
    seeds = arguments.seeds or (4 if quick else 20)
    say = output.note
    measured: dict[str, Any] = {"machine": _machine()}
    failed: dict[str, str] = {}
    # Ray tells of every process that we kill, on standard output, where a program wants the result alone.
    with redirect_stdout(sys.stderr), stage() as set_up:
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "throughput": lambda: sections.throughput(set_up, laps, say),
            "start": lambda: sections.cold_start(say, 1 if quick else laps),
            "makespan-64": lambda: sections.makespan_exponential(set_up, 1 if quick else laps, say, 0.5 if quick else 1.0),
            "makespan-400": lambda: sections.makespan_equal(set_up, 1 if quick else laps, say),
            "faults": lambda: sections.faults(set_up, say, trials=1000 if quick else 4000),
            "timeouts": lambda: sections.time_outs(set_up, say, trials=8 if quick else 30),
            "equality": lambda: sections.equality(set_up, say, trials=500),
            "tpe": lambda: sections.tpe(set_up, say, seeds=seeds),
        }
        for section in arguments.section or SECTIONS:
            try:
                measured[section] = runs[section]()
            except (TimeoutError, RuntimeError) as error:  # a failed section keeps the results of the others
                output.note(f"! {section}: {error}")
                failed[section] = str(error)
    met = _told(measured, output) and not failed
    output.result(measured | {"failed": failed, "met": met})
    return FINE if met else FAILED


def _told(measured: dict[str, Any], output: Output) -> bool:
    output.line(", ".join(f"{key} {value}" for key, value in measured["machine"].items()))
    rows, met = [], True
    for name, section, read, must, aim, larger in FIGURES:
        value = read(measured[section]) if section in measured else None
        if value is None:
            continue
        reached, aimed = (value >= must, value >= aim) if larger else (value <= must, value <= aim)
        met = met and reached
        rows.append((name, float(value), must, aim, "aim" if aimed else "must" if reached else "MISSED"))
    output.table("figures", ("figure", "measured", "must", "aim", "reached"), rows)
    if "throughput" in measured:
        rates = measured["throughput"]["trials_per_s"].items()
        output.table(
            "no-op trials a second, two at once",
            ("who", "median", "min", "max"),
            [(who, each["median"], each["min"], each["max"]) for who, each in rates],
        )
    _tell_makespans(measured, output)
    if "faults" in measured:
        columns = ("trials", "completed", "lost", "repeated", "repeated although reported")
        shown = [(fault, *(found.get(column) for column in columns)) for fault, found in measured["faults"].items()]
        output.table("kill -9", ("fault", *columns), shown)
    if "equality" in measured:
        equal = measured["equality"]["equal"]
        output.table("equal to the table of one worker, bit for bit", ("run", "equal"), list(equal.items()))
        met = met and all(equal.values())
    if "tpe" in measured:
        rows = []
        for task, found in measured["tpe"].items():
            if isinstance(found, dict):
                medians = (found["regret"][who]["median"] for who in ("adapter", "optuna alone", "random"))
                rows.append((task, *medians, found["mann_whitney_p"]))
                met = met and found["mann_whitney_p"] > 0.01
        output.table(
            "TPE: median regret", ("task", "by our adapter", "Optuna alone", "random search", "p of a difference"), rows
        )
    return met


def _tell_makespans(measured: dict[str, Any], output: Output) -> None:
    for found in (measured[section] for section in SECTIONS if section.startswith("makespan") and section in measured):
        shown = [(who, *(f"{each[key]:+.1%}" for key in ("median", "min", "max"))) for who, each in found["over"].items()]
        output.table(f"{found['case']}: over the ideal of {found['ideal_s']:.2f} s", ("who", "median", "min", "max"), shown)


def _machine() -> dict[str, Any]:
    versions = {}
    for package in ("ray", "optuna", "rustuna", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {"cpus": os.cpu_count(), "python": platform.python_version(), **versions, "load": round(os.getloadavg()[0], 1)}


if __name__ == "__main__":
    sys.exit(main())

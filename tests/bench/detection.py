"""Measure the drift detectors: false alarms, delay against the physical limit, outliers, speed, real streams.

Every section has fixed seeds and prints means with standard errors. The whole takes about half an hour on one core,
`--quick` under two minutes with wider errors. docs/results/detection.md explains the figures.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from drivers.output import Output
from tests.bench import detection_plots, detection_real
from tests.bench.arguments import FAILED, FINE, Parser, run
from tests.bench.detection_contestants import BUDGET, CONTESTANTS, Ours
from tests.bench.detection_families import FAMILIES
from tests.bench.detection_nab import nab_rows
from tests.bench.detection_runs import (
    Measured,
    arl_row,
    calibrated,
    default,
    delays,
    oracle_delays,
    outlier_row,
    run_lengths,
    speed_rows,
)
from tests.bench.detection_season import season_rows

SECTIONS = ("arl", "delay", "caution", "direction", "competitors", "outlier", "season", "speed", "real")
# Families for the comparison: of one mean and deviation, which the competitors that need them get.
_ABROAD = ("gaussian", "binomial", "t3", "ar.5")
_SHIFTS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Few and autocorrelated values, where a detector's caution costs most: the delay for 1 sd after so many events.
_YOUNG, _CAUTION_BUDGETS = 300, (300.0, 1000.0, 3000.0, 10_000.0)
_MOST_DELAY = {300.0: 160.0, 1000.0: 230.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.bench detection`."""
    parser = Parser(
        "detection", __doc__ or "", example="python -m tests.bench detection --quick", program="python -m tests.bench"
    )
    parser.add_argument("--quick", action="store_true", help="fewer streams and families: under two minutes")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this; may be given again")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="only this; may be given again")
    parser.add_argument("--contestant", action="append", choices=list(CONTESTANTS), help="only this; may be given again")
    parser.add_argument("--budget", action="append", type=float, help="false_alarm_every of the section arl")
    parser.add_argument("--streams", type=int, help="streams a cell (default 200; 40 with --quick)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="merge the results into this JSON file")
    parser.add_argument("--nab", type=Path, metavar="DIR", help="nothing but seasons on NAB, of which this is a checkout")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what FILE (or this run) holds")
    return run(parser, argv, _bench)


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    sections = arguments.section or list(SECTIONS)
    streams = arguments.streams if arguments.streams is not None else 40 if arguments.quick else 200
    if streams < 2:
        raise ValueError(f"streams must be at least 2, got {streams}")
    results: dict[str, Any] = {}
    if arguments.save and arguments.save.exists():
        results = json.loads(arguments.save.read_text(encoding="utf-8"))
    results["machine"] = _machine()
    measure: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "arl": lambda: _arl(arguments, streams, output),
        "delay": lambda: _delay(arguments, streams, output),
        "caution": lambda: _caution(streams, output),
        "direction": lambda: _direction(streams, output),
        "competitors": lambda: _competitors(arguments, streams, output),
        "outlier": lambda: _outlier(streams, output),
        "season": lambda: _season(streams, output),
        "speed": lambda: _speed(arguments, output),
        "real": lambda: _real(output),
    }
    output.line(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    if arguments.nab is not None:
        return _nab(arguments.nab, output)
    for section in sections:
        start = time.perf_counter()
        fresh = measure[section]()
        results[section] = _merged(results.get(section, []), fresh)
        output.line(f"{section}: {time.perf_counter() - start:.0f} s")
        if arguments.save:
            arguments.save.write_text(json.dumps(results), encoding="utf-8")
    if arguments.plots:
        for path in detection_plots.draw(results, arguments.plots):
            output.line(f"drawn: {path}")
    output.result({key: value for key, value in results.items() if key in sections or key == "machine"})
    rows = results["arl"] if "arl" in sections else []
    return FAILED if any(not (row["held"] and row["held_early"]) for row in rows) else FINE


def _merged(old: list[dict[str, Any]], fresh: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace the rows that were measured again; a row is identified by its subject."""

    def about(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(
            row.get(key) for key in ("family", "nominal", "before", "shift", "name", "calibrated", "size_sd", "way", "what")
        )

    again = {about(row) for row in fresh}
    return [row for row in old if about(row) not in again] + fresh


def _machine() -> dict[str, str]:
    versions = {name: version(name) for name in ("numpy",)}
    for extra in ("river", "focus-cpt"):
        try:
            versions[extra] = version(extra)
        except ModuleNotFoundError:
            versions[extra] = "absent"
    return {"python": platform.python_version(), "cpu": _cpu(), **versions}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _arl(arguments: argparse.Namespace, streams: int, output: Output) -> list[dict[str, Any]]:
    budgets = arguments.budget or ([1000.0] if arguments.quick else [1000.0, 10_000.0, 30_000.0])
    rows = []
    for nominal in budgets:
        for name in arguments.family or FAMILIES:
            row = arl_row(FAMILIES[name], nominal, streams=streams)
            rows.append(row)
            _tell(f"arl {nominal:g} {name}: {row['arl0']:.0f}±{row['error']:.0f}")
    output.table(
        "events per false alarm, and in the first 2,000 events",
        ("family", "budget", "ARL0", "first 2,000", "alarms there / budgeted", "held", "<= 2.5x"),
        [
            (
                row["family"],
                f"{row['nominal']:,.0f}",
                str(Measured(row["arl0"], row["error"], streams)),
                "none" if row["early_arl0"] is None else f"{row['early_arl0']:.0f}",
                f"{row['early_alarms']} / {row['early_expected']:.0f}",
                "yes" if row["held"] and row["held_early"] else "no" if not row["held"] else "not early",
                "yes" if row["at_most_2.5"] else "no",
            )
            for row in rows
        ],
    )
    return rows


def _delay(arguments: argparse.Namespace, streams: int, output: Output) -> list[dict[str, Any]]:
    names = arguments.family or (["gaussian", "ar.5"] if arguments.quick else list(FAMILIES))
    rows = []
    for name in names:
        family = FAMILIES[name]
        befores = (500, 5000) if name == "gaussian" else (5000,)
        # A Bernoulli or Binomial cannot move by 4 sd; beyond 2 sd the ratio to a delay of one event says little.
        shifts = (0.5, 1.0, 2.0) if arguments.quick else (0.25, 0.5, 1.0, 2.0)
        oracles = {}
        if family.log_ratio is not None:
            oracles = {s: oracle_delays(family, s, arl0=BUDGET, streams=streams) for s in shifts}
            if name == "gaussian" and not arguments.quick:
                oracles[4.0] = oracle_delays(family, 4.0, arl0=BUDGET, streams=streams)
        for before in befores:
            some = _SHIFTS if before == 500 and not arguments.quick else shifts
            found = delays(default(family, false_alarm_every=BUDGET), family, some, before=before, streams=streams)
            for shift, runs in found.items():
                rows.append(_delay_row(name, before, shift, Measured.of(runs), oracles.get(shift)))
                _tell(f"delay {name} {before} {shift:g}: {rows[-1]['delay']:.1f} ratio {rows[-1]['ratio']}")
    output.table(
        f"events from the change to the alarm, budget {BUDGET:,}",
        ("family", "before", "shift sd", "delay", "oracle", "ratio"),
        [
            (
                row["family"],
                row["before"],
                row["shift"],
                str(Measured(row["delay"], row["error"], streams)),
                "-" if row["oracle"] is None else f"{row['oracle']:.2f}",
                "-" if row["ratio"] is None else f"{row['ratio']:.2f}±{row['ratio_error']:.2f}",
            )
            for row in rows
        ],
    )
    return rows


def _delay_row(name: str, before: int, shift: float, found: Measured, oracle: Measured | None) -> dict[str, Any]:
    ratio = found.mean / oracle.mean if oracle else None
    error = None
    if oracle and ratio is not None:
        error = ratio * float(np.hypot(found.error / found.mean, oracle.error / oracle.mean))
    return {
        "family": name,
        "before": before,
        "shift": shift,
        "delay": found.mean,
        "error": found.error,
        "streams": found.n,
        "oracle": oracle.mean if oracle else None,
        "oracle_error": oracle.error if oracle else None,
        "ratio": ratio,
        "ratio_error": error,
    }


def _caution(streams: int, output: Output) -> list[dict[str, Any]]:
    """Few and autocorrelated values: the delay for 1 sd of the family `ar.8`, by budget."""
    rows: list[dict[str, Any]] = []
    for budget in _CAUTION_BUDGETS:
        for direction in ("both", "down"):
            made = default(FAMILIES["ar.8"], false_alarm_every=budget, direction=direction)
            delay = Measured.of(delays(made, FAMILIES["ar.8"], (1.0,), before=_YOUNG, streams=streams)[1.0])
            must = _MOST_DELAY.get(budget)
            rows.append(
                {"name": f"ar.8, {direction}", "nominal": budget, "before": _YOUNG, "shift": 1.0}
                | {"delay": delay.mean, "error": delay.error, "streams": streams, "must": must}
            )
            _tell(f"caution {budget:g} {direction}: {delay}")
    output.table(
        f"ar.8, 1 sd down after {_YOUNG} events: events to the alarm",
        ("direction", "budget", "delay", "must"),
        [
            (row["name"], f"{row['nominal']:,.0f}", str(Measured(row["delay"], row["error"], streams)), row["must"] or "-")
            for row in rows
        ],
    )
    return rows


def _direction(streams: int, output: Output) -> list[dict[str, Any]]:
    """Degradation only, at a true ARL0 of 10,000: first search the budget that gives it."""
    family = FAMILIES["gaussian"]
    budget = float(BUDGET)
    for _ in range(2):
        runs = run_lengths(
            partial(Ours, "default", false_alarm_every=budget, direction="down"),
            family,
            streams=2 * streams,
            limit=20 * BUDGET,
            seed=5,
        )
        _tell(f"direction down: ARL0 {np.mean(runs):.0f} at {budget:.0f}")
        arl = Measured.of(runs)
        asked, budget = budget, budget * BUDGET / arl.mean
    made = partial(Ours, "default", false_alarm_every=asked, direction="down")
    found = {s: Measured.of(runs) for s, runs in delays(made, family, _SHIFTS, before=500, streams=streams).items()}
    rows: list[dict[str, Any]] = [
        {"name": "direction down", "asked": asked, "arl0": arl.mean, "arl0_error": arl.error, "shift": shift}
        | {"before": 500, "delay": delay.mean, "error": delay.error, "streams": streams}
        for shift, delay in found.items()
    ]
    output.table(
        f"direction down, 500 events before, ARL0 {arl} at false_alarm_every {asked:.0f}",
        ("shift sd", "delay"),
        [(row["shift"], str(Measured(row["delay"], row["error"], streams))) for row in rows],
    )
    return rows


def _competitors(arguments: argparse.Namespace, streams: int, output: Output) -> list[dict[str, Any]]:
    rows = []
    for contestant in CONTESTANTS.values():
        if arguments.contestant and contestant.name not in arguments.contestant:
            continue
        if not contestant.present:
            output.note(f"{contestant.name}: {contestant.needs} is not installed, left out")
            continue
        slow = contestant.name == "river KSWIN"
        some = min(streams, 20) if slow or arguments.quick else streams
        settings = [(contestant.given, False)]
        if contestant.loose != contestant.strict:
            settings.append((calibrated(contestant, arl0=BUDGET, streams=some), True))
        elif not slow:
            settings = [(contestant.given, True)]  # ours are given by their budget
        for parameter, tuned in settings:
            if parameter is None:
                continue
            rows.append(
                _contest(contestant.name, parameter, tuned=tuned, streams=some, families=_families(arguments, tuned=tuned))
            )
            _tell(f"{contestant.name} {parameter:g}: {rows[-1]['arl0'].get('gaussian', {}).get('mean', 0):.0f}")
    shifts = [f"{shift:g}" for shift in _SHIFTS]
    families = list(dict.fromkeys(family for row in rows for family in row["arl0"]))
    output.table(
        f"ARL0 (runs end at {5 * BUDGET:,}), and delay on Gaussian noise after 500 events; told where calibrated to {BUDGET:,}",
        ("detector", "parameter", "calibrated", *(f"ARL0 {family}" for family in families), *(f"{s} sd" for s in shifts)),
        [
            (
                row["name"],
                f"{row['parameter']:.4g}",
                "yes" if row["calibrated"] else "no",
                *(str(Measured(**row["arl0"][f])) if f in row["arl0"] else "-" for f in families),
                *(str(Measured(**row["delays"][s])) if s in row["delays"] else "-" for s in shifts),
            )
            for row in rows
        ],
    )
    return rows


def _families(arguments: argparse.Namespace, *, tuned: bool) -> list[str]:
    return list(arguments.family or (_ABROAD if tuned and not arguments.quick else ("gaussian",)))


def _contest(name: str, parameter: float, *, tuned: bool, streams: int, families: list[str]) -> dict[str, Any]:
    contestant = CONTESTANTS[name]

    def make() -> Any:
        return contestant.make(parameter)

    arl0 = {}
    for family in families:
        runs = run_lengths(make, FAMILIES[family], streams=streams, limit=5 * BUDGET, seed=8)
        arl0[family] = vars(Measured.of(runs))
    found = delays(make, FAMILIES["gaussian"], _SHIFTS, before=500, streams=streams, seed=6) if tuned else {}
    return {
        "name": name,
        "parameter": parameter,
        "calibrated": tuned,
        "arl0": arl0,
        "delays": {f"{shift:g}": vars(Measured.of(runs)) for shift, runs in found.items()},
    }


def _season(streams: int, output: Output) -> list[dict[str, Any]]:
    rows = season_rows(streams=streams)
    output.table(
        "seasons by the calendar; delay at a budget of 10,000, and that of the same stream without its season",
        ("events", "what", "with the season", "without it"),
        [
            (
                row["way"],
                row["what"],
                str(Measured(row["mean"], row["error"], streams)),
                str(Measured(row["bare"], row["bare_error"], streams)) if "bare" in row else "-",
            )
            for row in rows
        ],
    )
    return [{**row} for row in rows]


def _nab(folder: Path, output: Output) -> int:
    rows = nab_rows(folder)
    output.table(
        "Numenta Anomaly Benchmark, real files, standard profile",
        ("what", "windows found", "false alarms", "score"),
        [(row["what"], f"{row['found']} of {row['windows']}", row["false_alarms"], f"{row['score']:.1f}") for row in rows],
    )
    output.result(rows)
    return FINE


def _outlier(streams: int, output: Output) -> list[dict[str, Any]]:
    rows = [outlier_row(size, streams=5 * streams) for size in (5.0, 20.0, 1000.0)]
    output.table(
        "streams on which one outlier makes the default alarm within 20 events",
        ("outlier sd", "alarmed", "without the outlier"),
        [
            (row["size_sd"], f"{100 * row['alarmed']:.1f}%±{100 * row['error']:.1f}", f"{100 * row['alarmed_without_it']:.1f}%")
            for row in rows
        ],
    )
    return rows


def _speed(arguments: argparse.Namespace, output: Output) -> list[dict[str, Any]]:
    rows = speed_rows(events=50_000 if arguments.quick else 200_000)
    output.table(
        "ns of processor time an event, median of five runs",
        ("what", "ns", "lowest", "highest", "must", "aim"),
        [(r["what"], round(r["ns"]), round(r["low"]), round(r["high"]), r["must"] or "-", r["aim"] or "-") for r in rows],
    )
    return rows


def _real(output: Output) -> list[dict[str, Any]]:
    rows = [detection_real.watch(stream) for stream in detection_real.present()]
    output.table(
        "real streams",
        ("stream", "events", "alarms at", "annotated: alarm after", "alarms outside"),
        [
            (
                row["name"],
                row["events"],
                " ".join(f"{alarm['index']}{'-' if alarm['direction'] == 'down' else '+'}" for alarm in row["alarms"])
                or "none",
                ", ".join(f"{told['label']} {told['alarm_after'] or 'missed'}" for told in row["annotations"]) or "-",
                row["outside"],
            )
            for row in rows
        ],
    )
    return rows


def _tell(text: str) -> None:
    """Print the progress to a terminal or a log, never into the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Measure what a retraining rule is worth: against calendars with as many retrains, detectors, and the best plan in hindsight.

Streams that packages ship and synthetic ones, two kinds of models, four prices of a retrain.
docs/explanation/when-a-retrain-pays.md explains the figures. Training the models takes about half an hour on one core,
once with `--cache`; the rest some minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from drivers.output import Output
from tests.bench import value_plots
from tests.bench.arguments import FINE, Parser, run
from tests.bench.value_challenger import PAIRS, pair
from tests.bench.value_loop import calendar, closed
from tests.bench.value_robustness import robustness, told
from tests.bench.value_rules import BUDGETS, PRICES, RULES, plan
from tests.bench.value_score import Score, scores, summary, with_best_calendar
from tests.bench.value_streams import STREAMS, Rows, load
from tests.bench.value_table import MODELS, Table, table

SECTIONS = ("value", "robustness", "loop", "shuffled", "challenger")
_ORDER = (
    "never",
    "random",
    "river DDM",
    "river ADWIN",
    "alarm, 10,000",
    "alarm, 300",
    "best single calendar",
    "best calendar of each stream",
    "budget",
    "shortfall",
    "optimum in hindsight",
)
_LOOP_RULES = ("shortfall", "alarm, 300", "river ADWIN")
_LOOP_PRICE, _LOOP_BUDGET = 0.01, 2.0
_SETS_SHUFFLED = 10  # training sets: one to begin with, nine live
_QUICK = ("ridership", "digits", "demand", "sea", "mild", "stationary")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.bench value`."""
    parser = Parser("value", __doc__ or "", example="python -m tests.bench value --quick", program="python -m tests.bench")
    parser.add_argument(
        "--quick", action="store_true", help=f"linear models, on {', '.join(_QUICK)}: about a minute of processor time"
    )
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this; may be given again")
    parser.add_argument("--stream", action="append", choices=list(STREAMS), help="only this; may be given again")
    parser.add_argument("--model", action="append", choices=MODELS, help="only this; may be given again")
    parser.add_argument("--runs", type=int, help="of the challenger test, for each pair (default 2000; 200 with --quick)")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/value"), metavar="DIR", help="where to keep what the models got right"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="merge the results into this JSON file")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what FILE (or this run) holds")
    return run(parser, argv, _bench)


def _bench(arguments: argparse.Namespace, output: Output) -> int:
    results: dict[str, Any] = {}
    if arguments.save and arguments.save.exists():
        results = json.loads(arguments.save.read_text(encoding="utf-8"))
    results["machine"] = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scikit-learn", "river")},
    }
    measure: dict[str, Callable[[], None]] = {
        "value": lambda: _value(arguments, output, results),
        "robustness": lambda: _robustness(arguments, output, results),
        "loop": lambda: _loop(arguments, output, results),
        "shuffled": lambda: _shuffled(arguments, output, results),
        "challenger": lambda: _challenger(arguments, output, results),
    }
    for section in arguments.section or SECTIONS:
        start = time.perf_counter()
        measure[section]()
        output.line(f"{section}: {time.perf_counter() - start:.0f} s")
        if arguments.save:
            arguments.save.write_text(json.dumps(results), encoding="utf-8")
    if arguments.plots:
        for path in value_plots.draw(results, arguments.plots):
            output.line(f"drawn: {path}")
    output.result(results)
    return FINE


def _loaded(arguments: argparse.Namespace, output: Output) -> list[Rows]:
    names = arguments.stream or (_QUICK if arguments.quick else STREAMS)
    found = []
    for name in names:
        try:
            found.append(load(name))
        except ModuleNotFoundError as error:
            output.note(f"{name}: left out, {error}")
    return found


def _models(arguments: argparse.Namespace) -> Sequence[str]:
    return arguments.model or (MODELS[:1] if arguments.quick else MODELS)


# --- sections ---------------------------------------------------------------------------------------------------------


def _value(arguments: argparse.Namespace, output: Output, results: dict[str, Any]) -> None:
    found: list[Score] = []
    results["stories"] = []
    for rows in _loaded(arguments, output):
        for kind in _models(arguments):
            known = table(rows, kind, arguments.cache)
            found += scores(known)
            if kind == MODELS[0]:
                results["stories"].append(_story(known))
            output.note(f"{rows.name} {kind}: {_accuracies(known)}")
    results["scores"] = [asdict(score) for score in with_best_calendar(found)]
    for what, kinds in (
        ("real streams", ("real",)),
        ("synthetic streams", ("synthetic",)),
        ("all", ("real", "synthetic", "still")),
    ):
        some = with_best_calendar([score for score in found if score.kind in kinds])
        if some:
            results.setdefault("summary", {})[what] = _told_summary(some, what, output)
    _told_streams([Score(**row) for row in results["scores"]], output)


def _accuracies(known: Table) -> str:
    never, fewest = known.misses([]), known.optimum[-1]
    return f"accuracy never {1 - never / known.rows:.3f}, best plan {1 - fewest / known.rows:.3f}, {known.points} points"


def _story(known: Table) -> dict[str, Any]:
    """Return one stream's course for the plots: the accuracy of the first model and under the rule, and its retrains."""
    points = plan(RULES["shortfall"], known, price=PRICES[1], budget=BUDGETS[1])
    static = known.right[0].reshape(known.points, -1).mean(axis=1)
    under, live = [], [0, *points, known.points]
    for start, end in pairwise(live):
        under += known.right[start].reshape(known.points, -1)[start:end].mean(axis=1).tolist()
    return {"stream": known.name, "model": known.model, "static": static.tolist(), "rule": under, "retrains": points}


def _told_summary(found: Sequence[Score], what: str, output: Output) -> list[dict[str, Any]]:
    rows = [summary(found, rule) for rule in _ORDER if any(score.rule == rule for score in found)]
    output.table(
        f"{what}: points of accuracy; gain over calendars with as many retrains, regret over the best plan in hindsight",
        ("rule", "streams", "retrains", "gain", "5% bound", "median", "won", "lost", "share of the gap", "regret"),
        [
            (
                row["rule"],
                row["streams"],
                f"{row['retrains']:.1f}",
                f"{row['gain']:+.2f}±{row['gain_error']:.2f}",
                f"{row['gain_low']:+.2f}",
                f"{row['median']:+.2f}",
                row["won"],
                row["lost"],
                "-" if row["share"] is None else f"{row['share']:.2f}",
                f"{row['regret']:.2f}±{row['regret_error']:.2f}",
            )
            for row in rows
        ],
    )
    return [dict(row) for row in rows]


def _told_streams(found: Sequence[Score], output: Output) -> None:
    own = [score for score in found if score.rule == "shortfall"]
    lines = []
    for name in dict.fromkeys(score.stream for score in own):
        for kind in dict.fromkeys(score.model for score in own):
            cells = {score.price: score for score in own if (score.stream, score.model) == (name, kind)}
            if cells:
                shown = [f"{cells[price].gain:+.2f} ({cells[price].retrains:.0f})" for price in PRICES]
                lines.append((name, kind, *shown))
    output.table("shortfall: gain (retrains) at each price", ("stream", "model", *(f"{price:.1%}" for price in PRICES)), lines)


def _robustness(arguments: argparse.Namespace, output: Output, results: dict[str, Any]) -> None:
    found: list[Score] = []
    for rows in _loaded(arguments, output):
        for kind in _models(arguments):
            found += robustness(rows, kind, arguments.cache)
            output.note(f"robustness {rows.name} {kind}")
    lines = told(found)
    results["robustness"] = [asdict(score) for score in found]
    title = "shortfall where something is wrong, means over four prices: points of accuracy"
    output.table(title, ("what is wrong", "retrains", "gain", "regret"), lines)


def _loop(arguments: argparse.Namespace, output: Output, results: dict[str, Any]) -> None:
    rows_told = []
    for rows in _loaded(arguments, output):
        for kind in _models(arguments):
            for rule in _LOOP_RULES:
                moments, misses = closed(rows, kind, RULES[rule], price=_LOOP_PRICE, budget=_LOOP_BUDGET)
                live = len(rows.classes) - rows.train
                gain = 100 * (calendar(rows, kind, len(moments)) - misses) / live
                rows_told.append(
                    {
                        "stream": rows.name,
                        "model": kind,
                        "rule": rule,
                        "retrains": len(moments),
                        "gain": gain,
                        "misses": misses / live,
                    }
                )
                output.note(f"loop {rows.name} {kind} {rule}: {len(moments)} retrains, {gain:+.2f}")
    results["loop"] = rows_told
    lines = []
    for rule in _LOOP_RULES:
        own = [row for row in rows_told if row["rule"] == rule]
        gains = np.array(
            [np.mean([row["gain"] for row in own if row["stream"] == name]) for name in {row["stream"] for row in own}]
        )
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
        won, lost = int((gains > 0.02).sum()), int((gains < -0.02).sum())
        retrains = float(np.mean([row["retrains"] for row in own]))
        lines.append(
            (rule, len(gains), f"{retrains:.1f}", f"{gains.mean():+.2f}±{error:.2f}", f"{np.median(gains):+.2f}", won, lost)
        )
    title = f"closed loop, really trained; price {_LOOP_PRICE:.0%}: gain over calendars with as many retrains, points"
    output.table(title, ("rule", "streams", "retrains", "gain", "median", "won", "lost"), lines)


def _shuffled(arguments: argparse.Namespace, output: Output, results: dict[str, Any]) -> None:
    counts: dict[float, list[int]] = {price: [] for price in PRICES}
    for rows in _loaded(arguments, output):
        part = rows.shuffled(np.random.default_rng(3))
        most = _SETS_SHUFFLED * rows.train
        if len(part.classes) < 0.95 * most:
            continue
        part = Rows(part.name, part.kind, part.features[:most], part.classes[:most], part.train)
        for kind in _models(arguments):
            for price, found in counts.items():
                found.append(len(closed(part, kind, RULES["shortfall"], price=price, budget=1.0)[0]))
        output.note(f"shuffled {rows.name}: {[found[-1] for found in counts.values()]}")
    results["shuffled"] = {f"{price:g}": found for price, found in counts.items()}
    output.table(
        "rows in random order, nine training sets: retrains of the shortfall rule",
        ("price", "streams and models", "retrains", "most"),
        [(f"{price:.1%}", len(found), f"{np.mean(found):.3f}", max(found)) for price, found in counts.items() if found],
    )


def _challenger(arguments: argparse.Namespace, output: Output, results: dict[str, Any]) -> None:
    runs = arguments.runs or (200 if arguments.quick else 2000)
    found = [pair(a, b, runs=runs) for a, b in PAIRS]
    results["challenger"] = found
    output.table(
        f"challenger test, {runs} runs, rows of each version until the verdict",
        ("rates", "called better", "called worse", "median rows", "90% of runs within"),
        [
            (
                f"{row['a']:g} against {row['b']:g}",
                f"{row['better']:.1%}±{row['better_error']:.1%}",
                f"{row['worse']:.1%}±{row['worse_error']:.1%}",
                row["rows_median"],
                row["rows_90"],
            )
            for row in found
        ],
    )

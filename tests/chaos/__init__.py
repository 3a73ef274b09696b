"""Kill, freeze and cut off a system under load, then compare its store with what was acknowledged and launched.

Exit 1 on any breach, and where a negative control was not caught.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from drivers.output import Output
from tests.bench.arguments import FAILED, FINE, Parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m tests.chaos`."""
    parser = Parser("tests.chaos", __doc__ or "", example="python -m tests.chaos --seconds 60 --seed 1", program="python -m")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults strike (default 60)")
    parser.add_argument("--kills", type=int, default=0, help="go on until so many actors were killed, on a slow machine too")
    parser.add_argument("--seed", type=int, default=1, help="decides which faults strike, and in which order")
    parser.add_argument(
        "--events", type=int, default=None, help="how many events are logged meanwhile (default: 5000 a second)"
    )
    parser.add_argument(
        "--storage",
        default="sqlite:///{folder}/store",
        help="sqlite:///FOLDER, postgresql://..., or the word postgresql: a private server,\n"
        "with nodes that are killed and frozen too (default: SQLite in a temporary folder)",
    )
    parser.add_argument(
        "--control",
        metavar="NAME",
        help="take a protection away, which must be noticed: no-trim, early-reply, no-fence, no-put-if-absent, no-rearm,\n"
        "or all; or none of them: the same faults must leave no trace",
    )
    parser.add_argument(
        "--crowd", type=int, default=0, metavar="N", help="N producers more, all of one model, that resend together"
    )
    parser.add_argument(
        "--drill",
        choices=("overload", "damage"),
        help="overload: 1,200 consumers, 1,500 calls at a locked store, 400 orders at a receiver that hangs;\n"
        "damage: the store's files are deleted, replaced, made read-only, and bytes in them flipped; with --control all:\n"
        "without each protection in turn, which must be noticed",
    )
    parser.add_argument(
        "--soak",
        type=float,
        metavar="MINUTES",
        help="a steady load for so long: memory, descriptors, threads and disk must be flat; with --control leak: must not be",
    )
    parser.add_argument("--keep", action="store_true", help="keep the records of the run")
    return run(parser, argv, _chaos)


def _chaos(arguments: argparse.Namespace, output: Output) -> int:
    if not arguments.seconds > 0:
        raise ValueError(f"--seconds must be above 0, got {arguments.seconds:g}")
    # Before `actors` is imported: a developer may edit the sources during a run, and a restarted actor must not be an upgrade.
    os.environ.setdefault("VISUTILITY_BUILD", "chaos")
    if arguments.soak is not None:
        from tests.chaos import drilled

        return drilled.run_soak(arguments.soak, arguments.control, output)
    if arguments.drill is not None:
        from tests.chaos import drilled

        return drilled.run_drill(arguments.drill, arguments.control, output)
    if arguments.control is not None:
        from tests.chaos import negative

        return negative.run_controls(negative.groups(arguments.control), arguments.storage, arguments.seed, output)
    from tests.chaos.campaign import campaign
    from tests.chaos.crew import CONSUMERS, PRODUCERS
    from tests.chaos.report import COLUMNS

    report = campaign(
        arguments.storage,
        seed=arguments.seed,
        seconds=arguments.seconds,
        events=arguments.events or int(5000 * arguments.seconds),
        keep=arguments.keep,
        crew=((*PRODUCERS, "crowd") if arguments.crowd else PRODUCERS, CONSUMERS),
        crowd=arguments.crowd,
        kills=arguments.kills,
    )
    output.line(report.title())
    output.table("", COLUMNS, report.rows())
    for example in report.findings.examples:
        output.line(f"! {example}")
    if report.missed:
        output.line(f"not reached in time when armed: {', '.join(sorted(set(report.missed)))}")
    output.result(report.plain())
    return FINE if report.holds else FAILED

"""Hold back the retrains of a model, or of a pattern of models, for a while. Drift is still found, recorded and shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from drivers.arguments import FINE, Parser, add_cluster, run
from drivers.output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility silence add|query|expire`."""
    parser = Parser("silence", __doc__, example="visutility silence add 'fraud-*' --duration 2h --comment 'holiday sale'")
    parser.add_argument(
        "action",
        choices=("add", "query", "expire"),
        help="add MODEL --duration 2h: from now on\nquery: those in force\nexpire ID: end one",
    )
    parser.add_argument("what", nargs="?", help="add, query: a model or a pattern like 'fraud-*'; expire: a silence's id")
    parser.add_argument("--duration", help="add: like 30m, 2h, 7d")
    parser.add_argument("--comment", default="", help="add: why, for those who see it")
    add_cluster(parser)
    return run(parser, argv, _act)


def _act(arguments: argparse.Namespace, output: Output) -> int:
    from actors import system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415 --help needs no Ray

    if arguments.action == "add" and not (arguments.what and arguments.duration):
        raise ValueError("add needs a model and --duration, like: visutility silence add fraud --duration 2h")
    if arguments.action == "expire" and arguments.what is None:
        raise ValueError("expire needs the id of a silence: visutility silence query")
    connection.attach(arguments.address, otherwise="look")
    retrains = system.System(arguments.namespace or system.DEFAULT_NAMESPACE).retrains
    match arguments.action:
        case "add":
            made = retrains.silence(arguments.what, arguments.duration, arguments.comment)
            output.line(made)
            output.result({"silence": made})
        case "expire":
            retrains.unsilence(arguments.what)
            output.line(f"{arguments.what} has ended")
            output.result({"silence": arguments.what})
        case _:
            rows = [row for row in retrains.silences() if arguments.what in {None, row["model"]}]
            columns = ("id", "model", "seconds left", "comment")
            lines = [(row["id"], row["model"], round(row["remaining_s"]), row["comment"]) for row in rows]
            output.table("silences", columns, lines)
            output.result(rows)
    return FINE


if __name__ == "__main__":
    sys.exit(main())

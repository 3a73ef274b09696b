"""Give the running system a changed configuration; all state is kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from drivers.arguments import FAILED, FINE, Parser, add_cluster, run
from drivers.output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility reload FILE`."""
    parser = Parser("reload", __doc__, example="visutility reload visutility.yaml")
    parser.add_argument("file", help="the configuration, YAML")
    add_cluster(parser)
    return run(parser, argv, _reload)


def _reload(arguments: argparse.Namespace, output: Output) -> int:
    from actors import config, system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415 --help needs no Ray

    settings = config.load(arguments.file)
    connection.attach(arguments.address, otherwise="look")
    done = system.System(arguments.namespace or settings.namespace).reload(arguments.file)
    for change in done["changes"] or ["nothing changed"]:
        output.line(change)
    for name, problem in done["problems"].items():
        output.line(f"{name} has not read it yet: {problem}")
    output.result(done)
    return FAILED if done["problems"] else FINE


if __name__ == "__main__":
    sys.exit(main())

"""Start the system on a running Ray cluster, or attach to the one that runs there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from drivers.arguments import FINE, Parser, add_cluster, run
from drivers.output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility start [FILE]`."""
    parser = Parser("start", __doc__, example="visutility start")
    parser.add_argument("file", nargs="?", help="the configuration, YAML (default: what the store was told last)")
    add_cluster(parser)
    return run(parser, argv, _start)


def _start(arguments: argparse.Namespace, output: Output) -> int:
    from actors import config, system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415 --help needs no Ray

    if arguments.file is not None:
        config.load(arguments.file)  # a mistake in the file is told before any Ray is looked for
    # A private Ray would end with this command; `up` is the way to have one that stays.
    connection.attach(arguments.address, otherwise="look")
    started = system.start(arguments.file, namespace=arguments.namespace)
    told = started.status()
    output.line(f"the system runs in namespace {started.namespace!r}, build {told['build']}, storage {told['storage']}")
    output.result(told)
    return FINE


if __name__ == "__main__":
    sys.exit(main())

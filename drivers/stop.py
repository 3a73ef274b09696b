"""Stop the system: every actor ends, what was acknowledged stays in the store, `start` carries on from there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from drivers.arguments import FINE, Parser, add_cluster, run
from drivers.output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility stop`."""
    parser = Parser("stop", __doc__, example="visutility stop")
    add_cluster(parser)
    return run(parser, argv, _stop)


def _stop(arguments: argparse.Namespace, output: Output) -> int:
    from actors import system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import card, connection  # noqa: PLC0415 --help needs no Ray

    namespace = arguments.namespace or system.DEFAULT_NAMESPACE
    connection.attach(arguments.address, otherwise="look")
    was_there = card.read(namespace) is not None
    system.System(namespace).stop()
    output.line(f"the system in namespace {namespace!r} " + ("is stopped" if was_there else "was not running"))
    output.result({"namespace": namespace, "stopped": was_there})
    return FINE


if __name__ == "__main__":
    sys.exit(main())

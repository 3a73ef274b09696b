"""Start the system on a running Ray cluster, or attach to a running system."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from drivers.commands import FINE, cluster, command, run
from drivers.output import Output


@command("start", help=__doc__, examples=["visutility start", "visutility start visutility.yaml --address 10.0.0.5:6379"])
@click.argument("file", required=False)
@cluster
def start(*, file: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Start the system with the configuration FILE, by default with what its store was told last."""
    from actors import config, system  # 1 s; help does without
    from actors.cluster import connection  # 1 s; help does without

    if file is not None:
        config.load(file)  # a mistake in the file is reported before any Ray is looked for
    # A private Ray would end with this command; `up` is the way to have one that stays.
    connection.attach(address, otherwise="look")
    started = system.start(file, namespace=namespace)
    told = started.status()
    output.line(f"the system runs in namespace {started.namespace!r}, build {told['build']}, storage {told['storage']}")
    output.result(told)
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility start [FILE]`."""
    return run(start, argv)


if __name__ == "__main__":
    sys.exit(main())

"""Apply a changed configuration to the running system, which keeps all its state.

Lists the changes. Exits 1 if an actor has not read the configuration yet.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from drivers.commands import FAILED, FINE, cluster, command, run
from drivers.output import Output


@command("reload", help=__doc__, examples=["visutility reload visutility.yaml"])
@click.argument("file")
@cluster
def reload(*, file: str, address: str | None, namespace: str | None, output: Output) -> int:
    """Reload the configuration FILE."""
    from actors import config, system  # 1 s; help does without
    from actors.cluster import connection  # 1 s; help does without

    settings = config.load(file)
    connection.attach(address, otherwise="look")
    done = system.System(namespace or settings.namespace).reload(file)
    for change in done["changes"] or ["nothing changed"]:
        output.line(change)
    for name, problem in done["problems"].items():
        output.line(f"{name} has not read it yet: {problem}")
    output.result(done)
    return FAILED if done["problems"] else FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility reload FILE`."""
    return run(reload, argv)


if __name__ == "__main__":
    sys.exit(main())

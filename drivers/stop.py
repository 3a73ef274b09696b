"""Stop the system; the store keeps everything that was acknowledged.

All actors end. `visutility start` with the same store continues from there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from drivers.commands import FINE, cluster, command, joined, run
from drivers.output import Output


@command("stop", help=__doc__, examples=["visutility stop"])
@cluster
def stop(*, address: str | None, namespace: str | None, output: Output) -> int:
    """Stop the system."""
    system = joined(address, namespace)
    from actors.cluster import card  # imports Ray, 0.4 s

    was_there = card.read(system.namespace) is not None
    system.stop()
    output.line(f"the system in namespace {system.namespace!r} " + ("is stopped" if was_there else "was not running"))
    output.result({"namespace": system.namespace, "stopped": was_there})
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility stop`."""
    return run(stop, argv)


if __name__ == "__main__":
    sys.exit(main())

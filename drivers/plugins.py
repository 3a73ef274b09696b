"""List the plug-ins of other installed packages, and those that cannot be used.

Lists the strategies, detectors, handlers, sources and notifiers from the entry points (`visutility.strategies`, ...) of this
environment; the actors import them in their own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from drivers.commands import FAILED, FINE, command, run
from drivers.output import Output


@command("plugins", help=__doc__, examples=["visutility plugins", "visutility plugins -o json"])
def plugins(*, output: Output) -> int:
    """List them; exit 1 where one cannot be used."""
    from actors import plugins as known  # imports what it finds

    found = known.installed()
    if found:
        rows = [(each.kind, each.name, each.target, each.package, each.problem or "fine") for each in found]
        output.table("plug-ins", ["kind", "name", "target", "package", "state"], rows)
    else:
        output.line("no installed package has plug-ins")
    output.result([each._asdict() for each in found])
    return FAILED if any(each.problem for each in found) else FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility plugins`."""
    return run(plugins, argv)


if __name__ == "__main__":
    sys.exit(main())

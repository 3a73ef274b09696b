"""Show the system in a browser: models, episodes, orders and studies, with actions on them.

Needs a running system; with `--storage` it shows a store read-only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from drivers.commands import DEFAULT_NAMESPACE, FINE, cluster, command, run, stored
from drivers.output import Output


@command("ui", help=__doc__, examples=["visutility ui", "visutility ui --storage sqlite:///./visutility-data"])
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (default: that of the configuration, 8420).")
@click.option("--host", help="Address to listen on (default: that of the configuration, 127.0.0.1).")
@stored
@cluster
def ui(
    *, port: int | None, host: str | None, storage: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Serve the page until Ctrl-C."""
    from actors import people  # 0.4 s with the next line, which imports the store; help does without
    from actors.ui import serving

    serving.check_extra()
    system = None
    if storage is None:
        from drivers.commands import joined  # imports Ray

        system = joined(address, namespace or DEFAULT_NAMESPACE)
        storage = serving.storage_of(system)
    me = people.local_user()
    with serving.prepared(storage, system, host=host, port=port, environment=os.environ, local_name=me) as prepared:
        output.line(f"{'the system' if system else 'the store, read only'}: {prepared.url}    end: Ctrl-C")
        prepared.run()
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility ui`."""
    return run(ui, argv)


if __name__ == "__main__":
    sys.exit(main())

"""Copy the whole store of a system into a folder, while it runs.

On SQLite, run it on the node that holds the store. `visutility restore` creates a store from the copy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drivers.commands import DEFAULT_NAMESPACE, FINE, cluster, command, peers, run, stored
from drivers.output import Output

if TYPE_CHECKING:
    from actors.storage.schema import PartKind


@command(
    "backup",
    help=__doc__,
    examples=["visutility backup backups/2026-11-27", "visutility backup backups/cold --storage sqlite:///./visutility-data"],
)
@click.argument("to", type=click.Path(path_type=Path))
@stored
@cluster
def backup(*, to: Path, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Copy the store into the folder TO, which must not be there yet."""
    url = _storage(address, namespace) if storage is None else storage
    from actors.storage import backup as copying  # imports the store, 0.4 s; help does without

    manifest = copying.take(url, to, kinds(), now_s=time.time())
    size = sum(int(file["bytes"]) for file in manifest["files"].values())
    output.line(f"{to}: store {manifest['store_id']}, {len(manifest['files'])} files, {size / 2**20:.1f} MiB")
    output.result({"to": str(to), **manifest})
    return FINE


def kinds() -> list[PartKind]:
    """Return the kinds of all parts that a store has."""
    from actors.detection.tables import DETECTOR  # each imports its package's tables, 0.1 s
    from actors.retraining.tables import DISPATCHER
    from actors.storage.notify import NOTIFY
    from actors.storage.schema import SYSTEM
    from actors.storage.sources import SOURCES
    from actors.tuning.tables import TUNER

    return [SYSTEM, DETECTOR, DISPATCHER, TUNER, SOURCES, NOTIFY]


def _storage(address: str | None, namespace: str | None) -> str:
    peers(address, namespace)  # connects
    from actors.cluster import card, connection, deployment  # imports Ray, 0.4 s

    chosen = namespace or DEFAULT_NAMESPACE
    known = card.read(chosen)
    if known is None:
        raise deployment.no_system(chosen)
    if known.node is not None and not connection.is_this_node(known.node):
        raise ValueError(f"a SQLite store is copied on the node that holds it, {known.node[:8]}: run `visutility backup` there")
    return known.storage


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility backup TO`."""
    return run(backup, argv)


if __name__ == "__main__":
    sys.exit(main())

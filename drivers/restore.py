"""Create a store from a backup.

The URL must not hold a store yet. The new store gets a new id, so no new order or study has the id of one that was made after
the backup and is lost. `visutility start` with the new store continues from the backup.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from drivers.backup import kinds
from drivers.commands import FINE, command, run
from drivers.output import Output


@command(
    "restore", help=__doc__, examples=["visutility restore backups/2026-11-27 --storage sqlite:////var/lib/visutility-restored"]
)
@click.argument("source", metavar="FROM", type=click.Path(path_type=Path))
@click.option("--storage", metavar="URL", required=True, help="URL of the new store.")
def restore(*, source: Path, storage: str, output: Output) -> int:
    """Make the store at --storage from the backup in the folder FROM."""
    from actors.storage import backup as copying  # imports the store, 0.4 s; help does without

    made = copying.restore(source, storage, kinds())
    taken = datetime.fromtimestamp(made["taken_at"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    output.line(f"{made['storage']}: store {made['store_id']}, as store {made['restored_from']} was at {taken}")
    output.result(dict(made))
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility restore FROM --storage URL`."""
    return run(restore, argv)


if __name__ == "__main__":
    sys.exit(main())

"""The fence: of all processes that believe they are one actor, only the newest commits.

A stateful actor raises its epoch when it starts, and every later commit of it reads the epoch again in the same transaction
AND HOLDS the row until the commit. A predecessor that wakes up, a zombie on a lost node or a thawed process, then
either sees the new epoch (and ends itself) or has made its successor wait until its commit was through; nothing can pass
between its check and its commit. With a plain read instead, stale commits passed (measured; docs/results/chaos.md has the
control `no-fence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select

from actors import failpoints
from actors.storage.schema import insert_or_keep
from actors.storage.store import Part


class StaleEpochError(RuntimeError):
    """A successor has raised the epoch: this process must stop writing and end."""


class Fence:
    """The right of one process to write as `owner`, until a successor raises the epoch."""

    def __init__(self, part: Part, owner: str, epoch: int) -> None:
        self.part = part
        self.owner = owner
        self.epoch = epoch
        fences = part.kind.fences
        # SQLite holds the whole file by BEGIN IMMEDIATE; PostgreSQL holds this row by FOR SHARE.
        self._hold = select(fences.c.epoch).where(fences.c.owner == owner).with_for_update(read=True)

    @classmethod
    def raise_epoch(cls, part: Part, owner: str) -> Fence:
        """Become the newest `owner`; wait while a predecessor is inside a commit."""
        fences = part.kind.fences
        with part.write() as connection:
            connection.execute(insert_or_keep(connection, fences).values(owner=owner, epoch=0))
            epoch = connection.execute(
                fences.update().where(fences.c.owner == owner).values(epoch=fences.c.epoch + 1).returning(fences.c.epoch)
            ).scalar_one()
        return cls(part, owner, epoch)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end, and only if no successor exists; StaleEpochError otherwise."""
        with self.part.write() as connection:
            found = connection.execute(self._hold).scalar()
            if found != self.epoch:
                raise StaleEpochError(f"{self.owner}: epoch {self.epoch} has been succeeded by {found}")
            failpoints.reach("fence.held")
            yield connection

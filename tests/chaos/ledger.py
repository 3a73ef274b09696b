"""The records that the processes of a run write as they go; a written record survives the kill of its writer.

One `write` system call a record: the kernel has it then. A record is never half read: readers take whole ones only.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

_FORMAT: Final = struct.Struct("<HQIIIIdd")


class Ack(NamedTuple):
    """One acknowledged batch. Times are of the monotonic clock, which all processes of a machine share."""

    model: int
    sequence: int
    rows: int
    accepted: int
    duplicates: int
    epoch: int
    sent_s: float  # when the call began that brought the acknowledgement
    acked_s: float


class Acks:
    """The acknowledgements of one producer, in the order in which it got them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, acks: list[Ack]) -> None:
        """Record them, all at once."""
        os.write(self._file, b"".join(_FORMAT.pack(*ack) for ack in acks))


class AckReader:
    """Reads an `Acks` that may still grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def more(self) -> Iterator[Ack]:
        """Return what has come since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = len(data) - len(data) % _FORMAT.size
        self._offset += whole
        for fields in _FORMAT.iter_unpack(data[:whole]):
            yield Ack(*fields)


def note(path: Path, **record: Any) -> None:
    """Append one JSON line."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, json.dumps(record).encode() + b"\n")
    finally:
        os.close(file)


def notes(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none where it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

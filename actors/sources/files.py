"""Files: JSONL and CSV by byte offset, Parquet by row, from a folder or a pattern, on this machine or wherever fsspec reaches.

The place is, by file, how far it was read, and a fingerprint of its beginning: a file that was replaced is read from its
beginning, one that was renamed goes on where it was. A line counts once its end has been written.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from actors.checks import brief, redacted, shown
from actors.config.sources import FilesSettings
from actors.plain import Values
from actors.sources.interface import Answer, Place, Refusals, Row, SourceError
from actors.sources.rules import event_of

BYTES: Final = 1024 * 1024  # of one file in one answer, and of a line
ROWS: Final = 20_000  # after which an answer takes no further file
MAX_FILES: Final = 10_000  # remembered, those that are gone too: one may come back
_HEAD: Final = 256
_FORMATS: Final = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class _Disk(Protocol):
    def sizes(self) -> dict[str, int]:
        """Return the files by their paths, with their sizes."""

    def open(self, path: str) -> Any:
        """Open a file for reading bytes."""


class Files:
    """Reads on in each file, in the order of their paths."""

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._disk: _Disk = _Remote(settings.path) if "://" in settings.path else _Local(settings.path)

    def read(self, place: Place, now_s: float) -> Answer:
        """Return the appended and the new files."""
        known: dict[str, Values] = dict(place or {})
        sizes = {path: size for path, size in self._disk.sizes().items() if self._format(path)}
        rows: list[Row] = []
        refusals = Refusals()
        has_more = False
        begun = self._begun(sizes, known, refusals)
        for path, at in begun.items():
            if len(rows) >= ROWS:
                has_more = True
                break
            try:
                if at["size"] == sizes[path]:
                    known[path] = at
                    continue
                if at["size"] > sizes[path]:
                    raise ValueError(f"has become shorter, from {at['size']} to {sizes[path]} bytes: it is not read further")
                found = list(self._new_rows(path, at, sizes[path]))
                has_more = has_more or at.pop("moved", False)
                known[path] = at
            except (OSError, ValueError) as error:  # one file that cannot be read leaves the others alone
                refusals.problem = refusals.problem or f"{Path(path).name}: {brief(error)}"
                continue
            for each in found:
                event = each if isinstance(each, str) else self._event(each, now_s)
                if isinstance(event, Row):
                    rows.append(event)
                else:
                    refusals.add(f"{Path(path).name}: {event}")
        if len(known) > MAX_FILES:
            gone = [path for path in known if path not in sizes]
            for path in gone[: len(known) - MAX_FILES]:
                del known[path]
        return Answer(rows, known, refused=refusals.count, problem=refusals.problem, has_more=has_more)

    def _format(self, path: str) -> str | None:
        return self._settings.format or _FORMATS.get(Path(path).suffix.lower())

    def _event(self, row: Values, now_s: float) -> Row | str:
        return event_of(row, self._settings.columns, self._settings.metrics, model=self._settings.model, now_s=now_s)

    def _begun(self, sizes: dict[str, int], known: dict[str, Values], refusals: Refusals) -> dict[str, Values]:
        """Return how far each file was read: under its path, or under a path that began alike before.

        What was read under a path that another file has now leaves `known`.
        """
        heads: dict[str, bytes] = {}
        for path in sorted(sizes):
            try:
                with self._disk.open(path) as file:
                    heads[path] = file.read(_HEAD)
            except OSError as error:
                refusals.problem = refusals.problem or f"{Path(path).name}: {brief(error)}"
        stayed = {path for path, head in heads.items() if path in known and _began(head, known[path])}
        moved = {path: at for path, at in known.items() if path not in stayed and (path in heads or path not in sizes)}
        for path in moved:
            if path in heads:
                del known[path]
        begun = {}
        for path, head in heads.items():
            if path in stayed:
                begun[path] = dict(known[path])
                continue
            before = [other for other, at in moved.items() if 0 < at["size"] <= sizes[path] and _began(head, at)]
            begun[path] = {"size": 0, "head": "", "length": 0} if not before else dict(moved.pop(before[0]))
            if before:
                known.pop(before[0], None)
        return begun

    def _new_rows(self, path: str, at: Values, size: int) -> Iterator[Values | str]:
        with self._disk.open(path) as file:
            if self._format(path) == "parquet":
                yield from _parquet(file)
                at["size"] = size
            else:
                yield from self._lines(path, file, at, size)
            file.seek(0)
            head = file.read(min(_HEAD, at["size"]))
        at |= {"head": hashlib.sha256(head).hexdigest(), "length": len(head)}

    def _lines(self, path: str, file: Any, at: Values, size: int) -> Iterator[Values | str]:
        is_csv = self._format(path) == "csv"
        header: list[str] = []
        began = at["size"]
        if is_csv:
            first = file.readline(BYTES)
            if not first.endswith(b"\n"):
                return
            header = next(csv.reader([first.decode("utf-8-sig")]), [])
            at["size"] = max(at["size"], len(first))
        file.seek(at["size"])
        block = file.read(min(BYTES, size - at["size"]))
        end = block.rfind(b"\n") + 1
        if not end and len(block) == BYTES:
            raise ValueError(f"has a line of more than {BYTES} bytes")
        at["size"] += end
        at["moved"] = began < at["size"] < size
        for line in io.BytesIO(block[:end]):
            if line.strip():
                yield _csv(line, header) if is_csv else _json(line)


def _began(head: bytes, at: Values) -> bool:
    length = int(at["length"])
    return length == 0 or (len(head) >= length and hashlib.sha256(head[:length]).hexdigest() == str(at["head"]))


def _json(line: bytes) -> Values | str:
    try:
        found = json.loads(line)
    except ValueError:
        return f"a line must be JSON, got {shown(line.decode(errors='replace'))}"
    return found if isinstance(found, dict) else f"a line must be a JSON object, got {shown(found)}"


def _csv(line: bytes, header: list[str]) -> Values | str:
    values = next(csv.reader([line.decode(errors="replace")]), [])
    if len(values) != len(header):
        return f"a line must have the {len(header)} columns of the header, got {len(values)}"
    return dict(zip(header, values, strict=True))


def _parquet(file: Any) -> Iterator[Values | str]:
    try:
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise SourceError("files of Parquet need: pip install 'visutility[parquet]'") from error
    try:
        yield from parquet.read_table(file).to_pylist()
    except ArrowInvalid as error:  # it may be that it is still being written
        raise ValueError(f"is not a Parquet file (yet): {brief(error)}") from None


class _Local:
    def __init__(self, path: str) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        pattern = self._path
        fixed = Path(pattern)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        if not fixed.exists():
            raise SourceError(f"there is no {fixed}")
        if fixed.is_dir() and str(fixed) == str(Path(pattern)):
            pattern = str(fixed / "*")
        paths = glob.glob(pattern, recursive=True)  # noqa: PTH207  a Path has no absolute patterns
        return {path: Path(path).stat().st_size for path in paths if Path(path).is_file()}

    def open(self, path: str) -> Any:
        return Path(path).open("rb")


class _Remote:
    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415  an extra
        except ModuleNotFoundError as error:
            raise SourceError("files by URL need: pip install fsspec, and what it needs for this protocol") from error
        self._system, self._pattern = url_to_fs(url)

    def sizes(self) -> dict[str, int]:
        pattern = self._pattern
        if not any(each in pattern for each in "*?[") and not self._system.exists(pattern):
            raise SourceError(f"there is no {redacted(self._system.unstrip_protocol(pattern))}")
        if not any(each in pattern for each in "*?[") and self._system.isdir(pattern):
            pattern = f"{pattern.rstrip('/')}/*"
        found = self._system.glob(pattern, detail=True)
        return {path: int(info["size"] or 0) for path, info in found.items() if info["type"] == "file"}

    def open(self, path: str) -> Any:
        return self._system.open(path, "rb")

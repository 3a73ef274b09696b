"""Reads events from a CSV or JSONL file: one line each, as the broadcaster takes them.

Columns or keys: `model_name` (or `model`), `model_version` (or `version`), `timestamp` (seconds since the epoch, or ISO 8601),
`accuracy`, `precision`, `recall`, `extras` (JSONL), and the column that is named for n; in JSONL of the wire's own form, which
says `model_name`, that is `n`. Every other column is an extra; an empty cell is absent. Names and versions are texts as they
are written: version 1.10 is not 1.1.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from actors import wire
from actors.metrics import raw_events

_NAMES: Final = {"model": "model_name", "version": "model_version"}
_FIELDS: Final = frozenset({"model_name", "model_version", "timestamp", "accuracy", "precision", "recall", "extras"})
_TEXTS: Final = frozenset({"model_name", "model_version"})
_MOST_SHOWN: Final = 80  # characters of a line that cannot be read
_CHUNK: Final = 1000  # events that are checked together


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a file: the good ones as raw events and as rows by model, the bad ones with line, field, value, rule."""

    events: list[dict[str, Any]]
    rows: Mapping[str, list[wire.Row]]
    rejected: list[dict[str, Any]]


def chunks(
    path: Path, *, model: str | None, version: str | None, since_s: float | None, now_s: float, n_column: str | None = None
) -> Iterator[Chunk]:
    """Read a file in order, checked as the wire checks it; `model` and `version` stand in where a line names none.

    `n_column` is the column or key that says how many predictions are behind an event.

    Events before `since_s` are left out. A line that cannot be read is rejected alone. ValueError for a file of another kind,
    or one that cannot be read on.
    """
    held: list[tuple[int, dict[str, Any]]] = []
    unread: list[dict[str, Any]] = []
    for line, event in _lines(path, n_column):
        if isinstance(event, _Unread):
            unread.append({"line": line, "field": event.field, "value": event.value, "rule": event.rule})
        else:
            if model is not None:
                event.setdefault("model_name", model)
            if version is not None:
                event.setdefault("model_version", version)
            at = event.get("timestamp")
            if since_s is not None and isinstance(at, int | float) and at < since_s:
                continue
            held.append((line, event))
        if len(held) + len(unread) == _CHUNK:
            yield _checked(held, unread, now_s)
            held, unread = [], []
    if held or unread:
        yield _checked(held, unread, now_s)


def moment(text: str) -> float:
    """Return seconds since the epoch of a number or of ISO 8601; without a zone it is UTC. ValueError names the text."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be seconds since the epoch or like 2026-11-23T14:00, got {text!r}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class _Unread:
    """A line that is no event."""

    field: str
    value: str
    rule: str


class _Written(float):
    """A number of a JSON file that knows how it was written: as a version, 1.10 is not 1.1."""

    text: str

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text
        return made


def _lines(path: Path, n_column: str | None) -> Iterator[tuple[int, dict[str, Any] | _Unread]]:
    match path.suffix.lower():
        case ".csv":
            yield from _csv(path, n_column)
        case ".jsonl" | ".ndjson" | ".json":
            yield from _jsonl(path, n_column)
        case other:
            raise ValueError(f"file must end in .csv, .jsonl or .ndjson, got {other!r} ({path})")


def _csv(path: Path, n_column: str | None) -> Iterator[tuple[int, dict[str, Any] | _Unread]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    rule = f"must have as many cells as the header has names ({len(header)}, this line has {len(cells)})"
                    yield reader.line_num, _Unread("line", ",".join(cells)[:_MOST_SHOWN], rule)
                    continue
                named = ((_NAMES.get(name, name), text) for name, text in zip(header, cells, strict=True) if text != "")
                yield reader.line_num, _event({name: text if name in _TEXTS else _cell(text) for name, text in named}, n_column)
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _jsonl(path: Path, n_column: str | None) -> Iterator[tuple[int, dict[str, Any] | _Unread]]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_float=_Written)
            except (json.JSONDecodeError, RecursionError) as error:
                yield number, _Unread("line", line.strip()[:_MOST_SHOWN], f"must be JSON ({error})")
                continue
            if isinstance(row, dict):
                # In the wire's own form `n` is the field; a flat line may have a metric of that name.
                in_form = n_column is None and "model_name" in row
                yield number, _event(row, "n" if in_form else n_column)
            else:
                yield number, _Unread("line", line.strip()[:_MOST_SHOWN], "must be a JSON object")


def _event(row: Mapping[str, Any], n_column: str | None) -> dict[str, Any]:
    event: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    for given, value in row.items():
        name = _NAMES.get(given, given)
        if given == n_column:
            event["n"] = value
        elif name in _FIELDS:
            event[name] = value
        else:
            extras[name] = value
    for name in _TEXTS & event.keys():
        event[name] = _text(event[name])
    if isinstance(event.get("timestamp"), str):
        with suppress(ValueError):  # the check names the line
            event["timestamp"] = moment(event["timestamp"])
    if extras:
        given = event.get("extras", {})
        event["extras"] = {**given, **extras} if isinstance(given, dict) else given
    return event


def _text(value: Any) -> Any:
    """Return a name as it was written; what is neither a text nor a number is left to the check."""
    if isinstance(value, _Written):
        return value.text
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _checked(held: list[tuple[int, dict[str, Any]]], unread: list[dict[str, Any]], now_s: float) -> Chunk:
    found = raw_events.sort_events([event for _, event in held], now_s)
    rejected = unread + [
        {"line": held[bad["index"]][0], **{key: bad[key] for key in ("field", "value", "rule")}} for bad in found.rejected
    ]
    wrong = {bad["index"] for bad in found.rejected}
    good = [event for number, (_, event) in enumerate(held) if number not in wrong]
    # A rejected event has an empty row there, by which a model's process counts it: a rehearsal counts what is accepted.
    rows = {
        model: kept
        for model, each in found.rows.items()
        if (kept := [row for row, number in zip(each, found.indices[model], strict=True) if number not in wrong])
    }
    return Chunk(good, rows, rejected)

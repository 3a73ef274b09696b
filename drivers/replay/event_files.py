"""Reads events from a CSV or JSONL file: one line each, as the broadcaster takes them.

Columns or keys: `model_name` (or `model`), `model_version` (or `version`), `timestamp` (seconds since the epoch, or ISO 8601),
`accuracy`, `precision`, `recall`, and `extras` (JSONL). Every other column is an extra; an empty cell is absent.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from actors import wire

_NAMES: Final = {"model": "model_name", "version": "model_version"}
_FIELDS: Final = frozenset({"model_name", "model_version", "timestamp", "accuracy", "precision", "recall", "extras"})
_CHUNK: Final = 1000  # events that are checked together


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a file: the good ones as raw events and as rows by model, the bad ones with line, field, value, rule."""

    events: list[dict[str, Any]]
    rows: Mapping[str, list[wire.Row]]
    rejected: list[dict[str, Any]]


def chunks(path: Path, *, model: str | None, version: str | None, since_s: float | None, now_s: float) -> Iterator[Chunk]:
    """Read a file in order, checked as the wire checks it; `model` and `version` stand in where a line names none.

    Events before `since_s` are left out. ValueError for a file that is neither, or that cannot be read as what it is.
    """
    held: list[tuple[int, dict[str, Any]]] = []
    for line, event in _lines(path):
        if model is not None:
            event.setdefault("model_name", model)
        if version is not None:
            event.setdefault("model_version", version)
        at = event.get("timestamp")
        if since_s is not None and isinstance(at, int | float) and at < since_s:
            continue
        held.append((line, event))
        if len(held) == _CHUNK:
            yield _checked(held, now_s)
            held = []
    if held:
        yield _checked(held, now_s)


def moment(text: str) -> float:
    """Give seconds since the epoch of a number or of ISO 8601; without a zone it is UTC. ValueError names the text."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be seconds since the epoch or like 2026-11-23T14:00, got {text!r}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    match path.suffix.lower():
        case ".csv":
            yield from _csv(path)
        case ".jsonl" | ".ndjson" | ".json":
            yield from _jsonl(path)
        case other:
            raise ValueError(f"file must end in .csv, .jsonl or .ndjson, got {other!r} ({path})")


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}:{reader.line_num}: must have as many cells as the header has names")
                yield reader.line_num, _event({name: _cell(text) for name, text in row.items() if text != ""})
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: must be an object, got {line.strip()[:80]!r}")  # noqa: TRY004  of the file
            yield number, _event(row)


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    for given, value in row.items():
        name = _NAMES.get(given, given)
        if name in _FIELDS:
            event[name] = value
        else:
            extras[name] = value
    for name in ("model_name", "model_version"):
        if isinstance(event.get(name), float):  # a cell like 7 is a name here
            event[name] = f"{event[name]:g}"
    if isinstance(event.get("timestamp"), str):
        with suppress(ValueError):  # the check names the line
            event["timestamp"] = moment(event["timestamp"])
    if extras:
        event["extras"] = {**event.get("extras", {}), **extras}
    return event


def _checked(held: list[tuple[int, dict[str, Any]]], now_s: float) -> Chunk:
    found = wire.sort_events([event for _, event in held], now_s)
    rejected = [
        {"line": held[bad["index"]][0], **{key: bad[key] for key in ("field", "value", "rule")}} for bad in found.rejected
    ]
    wrong = {bad["index"] for bad in found.rejected}
    good = [event for number, (_, event) in enumerate(held) if number not in wrong]
    return Chunk(good, found.rows, rejected)

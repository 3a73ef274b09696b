"""The options of a `replay` command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drivers.output import Output

_SHOWN: Final = 5  # rejected lines that are printed


@dataclass(frozen=True, slots=True)
class Asked:
    """The options; `since_s` in seconds since the epoch, `model` only this one and the one of lines that name none."""

    file: Path | None
    what_if: Path | None
    config: Path | None
    model: str | None
    version: str | None
    n_column: str | None
    since_s: float | None
    takes: str
    storage: str | None
    plot: Path | None
    address: str | None
    namespace: str | None


def tell_rejected(rejected: Sequence[Mapping[str, Any]], output: Output) -> None:
    """Print the first rejected lines of a file, each with field, rule and value."""
    for bad in rejected[:_SHOWN]:
        output.note(in_words(bad))
    if len(rejected) > _SHOWN:
        output.note(f"... and {len(rejected) - _SHOWN} more lines")


def in_words(bad: Mapping[str, Any]) -> str:
    """Return a rejected line with its field, rule and value.

    >>> in_words({"line": 3, "field": "accuracy", "rule": "must lie in [0, 1]", "value": 7})
    'line 3: accuracy must lie in [0, 1], got 7'
    """
    return f"line {bad['line']}: {bad['field']} {bad['rule']}, got {bad['value']!r}"

"""The command `visutility`: each subcommand is a script of this folder, `visutility NAME` is `python -m drivers.NAME`."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

COMMANDS: Final = (
    "demo", "up", "down", "start", "stop", "reload", "status", "watch", "replay", "tune", "retrains", "silence", "explain",
    "config", "reference",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the subcommand; without one, list them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(importlib.import_module("actors.cluster.build").BUILD)
        return 0
    name, *rest = arguments
    if name not in COMMANDS or find_spec(f"drivers.{name}") is None:
        print(f"error: command must be one of {', '.join(_present())}, got {name!r}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"drivers.{name}").main(rest))


def _present() -> list[str]:
    return [name for name in COMMANDS if find_spec(f"drivers.{name}") is not None]


def _help() -> str:
    lines = ["visutility demo", "", "Watches models, finds drift, retrains, tunes: on your Ray cluster.", ""]
    lines += [f"  {name:<10} {_first_line(name)}" for name in _present()]
    return "\n".join(
        [*lines, "", "`visutility NAME --help` tells more; `-o json` is for programs; exit 0 fine, 1 failed, 2 usage."]
    )


def _first_line(name: str) -> str:
    """Give what a driver says of itself, without importing it: some import Ray, some scikit-learn."""
    spec = find_spec(f"drivers.{name}")
    if spec is None or spec.origin is None:
        return ""
    source = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return source.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())

"""Measure the system alongside what a user would otherwise do: `python -m tests.bench NAME`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

# Each is a module of this folder with a `main` and options of its own.
BENCHES: Final = ("ingest", "detection", "tuning", "scaling", "standing", "value", "ui", "notify", "serve")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; without a name, list them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(
            "python -m tests.bench ingest\n\n"
            + (__doc__ or "")
            + "\n\n`python -m tests.bench NAME --help` lists the options of each."
        )
        return 0 if arguments else 2
    if arguments[0] not in BENCHES:
        print(f"error: benchmark must be one of {', '.join(BENCHES)}, got {arguments[0]!r}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"tests.bench.{arguments[0]}").main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())

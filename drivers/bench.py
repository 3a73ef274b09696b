"""Measure the system, beside what a user would otherwise do: `bench ingest`, `detection`, `tuning`, `scaling`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

# Each is a script of its own, drivers/bench_NAME.py, with options of its own.
BENCHES: Final = ("ingest", "detection", "tuning", "scaling")


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the benchmark; without one, name them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    present = [name for name in BENCHES if find_spec(f"drivers.bench_{name}") is not None]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print("visutility bench ingest\n\n" + (__doc__ or "") + "\n\n`visutility bench NAME --help` tells what each can do.")
        return 0 if arguments else 2
    if arguments[0] not in present:
        print(f"error: benchmark must be one of {', '.join(present)}, got {arguments[0]!r}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"drivers.bench_{arguments[0]}").main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())

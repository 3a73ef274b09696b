"""Fuzz the borders of the system by coverage: `python -m tests.fuzz --seconds 600` (or `make fuzz`).

Each target gets an equal share of the time, in a process of its own, with a corpus that is kept in `.fuzz`. Exit 1 where an
input breaks a target; it lies in `.fuzz/NAME/crash-...`, and `python -m tests.fuzz NAME FILE` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(".fuzz")
_MAX_BYTES: Final = 4096
_LIMIT_S: Final = 20  # one input that takes longer is a fault too
_LIMIT_MB: Final = 1500


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fuzzers; 1 where one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="only this one")
    parser.add_argument("file", nargs="?", type=Path, help="run the target on this input alone")
    parser.add_argument("--seconds", type=float, default=600.0, help="for all targets together (default 600)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.inside:  # before anything of ours is imported: what is imported before is not watched
        return _fuzz(arguments.target, arguments.seconds)
    from tests.fuzz.targets import TARGETS

    if arguments.target is not None and arguments.target not in TARGETS:
        parser.error(f"target must be one of {', '.join(TARGETS)}, got {arguments.target!r}")
    if arguments.file is not None:
        TARGETS[arguments.target](arguments.file.read_bytes())
        print(f"{arguments.file} breaks nothing")
        return 0
    if find_spec("atheris") is None:
        print("fuzzing by coverage needs atheris: pip install 'visutility[fuzz]'", file=sys.stderr)
        return 2
    chosen = [arguments.target] if arguments.target else list(TARGETS)
    broken = [name for name in chosen if _in_a_process(name, arguments.seconds / len(chosen))]
    print(f"broken: {', '.join(broken)}" if broken else "nothing is broken")
    return 1 if broken else 0


def _in_a_process(name: str, seconds: float) -> int:
    command = [sys.executable, "-m", "tests.fuzz", name, "--inside", "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("#") and "exec/s" in line]
    print(f"{name}: {'broken' if done.returncode else 'holds'}, {told[-1] if told else 'nothing was run'}", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return done.returncode


def _fuzz(name: str, seconds: float) -> int:
    import importlib

    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=["actors.wire", "actors.config", "actors.metrics", "actors.tuning", "drivers.replay"]
    ):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = [
        f"-max_total_time={max(int(seconds), 1)}",
        f"-max_len={_MAX_BYTES}",
        f"-timeout={_LIMIT_S}",
        f"-rss_limit_mb={_LIMIT_MB}",
        f"-artifact_prefix={corpus}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the negative controls: the system with one protection taken away, and the few faults that it would have stood.

A control that is not caught means that the checker could not have found what it vouches for. `none` is the control of the
controls: all those faults, with every protection in its place, must leave no trace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from drivers.arguments import FAILED, FINE
from drivers.output import Output

COLUMNS = ("control", "caught", "by")


def run_controls(names: Sequence[str], storage: str, seed: int, output: Output) -> int:
    """Run each in a process of its own, print what caught it; FAILED where one was not caught, or `none` was."""
    if len(names) == 1 and output.is_json:
        return _run_one(names[0], storage, seed, output)
    rows, told = [], []
    for name in names:
        report = _asked(name, storage, seed)
        told.append(report)
        rows.append((name, report["caught"], "; ".join(report["by"]) or "nothing"))
    output.table("", COLUMNS, rows)
    output.result(told)
    return FINE if all(report["as_expected"] for report in told) else FAILED


def _asked(name: str, storage: str, seed: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "drivers.chaos",
        "--control",
        name,
        "--storage",
        storage,
        "--seed",
        str(seed),
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own module
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"control {name} broke off with exit {done.returncode}:\n{done.stderr[-2000:]}") from None
    if "error" in told:
        raise RuntimeError(f"control {name}: {told['error']}")
    return told


def _run_one(name: str, storage: str, seed: int, output: Output) -> int:
    from drivers.chaos import drills  # noqa: PLC0415 --help needs no Ray
    from drivers.chaos.campaign import campaign  # noqa: PLC0415

    control = None if name == "none" else name
    report = campaign(
        storage,
        seed=seed,
        seconds=drills.SECONDS,
        events=int(1500 * drills.SECONDS),
        control=control,
        plan=drills.DRILLS[name] if control else drills.all_of_them,
        phase_s=drills.PHASE_S,
        cooldown_s=drills.COOLDOWN_S,
        cuts_every=2 if name in {"no-put-if-absent", "none"} else 0,
    )
    # In a control's own figures: problems beside them (an order that did not settle, say) are not what it is to be caught by.
    by = [f"{figure}: {found}" for figure, found, _, holds in report.rows()[:3] if not holds]
    as_expected = bool(by) if control else not report.breached
    output.result({**report.plain(), "control": name, "caught": bool(by), "by": by, "as_expected": as_expected})
    return FINE if as_expected else FAILED

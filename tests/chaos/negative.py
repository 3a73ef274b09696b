"""Runs the negative controls: the system with a protection removed, and the few faults that it would have survived.

A control that is not caught means that the checker could not have found what it vouches for. Each has a figure of its own, so
one run can remove several. `none` is the control of the controls: all those faults, with every protection in its
place, must leave no trace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from drivers.output import Output
from tests.bench.arguments import FAILED, FINE
from tests.chaos.report import Report

COLUMNS: Final = ("control", "what is missing", "caught", "by")

# What each removes, the figure that must show it, and that figure's name.
CAUGHT_BY: Final[dict[str, tuple[str, str, Callable[[Report], int]]]] = {
    "no-trim": ("an overlap is trimmed", "events counted twice", lambda report: report.findings.twice),
    "early-reply": ("the reply comes after the commit", "acknowledged events lost", lambda report: report.findings.lost),
    "no-fence": ("the epoch is held in every commit", "stale commits accepted", lambda report: report.zombies_accepted),
    "no-put-if-absent": (
        "a resend bears the order's id",
        "orders launched twice",
        lambda report: report.findings.launched_twice,
    ),
    "no-rearm": (
        "the cooldown is armed again after the effect",
        "launches within a cooldown",
        lambda report: report.findings.within_cooldown,
    ),
}
NONE: Final = "none"
# Those that do not interfere: after an early reply nothing is sent again.
TOGETHER: Final = (("no-trim", "no-fence", "no-put-if-absent", "no-rearm"), ("early-reply",))


def groups(asked: str) -> list[tuple[str, ...]]:
    """Read `--control`: `all`, `none`, or names with commas between them, which go together in one run. ValueError."""
    if asked == "all":
        return list(TOGETHER)
    names = tuple(asked.split(","))
    if names != (NONE,) and (unknown := set(names) - CAUGHT_BY.keys()):
        raise ValueError(f"--control must be all, none, or of {', '.join(CAUGHT_BY)}, got {', '.join(sorted(unknown))}")
    return [names]


def run_controls(asked: Sequence[tuple[str, ...]], storage: str, seed: int, output: Output) -> int:
    """Run each group, in a process of its own where there are several; print what caught each. FAILED where one was not."""
    told = [_run_one(names, storage, seed) if len(asked) == 1 else _in_a_process(names, storage, seed) for names in asked]
    rows = [tuple(row) for each in told for row in each["rows"]]
    output.table("", COLUMNS, rows)
    output.result({"rows": rows, "as_expected": all(each["as_expected"] for each in told)})
    return FINE if all(each["as_expected"] for each in told) else FAILED


def _in_a_process(names: tuple[str, ...], storage: str, seed: int) -> dict[str, Any]:
    asked = ["--control", ",".join(names), "--storage", storage, "--seed", str(seed), "-o", "json"]
    command = [sys.executable, "-m", "tests.chaos", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"{','.join(names)} broke off with exit {done.returncode}:\n{done.stderr[-2000:]}") from None
    if "error" in told:
        raise RuntimeError(f"{','.join(names)}: {told['error']}")
    return told


def _run_one(names: tuple[str, ...], storage: str, seed: int) -> dict[str, Any]:
    from tests.chaos import drills
    from tests.chaos.campaign import campaign

    taken = () if names == (NONE,) else names
    drilled = taken or tuple(CAUGHT_BY)
    report = campaign(
        storage,
        seed=seed,
        seconds=drills.SECONDS,
        events=drills.EVENTS,
        controls=taken,
        plan=drills.plan(drilled),
        phase_s=drills.PHASE_S,
        cooldown_s=drills.COOLDOWN_S,
        cuts_every=2 if "no-put-if-absent" in drilled else 0,
        late_s=drills.LATE_S if "no-rearm" in drilled else 0.0,
        crew=drills.crew(drilled),
    )
    if not taken:
        found = "; ".join([*report.problems, *report.findings.examples]) or "nothing, as it must be"
        return {"rows": [(NONE, "nothing", report.breached, found)], "as_expected": not report.breached}
    counts = {name: CAUGHT_BY[name][2](report) for name in taken}
    rows = [(name, CAUGHT_BY[name][0], count > 0, f"{CAUGHT_BY[name][1]}: {count}") for name, count in counts.items()]
    return {"rows": rows, "as_expected": all(counts.values())}

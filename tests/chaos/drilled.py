"""Runs a drill by its name and prints its table; with controls, its figure must fail."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Final

from drivers.output import Output
from tests.bench.arguments import FAILED, FINE
from tests.chaos import controls
from tests.chaos.report import COLUMNS
from tests.chaos.stage import Figure

_Told = tuple[str, str, str, bool]  # control, figure, found, caught

CONTROL_COLUMNS: Final = ("control", "figure without it", "found", "caught")


def run_soak(minutes: float, control: str | None, output: Output) -> int:
    """Run the soak; FAILED where something grew, or with the control where its leak was not noticed."""
    from tests.chaos import soak

    if not minutes > 0 or control not in {None, soak.CONTROL}:
        raise ValueError(f"--soak must be above 0, and --control {soak.CONTROL} or left out, got {minutes:g} and {control}")
    figures = soak.soak(minutes, () if control is None else (control,))
    if control is not None:
        figures = [figure for figure in figures if figure.control == control]
    rows = [figure.row() for figure in figures]
    output.table("", COLUMNS, rows)
    holds = all(figure.holds for figure in figures)
    expected = holds if control is None else not holds
    output.result({"soak": minutes, "as_expected": expected, "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    return FINE if expected else FAILED


def run_drill(name: str, control: str | None, output: Output) -> int:
    """Run the drill `overload` or `damage`; FAILED where a figure does not hold, or a control was not caught."""
    module = importlib.import_module(f"tests.chaos.{name}")
    known: list[str] = sorted(set(module.PARTS.values()) - {""})
    if control is None:
        figures: list[Figure] = module.drill()
        rows = [figure.row() for figure in figures]
        output.table("", COLUMNS, rows)
        holds = all(figure.holds for figure in figures)
        output.result({"drill": name, "holds": holds, "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
        return FINE if holds else FAILED
    chosen = known if control == "all" else control.split(",")
    if unknown := set(chosen) - set(known):
        raise ValueError(f"--control must be all, or of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    # A removed protection stays removed in a process: each control runs in one of its own.
    told = [_without(module, chosen[0])] if len(chosen) == 1 else [_in_a_process(name, each) for each in chosen]
    output.table("", CONTROL_COLUMNS, told)
    caught = all(row[-1] for row in told)
    output.result({"drill": name, "as_expected": caught, "rows": told})
    return FINE if caught else FAILED


def _without(module: ModuleType, control: str) -> _Told:
    os.environ[controls.VARIABLE] = control
    controls.apply()  # here too: `start` and `status` run in this process
    without = [figure for figure in module.drill([control]) if figure.control == control]
    failed = [figure for figure in without if not figure.holds]
    shown = (failed or without)[0]
    return control, shown.name, shown.found, bool(failed)


def _in_a_process(name: str, control: str) -> _Told:
    command = [sys.executable, "-m", "tests.chaos", "--drill", name, "--control", control, "-o", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    ((_, figure, found, caught),) = json.loads(done.stdout)["rows"]
    return control, figure, found, caught

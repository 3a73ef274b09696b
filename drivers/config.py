"""Check a configuration file.

Finds the problems that a launch would find: in keys, values, search spaces, strategies, URLs and, with --import, modules. Needs
no Ray.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drivers.commands import FINE, group, run
from drivers.output import Output

if TYPE_CHECKING:
    from actors.config import ModelSettings, RetrainRule

config = group("config", __doc__, examples=["visutility config check visutility.yaml --model object-detector"])


@config.command(
    "check",
    examples=[
        "visutility config check visutility.yaml --model object-detector",
        "visutility config check visutility.yaml --import",
    ],
)
@click.argument("file")
@click.option("--model", multiple=True, help="Show the settings of this model; may be given several times.")
@click.option(
    "--import", "imports", is_flag=True, help="Also import the modules that FILE names, as handlers and workers would."
)
def check(*, file: str, model: tuple[str, ...], imports: bool, output: Output) -> int:
    """Check FILE, and show the settings that a model gets from it.

    Prints a note, not an error, for values that depend on where the system runs, such as environment variables.
    """
    from actors.config import load  # 0.7 s with the next line; help does without
    from actors.inspection import inspect
    from actors.ui.origins import directions

    settings = load(file)
    if imports:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` and Ray's workers have it
    found = inspect(settings, os.environ, imports=imports)
    problems = [f"{file}: {each}" for each in found if each.problem]
    if problems:
        raise ValueError("\n".join(problems))
    for each in found:
        output.note(f"note: {each}")
    models = {name: told_settings(settings.for_model(name)) for name in model or ["any other model"]}
    output.line(f"{file}: fine; {len(settings.models)} entries under models")
    for name, got in models.items():
        output.table(name, ("setting", "value"), list(got.items()))
    asked = model or ["any other model", *(name for name, entry in settings.models.items() if entry.watch)]
    ways = [(name, *each) for name in asked for each in directions(settings, name)]
    output.table("directions in which a metric gets worse", ("model", "metric", "direction", "from"), ways)
    output.result(
        {
            "file": file,
            "namespace": settings.namespace,
            "models": models,
            "directions": [dict(zip(("model", "metric", "direction", "from"), row, strict=True)) for row in ways],
            "notes": [str(each) for each in found],
        }
    )
    return FINE


def told_settings(got: ModelSettings) -> dict[str, Any]:
    """Return what a model gets, as people write it."""
    from actors.config import Duration, format_duration  # 0.4 s; help does without

    budget = got.false_alarm_every
    return {
        "false_alarm_every": format_duration(budget.seconds) if isinstance(budget, Duration) else budget,
        "watch": {metric: each.written() for metric, each in got.watch.items()},
        "cooldown": format_duration(got.cooldown_s),
        "expect_every": None if got.expect_every_s is None else format_duration(got.expect_every_s),
        "pinned_version": got.pinned_version,
        "handler": got.handler.model_dump(by_alias=True),
        "dry_run": got.dry_run,
        "retrain": _rule(got.retrain),
        "promotion": {
            "gate": got.promotion.gate,
            "handler": None if got.promotion.handler is None else got.promotion.handler.model_dump(by_alias=True),
            "on_worse": got.promotion.on_worse,
        },
        "labels": dict(got.labels),
    }


def _rule(rule: RetrainRule) -> dict[str, Any]:
    from actors.config.values import format_budget, format_duration, format_price  # as above

    return {
        "when": rule.when,
        "metric": rule.metric,
        "price": None if rule.price is None else format_price(rule.price),
        "budget": None if rule.budget is None else format_budget(rule.budget),
        "max_age": None if rule.max_age_s is None else format_duration(rule.max_age_s),
        "give_up": rule.give_up,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility config check FILE`."""
    return run(config, argv)


if __name__ == "__main__":
    sys.exit(main())

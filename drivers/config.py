"""Check a configuration file, and show what a model would get from it. Needs no Ray."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from actors import config
from drivers.arguments import FINE, Parser, run
from drivers.output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility config check FILE [--model M]`."""
    parser = Parser("config", __doc__, example="visutility config check visutility.yaml --model object-detector")
    parser.add_argument("action", choices=("check",))
    parser.add_argument("file", help="the configuration, YAML")
    parser.add_argument("--model", action="append", help="show what this model would get (more than once: several)")
    return run(parser, argv, _check)


def _check(arguments: argparse.Namespace, output: Output) -> int:
    settings = config.load(arguments.file)
    models = {model: _told(settings.for_model(model)) for model in arguments.model or ["any other model"]}
    output.line(f"{arguments.file}: fine; {len(settings.models)} entries under models")
    for model, got in models.items():
        output.table(model, ("setting", "value"), list(got.items()))
    output.result({"file": arguments.file, "namespace": settings.namespace, "models": models})
    return FINE


def _told(got: config.ModelSettings) -> dict[str, Any]:
    budget = got.false_alarm_every
    return {
        "false_alarm_every": config.format_duration(budget.seconds) if isinstance(budget, config.Duration) else budget,
        "watch": {
            metric: {"detector": each.detector, "direction": each.direction, **each.options}
            for metric, each in got.watch.items()
        },
        "cooldown": config.format_duration(got.cooldown_s),
        "expect_every": None if got.expect_every_s is None else config.format_duration(got.expect_every_s),
        "pinned_version": got.pinned_version,
        "handler": got.handler.model_dump(by_alias=True),
        "dry_run": got.dry_run,
    }


if __name__ == "__main__":
    sys.exit(main())

"""Hold back the retrains of a model, or of a pattern of models, for a while.

The system still detects, records and shows drift.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from drivers.commands import FINE, cluster, group, joined, labelled, run, signed
from drivers.output import Output
from drivers.status import selector

silence = group(
    "silence",
    __doc__,
    examples=["visutility silence add 'fraud-*' --duration 2h --comment 'holiday sale'", "visutility silence ls"],
    aliases={"query": "ls"},
)


@silence.command(
    "add",
    examples=[
        "visutility silence add 'fraud-*' --duration 2h --comment 'holiday sale'",
        "visutility silence add --label team=risk --duration 2h",
    ],
)
@click.argument("model", required=False)
@click.option("--duration", required=True, help="How long, from now: 30m, 2h, 7d.")
@signed
@labelled
@cluster
def add(
    *,
    model: str | None,
    duration: str,
    by: str | None,
    comment: str | None,
    label: Sequence[str],
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Hold back the retrains of MODEL, a name or a pattern like 'fraud-*', or of the models that --label selects."""
    selects = str(selector(label)) or None
    if model is None and selects is None:
        raise ValueError("give MODEL or --label to select the models to silence, got neither")
    made = joined(address, namespace).retrains.silence(model or "*", duration, comment or "", label=selects, by=by)
    output.line(made)
    output.result({"silence": made})
    return FINE


@silence.command("ls", examples=["visutility silence ls", "visutility silence ls fraud-eu"])
@click.argument("model", required=False)
@cluster
def ls(*, model: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """List the active silences: all, or those that cover MODEL."""
    rows = joined(address, namespace).retrains.silences(model)
    columns = ("id", "model", "label", "seconds left", "by", "comment")
    lines = [(row["id"], row["model"], row["label"], round(row["remaining_s"]), row["by"], row["comment"]) for row in rows]
    output.table("silences", columns, lines)
    output.result(rows)
    return FINE


@silence.command("expire", examples=["visutility silence expire 4f1c"])
@click.argument("silence_id", metavar="ID")
@cluster
def expire(*, silence_id: str, address: str | None, namespace: str | None, output: Output) -> int:
    """End the silence ID early."""
    joined(address, namespace).retrains.unsilence(silence_id)
    output.line(f"{silence_id} has ended")
    output.result({"silence": silence_id})
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility silence add|ls|expire`."""
    return run(silence, argv)


if __name__ == "__main__":
    sys.exit(main())

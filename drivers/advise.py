"""Propose a price or a budget for the retrains of a model, from its history.

Rehearses prices of 0.3% to 10% of the promise's rows, budgets, and the present configuration on the stored events of MODEL.
Changes nothing: it proposes an edit of the configuration file, which you apply yourself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from drivers.commands import FINE, cluster, command, run, stored
from drivers.output import Output

if TYPE_CHECKING:
    from actors.advice import Advice, Tried

COLUMNS: Final = ("configuration", "retrains", "errors lost", "first retrain", "last retrain")


@command(
    "advise",
    help=__doc__,
    examples=["visutility advise churn", "visutility advise churn --retrains 4 --storage sqlite:///./visutility-data"],
)
@click.argument("model")
@click.option(
    "--retrains",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most this many retrains over the history (default: as many as the present configuration orders).",
)
@click.option("--since", help="Leave out earlier events: 2026-11-23, 2026-11-23T14:00, or seconds since the epoch.")
@click.option("--takes", default="0s", help="How long a rehearsed retrain takes (default: 0s).")
@stored
@cluster
def advise(
    *,
    model: str,
    retrains: int | None,
    since: str | None,
    takes: str,
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Rehearse the grid and tell what came of it."""
    # They import the store and the detectors, 0.7 s; help does without.
    from actors.config import parse_duration
    from drivers.replay import event_files, rehearsing

    takes_s = parse_duration(takes)
    try:
        since_s = None if since is None else event_files.moment(since)
    except ValueError as error:
        raise ValueError(f"--since {error}") from None
    store = rehearsing.open_store(storage, address, namespace)
    try:
        with output.progress("the stored history", None) as step:
            advisor = rehearsing.advised(store, model, since_s, takes_s, step)
    finally:
        store.close()
    advice = advisor.advice(retrains)
    _tell(advice, output)
    output.result(advice.document())
    return FINE


def _tell(advice: Advice, output: Output) -> None:
    events, first, last = advice.tried[0].outcome.events, advice.tried[0].outcome.first_at, advice.tried[0].outcome.last_at
    output.table(
        f"{advice.model}, {events} events, {_at(first)} to {_at(last)}", COLUMNS, [_row(each) for each in advice.tried]
    )
    output.line()
    if advice.diff is None:
        output.line(f"No change is proposed: {advice.why}.")
    else:
        output.line(f"Proposed: {advice.why}.")
        output.line()
        for line in advice.diff.splitlines():
            output.line(line)
    output.line()
    output.line("What a rehearsal cannot know")
    for limit in advice.document()["limits"]:
        output.line(f"- {limit}")


def _row(tried: Tried) -> tuple[object, ...]:
    at = tried.ordered_at()
    first, last = (at[0], at[-1]) if at else (None, None)
    return tried.name, tried.retrains, round(tried.lost), _at(first), _at(last)


def _at(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility advise MODEL`."""
    return run(advise, argv)


if __name__ == "__main__":
    sys.exit(main())

"""Record whether an episode was a true or a false alarm.

`visutility status` compares the verdicts of a model with the false alarms that its configuration allows. The last verdict on an
episode counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from drivers.commands import FAILED, FINE, cluster, command, peers, run, signed
from drivers.output import Output

_PATIENCE_S = 20.0


@command(
    "verdict",
    help=__doc__,
    examples=["visutility verdict EPISODE false --by ada --comment 'a holiday'", "visutility verdict EPISODE true"],
)
@click.argument("episode")
@click.argument("verdict", metavar="true|false", type=click.Choice(["true", "false"]))
@signed
@cluster
def verdict(
    *,
    episode: str,
    verdict: str,
    by: str | None,
    comment: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Say whether EPISODE, an id as `visutility status` shows it, was a true alarm."""
    arguments = {"episode": episode, "verdict": verdict, "by": by, "comment": comment}
    reply = peers(address, namespace).call("broadcaster", "judge", arguments, timeout_s=_PATIENCE_S)
    unavailable = reply.get("status") == "unavailable"
    output.line(
        f"not recorded: {reply['reason']}" if unavailable else f"{episode} was a {verdict} alarm, says {by or 'a person'}"
    )
    output.result({**arguments, "recorded": not unavailable})
    return FAILED if unavailable else FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility verdict EPISODE true|false`."""
    return run(verdict, argv)


if __name__ == "__main__":
    sys.exit(main())

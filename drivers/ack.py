"""Record that a person has seen an episode.

A flagged episode then no longer makes `visutility status` exit 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from drivers.commands import FAILED, FINE, cluster, command, peers, run, signed
from drivers.output import Output

_PATIENCE_S = 20.0


@command("ack", help=__doc__, examples=["visutility ack EPISODE", "visutility ack EPISODE --by ada --comment 'the sale'"])
@click.argument("episode")
@signed
@cluster
def ack(
    *, episode: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Acknowledge EPISODE, an id as `visutility status` shows it."""
    reply = peers(address, namespace).call(
        "broadcaster", "acknowledge", {"episode": episode, "by": by, "comment": comment}, timeout_s=_PATIENCE_S
    )
    unavailable = reply.get("status") == "unavailable"
    output.line(f"not recorded: {reply['reason']}" if unavailable else f"{episode} is acknowledged")
    output.result({"episode": episode, "acknowledged": not unavailable, "by": by, "comment": comment})
    return FAILED if unavailable else FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility ack EPISODE`."""
    return run(ack, argv)


if __name__ == "__main__":
    sys.exit(main())

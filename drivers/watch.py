"""Watch the system live.

Prints a table on a terminal, and one line per change elsewhere. Ctrl-C ends it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from drivers import status
from drivers.commands import FINE, cluster, command, joined, labelled, run
from drivers.output import Output, drawn

if TYPE_CHECKING:
    from actors.labels import Selector


@command(
    "watch",
    help=__doc__,
    examples=["visutility watch", "visutility watch --every 5 -o json", "visutility watch --label team=risk"],
)
@click.option("--every", type=float, default=1.0, metavar="SECONDS", help="Seconds between updates (default: 1).")
@click.option("--rounds", type=int, metavar="N", help="End after N updates.")
@labelled
@cluster
def watch(
    *, every: float, rounds: int | None, label: Sequence[str], address: str | None, namespace: str | None, output: Output
) -> int:
    """Watch the system."""
    if not every > 0:
        raise ValueError(f"--every must be > 0 seconds, got {every}")
    selects = status.selector(label)
    watched = joined(address, namespace)
    with contextlib.suppress(KeyboardInterrupt):
        looks = _looks(watched, every, rounds, selects)
        if output.is_json or not output.moves:
            _follow(looks, output)
        else:
            with output.live() as show:
                for told in looks:
                    show(drawn(_title(told), status.MODEL_COLUMNS, list(status.model_rows(told))))
    return FINE


def _looks(watched: Any, every_s: float, rounds: int | None, selects: Selector) -> Iterator[dict[str, Any]]:
    done = 0
    while rounds is None or done < rounds:
        began = time.monotonic()
        told = watched.status()
        yield {**told, "models": status.selected(told, selects)}
        done += 1
        if rounds is None or done < rounds:
            time.sleep(max(every_s - (time.monotonic() - began), 0.0))


def _follow(looks: Iterator[dict[str, Any]], output: Output) -> None:
    last: dict[str, str] = {}
    for told in looks:
        if output.is_json:
            output.result(told)
            continue
        now = dict(_facts(told))
        for what, fact in now.items():
            if last.get(what) != fact:
                output.line(f"{time.strftime('%H:%M:%S')} {what}: {fact}")
                output.flush()
        last = now


def _facts(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for model, seen in told["models"].items():
        yield model, f"{seen['state']}, {seen['events']} events, {len(seen['open_episodes'])} open episodes"
    yield "retrains", ", ".join(f"{state} {count}" for state, count in told["retrains"].items())
    for name, actor in told["actors"].items():
        yield name, f"pid {actor['pid']}" if actor["alive"] else "does not answer"


def _title(told: Mapping[str, Any]) -> str:
    down = [name for name, actor in told["actors"].items() if not actor["alive"]]
    counts = ", ".join(f"{state} {count}" for state, count in told["retrains"].items() if count)
    return f"{told['namespace']}   retrains: {counts or 'none'}" + (f"   down: {', '.join(down)}" if down else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility watch`."""
    return run(watch, argv)


if __name__ == "__main__":
    sys.exit(main())

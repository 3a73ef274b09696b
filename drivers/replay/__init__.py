"""Log a file of events into the system, or rehearse another configuration.

FILE is CSV or JSONL, one event per line. With --dry-run or --what-if the command logs nothing: it rehearses the events (by
default the stored history) under the present configuration and the other one, and shows both side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from drivers.commands import cluster, command, run, stored
from drivers.output import Output
from drivers.replay.asked import Asked

_PATH = click.Path(path_type=Path)


@command(
    "replay",
    help=__doc__,
    examples=["visutility replay events.csv --model fraud", "visutility replay --what-if other.yaml --plot what-if.png"],
)
@click.argument("file", required=False, type=_PATH)
@click.option("--dry-run", is_flag=True, help="Log nothing: rehearse FILE under the configuration.")
@click.option("--what-if", type=_PATH, metavar="OTHER", help="Rehearse this configuration alongside the present one.")
@click.option("--config", type=_PATH, help="The present configuration (default: that of the running system or store).")
@click.option("--model", help="Only this model; also the model of lines of FILE that name none.")
@click.option("--version", help="The version of lines of FILE that name none.")
@click.option("--n-column", metavar="NAME", help="The column of FILE with the number of predictions behind an event.")
@click.option("--since", help="Leave out earlier events: 2026-11-23, 2026-11-23T14:00, or seconds since the epoch.")
@click.option("--takes", default="0s", help="How long a rehearsed retrain takes (default: 0s).")
@click.option("--plot", type=_PATH, help="Draw both to this file (PNG, SVG; needs the extra `plot`).")
@stored
@cluster
def replay(
    *,
    file: Path | None,
    dry_run: bool,
    what_if: Path | None,
    config: Path | None,
    model: str | None,
    version: str | None,
    n_column: str | None,
    since: str | None,
    takes: str,
    plot: Path | None,
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Replay FILE."""
    from drivers.replay import event_files  # imports numpy, 0.2 s; help does without

    try:
        since_s = None if since is None else event_files.moment(since)
    except ValueError as error:
        raise ValueError(f"--since {error}") from None
    if file is not None and not file.is_file():
        raise FileNotFoundError(2, "no such file", str(file))
    asked = Asked(
        file=file,
        what_if=what_if,
        config=config,
        model=model,
        version=version,
        n_column=n_column,
        since_s=since_s,
        takes=takes,
        storage=storage,
        plot=plot,
        address=address,
        namespace=namespace,
    )
    if what_if is None and not dry_run:
        if file is None:
            raise ValueError("replay needs a FILE, or --what-if OTHER for the stored history")
        from drivers.replay import sending  # imports Ray, 0.4 s

        return sending.send(asked, file, output)
    if file is None and what_if is None:
        raise ValueError("--dry-run needs a FILE")
    from drivers.replay import rehearsing  # imports the store and the detectors, 0.7 s

    return rehearsing.rehearse(asked, output)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility replay`."""
    return run(replay, argv)

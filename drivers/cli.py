"""The command `visutility`: each command is a module of this folder, and `visutility NAME` is `python -m drivers.NAME`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from drivers.commands import USAGE, Modules, run
from drivers.output import Output

# The first sentence of each command's help, so that the list imports none of them.
SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Run": {
        "up": "Start a Ray on this machine with the system in it.",
        "down": "End the Ray that `visutility up` started, and the system in it.",
        "start": "Start the system on a running Ray cluster, or attach to a running system.",
        "stop": "Stop the system; the store keeps everything that was acknowledged.",
        "reload": "Apply a changed configuration to the running system, which keeps all its state.",
        "config": "Check a configuration file.",
    },
    "Look": {
        "status": "Show the state of the system.",
        "watch": "Watch the system live.",
        "ui": "Show the system in a browser: models, episodes, orders and studies, with actions on them.",
        "models": "List the models of a system or of a store, show one, or remove one.",
        "explain": "Explain a drift episode, an order or a model.",
        "report": "Write a report as one file to mail: what happened, what was decided, and what it earned.",
        "advise": "Propose a price or a budget for the retrains of a model, from its history.",
    },
    "Act": {
        "retrains": "List, show and change retrain orders.",
        "silence": "Hold back the retrains of a model, or of a pattern of models, for a while.",
        "versions": "List the versions of a model, promote one, or roll back.",
        "ack": "Record that a person has seen an episode.",
        "verdict": "Record whether an episode was a true or a false alarm.",
        "notify": "Show who is told what happens, test a receiver, or preview the messages about an episode.",
        "replay": "Log a file of events into the system, or rehearse another configuration.",
        "tune": "Search the parameters of an objective on the cluster.",
    },
    "Keep": {
        "backup": "Copy the whole store of a system into a folder, while it runs.",
        "restore": "Create a store from a backup.",
    },
    "Try": {
        "demo": "Replay a real year of flights: drift, retrains, tuning, and their gain.",
        "reference": "Run the reference scenario on the real actors.",
        "plugins": "List the plug-ins of other installed packages, and those that cannot be used.",
        "completion": "Print the completion script of a shell.",
    },
}
# These live in the repository's tests now; in a checkout their old spelling goes on working.
MOVED: Final = ("bench", "chaos")
_PAGE: Final[Mapping[str, Any]] = {"terminal_width": 100, "help_option_names": ["-h", "--help"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility`; without a command, list the commands."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if arguments and arguments[0] in MOVED:
        return _moved(arguments[0], arguments[1:])
    return run(ROOT, arguments, "visutility")


ROOT: Final = Modules(
    "visutility",
    sections=SECTIONS,
    help="Monitor models for drift, retrain them and tune them, on your Ray cluster.",
    epilog="`visutility NAME --help` explains one; `-o json` prints JSON; exit 0: fine, 1: attention or failure, 2: usage.",
    examples=("visutility demo", "visutility up"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def helps() -> Iterator[tuple[str, str]]:
    """Return the path and the help of every command, as a page of the documentation shows them.

    >>> dict(helps())["visutility stop"].splitlines()[0]
    'visutility stop'
    """
    top = click.Context(ROOT, info_name="visutility", **_PAGE)
    for name in ROOT.list_commands(top):
        found = ROOT.get_command(top, name)
        if found is not None:
            yield from _helps_below(found, click.Context(found, info_name=name, parent=top, **_PAGE))


def _helps_below(entry: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    yield ctx.command_path, entry.get_help(ctx)
    if isinstance(entry, click.Group):
        for name in entry.list_commands(ctx):
            below = entry.get_command(ctx, name)
            if below is not None:
                yield from _helps_below(below, click.Context(below, info_name=name, parent=ctx, **_PAGE))


def _print_version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001  click's signature
    if asked:
        click.echo(importlib.import_module("actors.cluster.build").BUILD)
        ctx.exit()


ROOT.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the build and exit.",
    )
)


def _moved(name: str, arguments: Sequence[str]) -> int:
    if not Path("tests", name, "__main__.py").is_file():
        Output("text").error(f"{name} is not a command of an installed visutility; in a checkout run python -m tests.{name}")
        return USAGE
    return subprocess.run([sys.executable, "-m", f"tests.{name}", *arguments], check=False).returncode  # noqa: S603  no shell


if __name__ == "__main__":
    sys.exit(main())

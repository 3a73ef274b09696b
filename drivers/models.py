"""List the models of a system or of a store, show one, or remove one.

Exits 1 if a listed model drifts or has gone silent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from drivers import status
from drivers.commands import FAILED, FINE, cluster, group, labelled, peers, run, stored
from drivers.output import Output

_REMOVED_S: Final = 60.0
COLUMNS: Final = ("model", "state", "version", "events", "last event", "open episodes")

models = group("models", __doc__, examples=["visutility models ls --state drifting", "visutility models show fraud"])


@models.command(
    "ls",
    examples=[
        "visutility models ls",
        "visutility models ls --state drifting",
        "visutility models ls --silent",
        "visutility models ls --label team=risk",
    ],
)
@click.option("--state", help="Only this state: learning, stable, drifting, no_data, unwatched, ...")
@click.option("--silent", is_flag=True, help="Sort by the last event, the oldest first.")
@labelled
@stored
@cluster
def ls(
    *,
    state: str | None,
    silent: bool,
    label: Sequence[str],
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """List the models, by name."""
    selects = status.selector(label)
    told = status.read(address, namespace) if storage is None else status.read_store(storage)
    models = status.selected(told, selects)
    found = {name: seen for name, seen in models.items() if state is None or seen["state"] == state}
    if silent:
        found = dict(sorted(found.items(), key=lambda item: item[1].get("last_at") or 0.0))
    output.table("models", COLUMNS, [_line(name, seen) for name, seen in found.items()])
    output.result([{"model": name, **seen} for name, seen in found.items()])
    return FAILED if any(seen["state"] in status.FIRING for seen in found.values()) else FINE


@models.command(
    "show", examples=["visutility models show fraud", "visutility models show fraud --storage sqlite:///./visutility-data"]
)
@click.argument("model")
@stored
@cluster
def show(*, model: str, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Show MODEL: its versions, and each watched metric against its baseline."""
    told = status.read(address, namespace) if storage is None else status.read_store(storage)
    seen = status.one_of(told, model)
    plain = {name: value for name, value in seen.items() if name != "versions"}
    output.table(model, ("field", "value"), list(plain.items()))
    for version, each in seen["versions"].items():
        output.line()
        rows = [(name, *metric.values()) for name, metric in each["metrics"].items()]
        heads = ("metric", *next(iter(each["metrics"].values()), {}))
        output.table(f"version {version}: {each['state']}, {each['events']} events", heads, rows)
    output.result({"model": model, **seen})
    return FAILED if seen["state"] in status.FIRING else FINE


@models.command("rm", examples=["visutility models rm old-model", "visutility models rm old-model --purge"])
@click.argument("model")
@click.option("--purge", is_flag=True, help="Also delete its episodes and orders.")
@click.option(
    "--force", is_flag=True, help="Remove it even if it has logged within the last five minutes; new events create it again."
)
@cluster
def rm(*, model: str, purge: bool, force: bool, address: str | None, namespace: str | None, output: Output) -> int:
    """Remove MODEL: its process slot, counts and log. Its episodes and orders remain for the retention time.

    If the command is interrupted, the model accepts no events until you have run it again. Its ids are never used again.
    """
    arguments = {"model": model, "purge": purge, "force": force}
    reply = peers(address, namespace).call("broadcaster", "remove", arguments, timeout_s=_REMOVED_S)
    if reply["status"] == "unavailable":
        raise ConnectionError(f"{model} is not removed yet, run the command again: {reply['reason']}")
    output.line(f"{model}: removed" + (", with its episodes and orders" if purge else ""))
    output.result(reply)
    return FINE


def _line(name: str, seen: Mapping[str, Any]) -> tuple[object, ...]:
    last = seen.get("last_at")
    when = None if last is None else datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    newest = next(reversed(seen["versions"]), None) if seen["versions"] else None
    return name, seen["state"], newest, seen["events"], when, seen["open_episodes"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility models ls|show|rm`."""
    return run(models, argv)


if __name__ == "__main__":
    sys.exit(main())

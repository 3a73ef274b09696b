"""List, show and change retrain orders."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from drivers.commands import FAILED, FINE, cluster, group, joined, run, stored
from drivers.output import Output

COLUMNS: Final = ("id", "model", "version", "state", "requested", "dispatched", "finished", "attempts", "new version", "reason")


retrains = group(
    "retrains",
    __doc__,
    examples=["visutility retrains ls --state dead", "visutility retrains trigger fraud --reason 'new labels'"],
)
_ORDER = click.argument("order")


@retrains.command(
    "ls",
    examples=[
        "visutility retrains ls",
        "visutility retrains ls --model fraud --state dead",
        "visutility retrains ls --storage sqlite:///./visutility-data",
    ],
)
@click.option("--model", help="Only this model.")
@click.option("--state", help="Only this state: pending, running, done, failed, dead, skipped, ...")
@click.option("--limit", type=int, default=50, help="So many of the newest (default: 50).")
@stored
@cluster
def ls(
    *, model: str | None, state: str | None, limit: int, storage: str | None, address: str | None, namespace: str | None,
    output: Output,
) -> int:  # fmt: skip
    """List the orders and what was decided against, the oldest first.

    Exit 1 where a dead letter is among them.
    """
    if storage is None:
        return _ls(joined(address, namespace).retrains.history(model, limit=limit, state=state), output)
    from actors.retraining.stored import read_history  # noqa: PLC0415  imports the store, 0.4 s; help does without

    return _ls(read_history(storage, model, limit=limit, state=state), output)


@retrains.command("show", examples=["visutility retrains show ORDER"])
@_ORDER
@stored
@cluster
def show(*, order: str, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Show an order: why it was given, every attempt, and what came of it."""
    if storage is None:
        return _show(joined(address, namespace).retrains.show(order), output)
    from actors.retraining.stored import read_order  # noqa: PLC0415  imports the store, 0.4 s; help does without

    return _show(read_order(storage, order), output)


@retrains.command("retry", examples=["visutility retrains retry ORDER"])
@_ORDER
@cluster
def retry(*, order: str, address: str | None, namespace: str | None, output: Output) -> int:
    """Put a failed, dead or expired order back."""
    return _admitted(joined(address, namespace).retrains.retry(order), output)


@retrains.command("trigger", examples=["visutility retrains trigger fraud --reason 'new labels'"])
@click.argument("model")
@click.option("--reason", required=True, help="Why, for the history.")
@click.option("--version", help="The version that is to be replaced.")
@cluster
def trigger(*, model: str, reason: str, version: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Ask for a retrain of MODEL; this passes a cooldown and a silence."""
    return _admitted(joined(address, namespace).retrains.trigger(model, reason, version), output)


@retrains.command("done", examples=["visutility retrains done ORDER --new-version 8"])
@_ORDER
@click.option("--new-version", help="The version that came of it.")
@click.option("--reason", help="A remark for the history.")
@cluster
def done(
    *, order: str, new_version: str | None, reason: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Record that an order is done, whoever has it."""
    return _finished(joined(address, namespace).retrains.done(order, new_version, reason=reason), output)


@retrains.command("failed", examples=["visutility retrains failed ORDER --reason 'out of memory'"])
@_ORDER
@click.option("--reason", required=True, help="Why.")
@cluster
def failed(*, order: str, reason: str, address: str | None, namespace: str | None, output: Output) -> int:
    """Record that an order failed, whoever has it."""
    return _finished(joined(address, namespace).retrains.failed(order, reason), output)


def _ls(rows: Sequence[Mapping[str, Any]], output: Output) -> int:
    output.table("retrains", COLUMNS, [_line(row) for row in rows])
    output.result(rows)
    return FAILED if any(row["state"] == "dead" for row in rows) else FINE


def _show(order: Mapping[str, Any], output: Output) -> int:
    plain = {name: value for name, value in order.items() if name not in {"explanation", "attempt_log", "status", "tuning"}}
    for name in ("requested_at", "dispatched_at", "finished_at"):
        plain[name] = _moment(order[name])
    output.table(order["id"], ("field", "value"), list(plain.items()))
    output.table("why", ("what", "value"), list((order["explanation"] or {}).items()))
    if order["tuning"]:
        output.table("tuning", ("what", "value"), list(order["tuning"].items()))
    columns = ("attempt", "handler", "consumer", "started_at", "ended_at", "outcome", "reason")
    attempts = [
        tuple(_moment(log[name]) if name.endswith("_at") else log[name] for name in columns) for log in order["attempt_log"]
    ]
    output.table("attempts", columns, attempts)
    output.result(order)
    return FINE


def _admitted(reply: Mapping[str, Any], output: Output) -> int:
    output.line(f"{reply['decision']}: {reply['order'] or reply['reason']}")
    output.result(reply)
    return FAILED if reply["decision"] == "skipped" else FINE


def _finished(reply: Mapping[str, Any], output: Output) -> int:
    output.line(f"{reply['status']} {reply['reason']}".strip())
    output.result(reply)
    return FINE if reply["status"] == "recorded" else FAILED


def _line(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        row["id"],
        row["model"],
        row["version"],
        row["state"],
        _moment(row["requested_at"]),
        _moment(row["dispatched_at"]),
        _moment(row["finished_at"]),
        row["attempts"],
        row["new_version"],
        row["reason"],
    )


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility retrains ls|show|trigger|retry|done|failed`."""
    return run(retrains, argv)


if __name__ == "__main__":
    sys.exit(main())

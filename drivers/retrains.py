"""List, show and change retrain orders."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from drivers.commands import FAILED, FINE, cluster, group, joined, labelled, run, signed, stored
from drivers.output import Output
from drivers.status import selector

if TYPE_CHECKING:
    from actors.replies import OrderRow, QueueRow

QUEUE_COLUMNS: Final = ("place", "id", "model", "lost", "price", "why it waits")
VERDICT_COLUMNS: Final = ("id", "model", "new version", "finished", "price", "errors saved", "verdict")
COLUMNS: Final = (
    "id",
    "model",
    "version",
    "cause",
    "state",
    "requested",
    "dispatched",
    "finished",
    "attempts",
    "new version",
    "by",
    "reason",
)


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
        "visutility retrains ls --label team=risk",
        "visutility retrains ls --verdicts",
        "visutility retrains ls --storage sqlite:///./visutility-data",
    ],
)
@click.option("--model", help="Only this model.")
@click.option("--state", help="Only this state: pending, running, done, failed, dead, skipped, ...")
@click.option("--limit", type=int, default=50, help="Only this many of the newest (default: 50).")
@click.option("--verdicts", is_flag=True, help="Only retrains with a verdict (paid or not), and the totals by model.")
@labelled
@stored
@cluster
def ls(
    *,
    model: str | None,
    state: str | None,
    limit: int,
    verdicts: bool,
    label: Sequence[str],
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """List the orders and the decisions against a retrain, the oldest first, then the queue.

    Exits 1 if there is a dead letter among them.
    """
    selects = str(selector(label)) or None
    if storage is not None:
        from actors.retraining.offline import read_history  # imports the store, 0.4 s; help does without

        rows = read_history(storage, model, limit=limit, state=state, judged=verdicts, label=selects)
        return _verdicts(rows, output) if verdicts else _ls(rows, [], output)
    orders = joined(address, namespace).retrains
    rows = orders.history(model, limit=limit, state=state, judged=verdicts, label=selects)
    if verdicts:
        return _verdicts(rows, output)
    shown = {row["id"] for row in rows}
    return _ls(rows, [row for row in orders.queue() if not selects or row["id"] in shown], output)


@retrains.command("show", examples=["visutility retrains show ORDER"])
@_ORDER
@stored
@cluster
def show(*, order: str, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Show an order: its reason, every attempt, and the outcome."""
    if storage is None:
        return _show(joined(address, namespace).retrains.show(order), output)
    from actors.retraining.offline import read_order  # imports the store, 0.4 s; help does without

    return _show(read_order(storage, order), output)


@retrains.command("retry", examples=["visutility retrains retry ORDER"])
@_ORDER
@signed
@cluster
def retry(
    *, order: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Queue a failed, dead or expired order again."""
    return _admitted(joined(address, namespace).retrains.retry(order, by=by, comment=comment), output)


@retrains.command("trigger", examples=["visutility retrains trigger fraud --reason 'new labels'"])
@click.argument("model")
@click.option("--reason", required=True, help="Why, for the history.")
@click.option("--version", help="The version to replace.")
@signed
@cluster
def trigger(
    *,
    model: str,
    reason: str,
    version: str | None,
    by: str | None,
    comment: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Order a retrain of MODEL; this overrides a cooldown and a silence."""
    return _admitted(joined(address, namespace).retrains.trigger(model, reason, version, by=by, comment=comment), output)


@retrains.command("front", examples=["visutility retrains front ORDER"])
@_ORDER
@signed
@cluster
def front(
    *, order: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Move a waiting order to the front of the queue."""
    joined(address, namespace).retrains.front(order, by=by, comment=comment)
    output.line(f"{order} is next")
    output.result({"order": order, "place": 1})
    return FINE


@retrains.command("dismiss", examples=["visutility retrains dismiss ORDER --reason 'retrained by hand'"])
@_ORDER
@click.option("--reason", required=True, help="Why, for the history.")
@signed
@cluster
def dismiss(
    *, order: str, reason: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Close a dead letter or a failed order that you have handled yourself."""
    joined(address, namespace).retrains.dismiss(order, reason, by=by, comment=comment)
    output.line(f"{order} is dismissed")
    output.result({"order": order, "dismissed": True})
    return FINE


@retrains.command(
    "done",
    examples=[
        "visutility retrains done ORDER --new-version 8",
        "visutility retrains done ORDER --promise 0.87 --promise-n 2500",
    ],
)
@_ORDER
@click.option("--new-version", help="The version that the retrain produced.")
@click.option("--promise", type=float, help="Its cross-validated value of the model's metric, from 0 to 1.")
@click.option("--promise-n", type=float, help="The number of training rows behind the promise.")
@click.option(
    "--hold-out", is_flag=True, help="The promise comes from a single hold-out; it is shown, but the rule does not use it."
)
@click.option("--reason", help="A remark for the history.")
@cluster
def done(
    *,
    order: str,
    new_version: str | None,
    promise: float | None,
    promise_n: float | None,
    hold_out: bool,
    reason: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Record that an order is done, even if a consumer has it."""
    if (promise is None) != (promise_n is None):
        raise ValueError("--promise and --promise-n must be given together")
    ended = joined(address, namespace).retrains.done(
        order,
        new_version,
        reason=reason,
        promise=promise,
        promise_n=promise_n,
        promise_source="hold_out" if hold_out else "cross_validation",
    )
    return _finished(ended, output)


@retrains.command("failed", examples=["visutility retrains failed ORDER --reason 'out of memory'"])
@_ORDER
@click.option("--reason", required=True, help="Why.")
@cluster
def failed(*, order: str, reason: str, address: str | None, namespace: str | None, output: Output) -> int:
    """Record that an order failed, even if a consumer has it."""
    return _finished(joined(address, namespace).retrains.failed(order, reason), output)


def _ls(rows: Sequence[OrderRow], queue: Sequence[QueueRow], output: Output) -> int:
    output.table("retrains", COLUMNS, [_line(row) for row in rows])
    waiting = {row["id"]: row for row in queue}
    if waiting:
        output.line()
        lines = [(row["place"], row["id"], row["model"], row["lost"], row["price"], row["why"]) for row in queue]
        output.table("waiting, the next one first", QUEUE_COLUMNS, lines)
    places = {id_: {"place": row["place"], "why": row["why"]} for id_, row in waiting.items()}
    output.result([{**row, **places.get(row["id"], {})} for row in rows])
    return FAILED if any(row["state"] == "dead" for row in rows) else FINE


def _verdicts(rows: Sequence[OrderRow], output: Output) -> int:
    lines = [
        (row["id"], row["model"], row["new_version"], _moment(row["finished_at"]), row["price"], _saved(row), row["verdict"])
        for row in rows
    ]
    output.table("did they pay?", VERDICT_COLUMNS, lines)
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        of_model = sums.setdefault(row["model"], {"retrains": 0, "paid": 0, "saved": 0.0})
        of_model["retrains"] += 1
        of_model["paid"] += row["verdict"] == "paid"
        of_model["saved"] += row["saved"] or 0.0
    output.line()
    for model, found in sums.items():
        output.line(f"{model}: {found['paid']} of {found['retrains']} retrains paid, {found['saved']:.0f} errors saved")
    output.result({"retrains": rows, "models": sums})
    return FINE


def _saved(row: OrderRow) -> str | None:
    if row["saved"] is None:
        return None
    return f"{row['saved']:.0f}" + ("" if row["saved_error"] is None else f" +- {row['saved_error']:.0f}")


def _show(order: Mapping[str, Any], output: Output) -> int:
    plain = {
        name: value for name, value in order.items() if name not in {"explanation", "attempt_log", "status", "tuning", "acts"}
    }
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
    acts = order.get("acts") or []
    if acts:
        output.table(
            "by hand", ("at", "act", "by", "comment"), [(_moment(a["at"]), a["act"], a["by"], a["comment"]) for a in acts]
        )
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


def _line(row: OrderRow) -> tuple[object, ...]:
    return (
        row["id"],
        row["model"],
        row["version"],
        row["cause"],
        row["state"],
        _moment(row["requested_at"]),
        _moment(row["dispatched_at"]),
        _moment(row["finished_at"]),
        row["attempts"],
        row["new_version"],
        _by(row),
        row["reason"],
    )


def _by(row: OrderRow) -> str | None:
    """Return the person who acted on the order last."""
    acts = row.get("acts") or []
    return acts[-1]["by"] if acts else None


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility retrains ls|show|trigger|retry|front|done|failed|dismiss`."""
    return run(retrains, argv)


if __name__ == "__main__":
    sys.exit(main())

"""Look at the retrain orders, and act on them: list, show, put back, ask for one, record how one ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from drivers.arguments import FAILED, FINE, Parser, add_cluster, run
from drivers.output import Output

COLUMNS: Final = ("id", "model", "version", "state", "requested", "dispatched", "finished", "attempts", "new version", "reason")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility retrains ls|show|retry|trigger|done|failed`."""
    parser = Parser("retrains", __doc__, example="visutility retrains ls --state dead")
    parser.add_argument(
        "action",
        choices=("ls", "show", "retry", "trigger", "done", "failed"),
        help="ls: the history, oldest first, with what was decided against\n"
        "show ID: one order, its explanation, its attempts\n"
        "retry ID: put a failed, dead or expired order back\n"
        "trigger MODEL --reason WHY: ask for a retrain; passes a cooldown and a silence\n"
        "done ID [--new-version V], failed ID --reason WHY: record how it ended, whoever has it",
    )
    parser.add_argument("what", nargs="?", help="an order's id; the model for trigger")
    parser.add_argument("--model", help="ls: only this model")
    parser.add_argument("--state", help="ls: only this state (pending, running, done, failed, dead, skipped, ...)")
    parser.add_argument("--limit", type=int, default=50, help="ls: so many of the newest (default 50)")
    parser.add_argument("--reason", help="trigger, failed: why")
    parser.add_argument("--version", help="trigger: the version that is to be replaced")
    parser.add_argument("--new-version", help="done: the version that came of it")
    add_cluster(parser)
    return run(parser, argv, _act)


def _act(arguments: argparse.Namespace, output: Output) -> int:
    from actors import system  # noqa: PLC0415 --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415 --help needs no Ray

    if arguments.action != "ls" and arguments.what is None:
        raise ValueError(f"{arguments.action} needs {'a model' if arguments.action == 'trigger' else 'the id of an order'}")
    if arguments.action in {"trigger", "failed"} and not arguments.reason:
        raise ValueError(f"{arguments.action} needs --reason")
    connection.attach(arguments.address, otherwise="look")
    retrains = system.System(arguments.namespace or system.DEFAULT_NAMESPACE).retrains
    match arguments.action:
        case "ls":
            return _ls(retrains.history(arguments.model, limit=arguments.limit, state=arguments.state), output)
        case "show":
            return _show(retrains.show(arguments.what), output)
        case "retry":
            return _admitted(retrains.retry(arguments.what), output)
        case "trigger":
            return _admitted(retrains.trigger(arguments.what, arguments.reason, arguments.version), output)
        case "done":
            return _finished(retrains.done(arguments.what, arguments.new_version, reason=arguments.reason), output)
        case _:
            return _finished(retrains.failed(arguments.what, arguments.reason), output)


def _ls(rows: list[dict[str, Any]], output: Output) -> int:
    output.table("retrains", COLUMNS, [_line(row) for row in rows])
    output.result(rows)
    return FAILED if any(row["state"] == "dead" for row in rows) else FINE


def _show(order: dict[str, Any], output: Output) -> int:
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


def _admitted(reply: dict[str, Any], output: Output) -> int:
    output.line(f"{reply['decision']}: {reply['order'] or reply['reason']}")
    output.result(reply)
    return FAILED if reply["decision"] == "skipped" else FINE


def _finished(reply: dict[str, Any], output: Output) -> int:
    output.line(f"{reply['status']} {reply['reason']}".strip())
    output.result(reply)
    return FINE if reply["status"] == "recorded" else FAILED


def _line(row: dict[str, Any]) -> tuple[object, ...]:
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


if __name__ == "__main__":
    sys.exit(main())

"""List the versions of a model, promote one, or roll back.

The model's `promotion.handler` carries out the decision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from actors import VersionShown
from drivers.commands import FINE, cluster, group, joined, run, signed
from drivers.output import Output

COLUMNS: Final = ("version", "state", "since", "promise", "of rows", "evidence", "by", "comment")

versions = group("versions", __doc__, examples=["visutility versions ls fraud", "visutility versions rollback fraud"])


@versions.command("ls", examples=["visutility versions ls fraud"])
@click.argument("model")
@cluster
def ls(*, model: str, address: str | None, namespace: str | None, output: Output) -> int:
    """List the versions of MODEL: which is live, which is a candidate, and what each promises."""
    rows = joined(address, namespace).versions.history(model)
    output.table(model, COLUMNS, [_line(row) for row in rows])
    output.result(rows)
    return FINE


@versions.command("promote", examples=["visutility versions promote fraud 8"])
@click.argument("model")
@click.argument("version")
@signed
@cluster
def promote(
    *, model: str, version: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Make VERSION the live version of MODEL, regardless of the gate."""
    reply = joined(address, namespace).versions.promote(model, version, by=by, comment=comment)
    output.line(f"{model}: {version} is live ({reply['status']})")
    output.result(reply)
    return FINE


@versions.command("rollback", examples=["visutility versions rollback fraud"])
@click.argument("model")
@signed
@cluster
def rollback(
    *, model: str, by: str | None, comment: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Make the previous live version of MODEL live again."""
    reply = joined(address, namespace).versions.rollback(model, by=by, comment=comment)
    output.line(f"{model}: rolled back" + (f" to {reply['version']}" if reply.get("version") else ""))
    output.result(reply)
    return FINE


def _line(row: VersionShown) -> tuple[object, ...]:
    since = row.get("since")
    promise = row.get("promise") or {}
    values = promise.get("values")
    when = None if since is None else datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return row["version"], row["state"], when, values, promise.get("n"), row.get("evidence"), row.get("by"), row.get("comment")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility versions ls|promote|rollback`."""
    return run(versions, argv)


if __name__ == "__main__":
    sys.exit(main())

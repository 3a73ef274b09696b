"""Show who is told what happens, test a receiver, or preview the messages about an episode."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from drivers import status
from drivers.commands import DEFAULT_NAMESPACE, FAILED, FINE, cluster, group, peers, run, stored
from drivers.output import Output

if TYPE_CHECKING:
    from actors.config import Settings
    from actors.config.notify import NotifySettings

_TEST_S: Final = 60.0
_PATIENCE_S: Final = 10.0

notify = group("notify", __doc__, examples=["visutility notify ls", "visutility notify test chat"])


@notify.command("ls", examples=["visutility notify ls", "visutility notify ls --storage sqlite:///./visutility-data"])
@stored
@cluster
def ls(*, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """List the receivers, with how each does, and the routes. Exits 1 where a receiver fails."""
    told = status.read(address, namespace) if storage is None else status.read_store(storage)
    settings = _stored_settings(storage) if storage is not None else _running_settings(namespace)
    receivers: dict[str, Mapping[str, Any]] = told["receivers"]
    columns = ("receiver", "kind", "state", "sent", "failed", "lost", "waiting", "problem")
    said = settings.notify
    rows = [
        (name, said.receivers[name].kind, *(each[column] for column in columns[2:]))
        for name, each in receivers.items()
        if name in said.receivers
    ]
    output.table("receivers", columns, rows)
    output.table("routes", ("receivers", "what", "when"), _routes(said))
    output.result({"receivers": receivers, "routes": [route.model_dump(by_alias=True) for route in said.in_order()]})
    return FAILED if any(each["state"] == "failing" for each in receivers.values()) else FINE


@notify.command("test", examples=["visutility notify test chat", "visutility notify test chat --config visutility.yaml"])
@click.argument("receiver")
@click.option("--config", "file", metavar="FILE", help="Send from this process by this configuration; needs no system.")
@cluster
def test(*, receiver: str, file: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Send RECEIVER a message that says that it is a test. Exits 1 where that failed."""
    if file is not None:
        reason = _sent(receiver, file)
    else:
        reply = peers(address, namespace).call("notifier", "test", {"receiver": receiver}, timeout_s=_TEST_S)
        reason = reply["reason"]
    output.line(f"{receiver}: {'sent' if reason is None else reason}")
    output.result({"receiver": receiver, "sent": reason is None, "reason": reason})
    return FINE if reason is None else FAILED


@notify.command("preview", examples=["visutility notify preview EPISODE --storage sqlite:///./visutility-data"])
@click.argument("episode", metavar="EPISODE|ORDER")
@stored
@cluster
def preview(*, episode: str, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Show each message about EPISODE, and who gets it."""
    if storage is None:
        found = peers(address, namespace).call("notifier", "preview", {"subject": episode}, timeout_s=_PATIENCE_S)
    else:
        from actors.notify.preview import read_url  # imports the store, 0.4 s

        found = read_url(storage, episode)
    for each in found:
        output.line(f"to {each['receiver']}: {each['title']}")
        for line in each["text"].splitlines():
            output.line(f"    {line}")
    if not found:
        output.line(f"nobody is told of {episode}")
    output.result(found)
    return FINE


def _sent(receiver: str, file: str) -> str | None:
    from actors.config import load  # 0.4 s; help does without
    from actors.notify import receivers, texts
    from actors.notify.notification import ReceiverError
    from actors.notify.preview import test_message

    settings = load(file)
    said = settings.notify
    if receiver not in said.receivers:
        raise KeyError(f"receiver must be one of {', '.join(said.receivers) or '(there is none)'}, got {receiver!r}")
    try:
        receivers.make(said.receivers[receiver]).send(texts.written(test_message(receiver, time.time()), settings))
    except ReceiverError as error:
        return str(error)
    return None


def _routes(notify: NotifySettings) -> list[tuple[str, str, str]]:
    from actors.config import format_duration  # 0.4 s; help does without

    rows = []
    for route in notify.in_order():
        what = [route.models, *([route.labels] if route.labels else []), f"{route.least} or worse"]
        kinds = "" if route.kinds is None else f": {', '.join(route.kinds)}"
        by = f" by {', '.join(route.group_by)}" if route.group_by else ""
        quiet = "" if route.quiet is None else f", quiet {route.quiet.start}-{route.quiet.end} {route.quiet.zone}"
        rows.append(
            (", ".join(route.receivers), " ".join(what) + kinds, f"after {format_duration(route.group_wait_s)}{by}{quiet}")
        )
    return rows


def _running_settings(namespace: str | None) -> Settings:
    from actors.cluster import card, deployment, lifecycle  # imports Ray, 0.4 s

    known = card.read(namespace or DEFAULT_NAMESPACE)
    if known is None:
        raise deployment.no_system(namespace or DEFAULT_NAMESPACE)
    return lifecycle.running_settings(known)


def _stored_settings(storage: str) -> Settings:
    from actors.config.stored import load_stored  # imports the store, 0.4 s
    from actors.storage import StoreReader

    with contextlib.closing(StoreReader(storage)) as store:
        return load_stored(store)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility notify`."""
    return run(notify, argv)


if __name__ == "__main__":
    sys.exit(main())

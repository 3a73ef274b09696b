"""What people would be told of one episode or order, without telling it."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TypedDict

from actors import happenings
from actors.config import Settings
from actors.config.stored import load_stored
from actors.notify import texts
from actors.notify.notification import Notification, Told
from actors.notify.rules.group import LASTING
from actors.notify.rules.routing import Way, ways
from actors.replies import happening
from actors.storage import Store, StoreReader

_ROWS = 20_000


class Preview(TypedDict):
    """One message as a receiver would get it."""

    receiver: str
    happening: str
    title: str
    text: str
    link: str | None


def read_url(url: str, subject: str) -> list[Preview]:
    """Return what the receivers of a store's configuration would be told of an episode or order. KeyError: it has none such."""
    with contextlib.closing(StoreReader(url)) as store:
        return read(store, subject)


def read(store: Store, subject: str) -> list[Preview]:
    """Return the same for a store that is open."""
    settings = load_stored(store)
    rows = [row for row in happenings.newest(store, limit=_ROWS) if row["subject"] == subject]
    if not rows:
        raise KeyError(f"episode must be one of which something has happened, got {subject!r}")
    over = next((row for row in rows if row["kind"] == "recovered"), None)
    found: list[Preview] = []
    for row in reversed(rows):
        labels = settings.labels_of(row["model"] or "")
        for way in ways(row, labels, settings.notify.in_order()):
            told: Told = {"happening": row, "labels": labels}
            found.append(_shown(told, way, settings))
            if over is not None and row["kind"] in LASTING and way.route.resolved:
                found.append(_shown({**told, "resolved": over}, way, settings))
    return found


def _shown(told: Told, way: Way, settings: Settings) -> Preview:
    row = told["happening"]
    rows = ([], [told]) if "resolved" in told else ([told], [])
    message = texts.written(Notification("preview", way.receiver, row["at"], row["severity"], dict(way.group), *rows), settings)
    return {
        "receiver": way.receiver,
        "happening": row["id"],
        "title": message.title,
        "text": message.text,
        "link": message.link,
    }


def test_message(receiver: str, now_s: float) -> Notification:
    """Return a message that says that it is a test."""
    happened = happening("warning", f"test:{now_s!r}", now_s, "warning", data={"test": True})
    return Notification(
        id=hashlib.sha256(repr(now_s).encode()).hexdigest()[:32],
        receiver=receiver,
        at=now_s,
        severity="warning",
        group={},
        firing=[{"happening": happened, "labels": {}}],
        resolved=[],
    )

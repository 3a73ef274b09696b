"""The words of a message: a title, a line for each happening, a link; by templates of the configuration, or our own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from actors.checks import brief
from actors.config import Settings
from actors.config.notify_checks import compiled
from actors.notify.notification import Notification, Told
from actors.replies import Happening, HappeningKind

logger = logging.getLogger(__name__)

_LINES: Final = 20
_NAMED: Final = 3
_WORDS: Final[dict[HappeningKind, str]] = {
    "alarm": "{metric} has drifted",
    "warning": "has not recovered after its retrain",
    "no_data": "no data",
    "order_launched": "retrain launched",
    "order_done": "retrain done",
    "order_failed": "retrain failed",
    "order_dead": "retrain could not be launched",
    "gave_up": "asks for no more retrains",
    "verdict": "verdict on a retrain",
    "promoted": "version promoted",
    "rolled_back": "version rolled back",
    "acknowledged": "acknowledged",
    "judged": "alarm judged",
    "silenced": "silenced",
    "triggered": "retrain triggered",
    "retried": "retrain tried again",
    "dismissed": "retrain dismissed",
    "store_trouble": "trouble with the store",
    "actor_down": "actor was down",
}


def written(notification: Notification, settings: Settings) -> Notification:
    """Return the message with its title, text and link. A template that fails is logged, and our own words take its place."""
    notify, base = settings.notify, settings.ui.url
    everything = [*notification.firing, *notification.resolved]
    link = None if base is None else base + (path(everything[0]["happening"]) if len(everything) == 1 else "/episodes")
    ready = replace(notification, link=link, base=base)
    ready = replace(ready, title=_filled(notify.title, ready) or title(ready))
    return replace(ready, text=_filled(notify.text, ready) or text(ready))


def title(notification: Notification) -> str:
    """Return one line: how many fire, what, and of which models."""
    counts = [f"{len(told)} {word}" for told, word in ((notification.firing, "new"), (notification.resolved, "over")) if told]
    everything = [*notification.firing, *notification.resolved]
    kinds = list(dict.fromkeys(words(each["happening"]) for each in everything))
    models = list(dict.fromkeys(each["happening"]["model"] or "system" for each in everything))
    if len(everything) == 1:
        return f"{'Over: ' if notification.resolved else ''}{models[0]}: {kinds[0]}"
    return f"[{', '.join(counts)}] {_some(models)}: {_some(kinds)}"


def text(notification: Notification) -> str:
    """Return a line for each happening, the first 20, with their links."""
    head = ["", "Over:"] if notification.resolved and notification.firing else []
    lines = [*_listed(notification.firing, notification.base), *head, *_listed(notification.resolved, notification.base)]
    return "\n".join(lines)


def words(happened: Happening) -> str:
    """Say in a few words what has happened."""
    if happened["data"].get("test"):
        return "a test, nothing has happened"
    said = _WORDS.get(happened["kind"], happened["kind"]).format(metric=happened["metric"] or "a metric")
    return f"{said}: {happened['subject']}" if happened["kind"] == "actor_down" else said


def line(told: Told) -> str:
    """Say what has happened in one line: when, to which model, why."""
    happened = told["happening"]
    parts = [happened["model"] or "system", happened["version"] or ""]
    why = happened["comment"] or happened["data"].get("why") or happened["data"].get("reason") or ""
    who = f" by {happened['by']}" if happened["by"] else ""
    over = f", over since {_time(told['resolved']['at'])}" if "resolved" in told else ""
    said = f"{_time(happened['at'])} {' '.join(filter(None, parts))}: {words(happened)}{who}{over}"
    return f"{said} ({why})" if why else said


def path(happened: Happening) -> str:
    """Return the page of a happening, below the link's base."""
    if happened["kind"] == "silenced" or happened["model"] is None:
        return "/system"
    if happened["subject"]:
        return f"/episodes/{quote(happened['subject'], safe='')}"
    return f"/models/{quote(happened['model'], safe='')}"


def _listed(some: Sequence[Told], base: str | None) -> list[str]:
    lines = []
    for told in some[:_LINES]:
        lines.append(line(told))
        if base is not None:
            lines.append(f"  {base}{path(told['happening'])}")
    return [*lines, *([f"and {len(some) - _LINES} more"] if len(some) > _LINES else [])]


def _filled(template: str | None, notification: Notification) -> str | None:
    if template is None:
        return None
    try:
        return compiled(template).render(
            title=title(notification),
            severity=notification.severity,
            group=notification.group,
            firing=[_plain(told) for told in notification.firing],
            resolved=[_plain(told) for told in notification.resolved],
            link=notification.link or "",
            receiver=notification.receiver,
        )
    except Exception as error:  # noqa: BLE001  a template may fail as it likes: the message goes out all the same
        logger.warning("a template of notify fails, the message has our own words: %s", brief(error))
        return None


def _plain(told: Told) -> dict[str, object]:
    return {**told["happening"], "labels": told["labels"], "words": words(told["happening"]), "line": line(told)}


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")

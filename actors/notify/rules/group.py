"""One group: the happenings of one message, when it is due, and what has been sent.

The first of a group waits `wait_s` for others; a later one comes `interval_s` after the message before, and what still fires is
told again every `repeat_s`. Nothing that came in leaves before it has been in a message that was delivered.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable
from typing import Final, NotRequired, TypedDict

from actors.config.notify import QuietHours, Route
from actors.notify.notification import Told
from actors.replies import Happening, HappeningKind, Severity

# What lasts until `recovered` with the same subject; anything else has happened, and is told once.
LASTING: Final[frozenset[HappeningKind]] = frozenset({"alarm", "no_data"})


class Alert(Told):
    """One happening in a group. `told`: a message with it was delivered; `seen`: a person knows, it is not repeated."""

    told: bool
    seen: bool


class Timing(TypedDict):
    """When a group is told; copied from its route, so that a changed configuration loses nothing of what waits."""

    wait_s: float
    interval_s: float
    repeat_s: float | None
    resolved: bool
    silences: bool
    quiet: str | None  # QuietHours as JSON
    stateful: bool  # the receiver keeps what fires by itself, as long as it is repeated: Alertmanager


class Sending(TypedDict):
    """A message on its way: the same until it is delivered."""

    id: str
    at: float
    alerts: list[Told]


class Group(TypedDict):
    """The state of a group, as plain values."""

    receiver: str
    group: dict[str, str]
    timing: Timing
    alerts: dict[str, Alert]
    news_at: float | None  # when news is told; None: there is none
    sent_at: float | None
    sending: NotRequired[Sending]


Holds = Callable[[Alert, Timing], bool]


def timing_of(route: Route, resend_s: float | None) -> Timing:
    """Return when groups of a route are told; `resend_s` where the receiver groups and repeats by itself."""
    is_stateful = resend_s is not None
    return {
        "wait_s": 0.0 if is_stateful else route.group_wait_s,
        "interval_s": 0.0 if is_stateful else route.group_interval_s,
        "repeat_s": resend_s if is_stateful else route.repeat_every_s,
        "resolved": is_stateful or route.resolved,
        "silences": route.silences == "hold",
        "quiet": None if route.quiet is None else route.quiet.model_dump_json(by_alias=True),
        "stateful": is_stateful,
    }


def is_quiet(timing: Timing, severity: Severity, now_s: float) -> bool:
    """Return whether the group's quiet hours hold news of this severity."""
    return timing["quiet"] is not None and _quiet_hours(timing["quiet"]).hold(severity, now_s)


@functools.lru_cache(maxsize=1000)
def _quiet_hours(written: str) -> QuietHours:
    return QuietHours.model_validate_json(written)


def add(group: Group, happened: Happening, labels: dict[str, str], now_s: float) -> bool:
    """Take a happening in; False where the group has it already."""
    if happened["id"] in group["alerts"]:
        return False
    group["alerts"][happened["id"]] = {"happening": happened, "labels": labels, "told": False, "seen": False}
    _news(group, now_s)
    return True


def resolve(group: Group, id_: str, recovered: Happening, now_s: float) -> None:
    """Note that what lasted is over."""
    alert = group["alerts"][id_]
    if "resolved" in alert:
        return
    alert["resolved"] = recovered
    if alert["told"] and not group["timing"]["resolved"] and "sending" not in group:
        del group["alerts"][id_]
    else:
        _news(group, now_s)


def begin(group: Group, key: str, now_s: float, holds: Holds) -> Sending | None:
    """Return the message that is due, and keep it in the group until it is delivered; None where none is due.

    Its id is made of the group's `key`, the time and what it tells: no other message has it.
    """
    timing = group["timing"]
    free = [alert for alert in group["alerts"].values() if not holds(alert, timing)]
    news_at, repeat_at = group["news_at"], _repeat_at(group)
    has_news = news_at is not None and news_at <= now_s and any(_is_news(alert) for alert in free)
    if not has_news and not (repeat_at <= now_s and any(_repeats(alert, timing) for alert in free)):
        return None
    told = [(id_, "resolved" in alert) for id_, alert in group["alerts"].items()]
    made_of = json.dumps([key, now_s, told]).encode()
    alerts = [_told(alert) for alert in free]
    group["sending"] = {"id": hashlib.sha256(made_of).hexdigest()[:32], "at": now_s, "alerts": alerts}
    return group["sending"]


def delivered(group: Group, now_s: float) -> None:
    """Note that the message on its way was delivered."""
    sending = group.pop("sending")
    for told in sending["alerts"]:
        id_ = told["happening"]["id"]
        alert = group["alerts"].get(id_)
        if alert is None:
            continue
        alert["told"] = True
        unsaid = "resolved" in alert and not group["timing"]["resolved"]
        if "resolved" in told or told["happening"]["kind"] not in LASTING or unsaid:
            del group["alerts"][id_]
    group["sent_at"] = now_s
    group["news_at"] = None
    if any(_is_news(alert) for alert in group["alerts"].values()):
        _news(group, now_s)


def is_over(group: Group, now_s: float) -> bool:
    """Return whether nothing is left of the group: also not that its next message has to keep its distance from the last."""
    sent_at = group["sent_at"]
    return (
        not group["alerts"] and "sending" not in group and (sent_at is None or now_s >= sent_at + group["timing"]["interval_s"])
    )


def next_at(group: Group, holds: Holds) -> float:
    """Return when something of the group may be due, as far as time alone decides."""
    if "sending" in group:
        return math.inf  # its next time is set when the delivery ends
    free = [alert for alert in group["alerts"].values() if not holds(alert, group["timing"])]
    news_at = group["news_at"]
    at = news_at if news_at is not None and any(_is_news(alert) for alert in free) else math.inf
    if any(_repeats(alert, group["timing"]) for alert in free):
        at = min(at, _repeat_at(group))
    if not group["alerts"] and group["sent_at"] is not None:
        at = min(at, group["sent_at"] + group["timing"]["interval_s"])
    return at


def _news(group: Group, now_s: float) -> None:
    sent_at, timing = group["sent_at"], group["timing"]
    at = now_s + timing["wait_s"] if sent_at is None else max(now_s, sent_at + timing["interval_s"])
    group["news_at"] = at if group["news_at"] is None else min(group["news_at"], at)


def _repeat_at(group: Group) -> float:
    sent_at, repeat_s = group["sent_at"], group["timing"]["repeat_s"]
    return math.inf if sent_at is None or repeat_s is None else sent_at + repeat_s


def _is_news(alert: Alert) -> bool:
    return not alert["told"] or "resolved" in alert


def _repeats(alert: Alert, timing: Timing) -> bool:
    return alert["told"] and "resolved" not in alert and (timing["stateful"] or not alert["seen"])


def _told(alert: Alert) -> Told:
    told: Told = {"happening": alert["happening"], "labels": alert["labels"]}
    if "resolved" in alert:
        told["resolved"] = alert["resolved"]
    return told

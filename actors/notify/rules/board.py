"""All groups and how each receiver does: takes happenings in, says what is to be sent now, and learns what came of it.

It reads no clock and does no I/O: `state` and `restore` are exact, so that a process goes on where its predecessor was killed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypedDict

from actors.config.notify import SEVERITIES, Route
from actors.notify.notification import Notification
from actors.notify.rules import group as groups
from actors.notify.rules.group import Alert, Group, Sending, Timing
from actors.notify.rules.routing import Way, ways
from actors.replies import Happening

_FIRST_S: Final = 5.0
_LONGEST_S: Final = 600.0
_PROBLEM: Final = 500
_SEEN: Final = frozenset({"acknowledged", "judged"})


class Health(TypedDict):
    """How a receiver does; `lost` were refused for good. While it fails it is tried again at `retry_at`."""

    sent: int
    failed: int
    lost: int
    failures: int  # in a row
    retry_at: float
    problem: str | None
    last_at: float | None


class Outgoing(NamedTuple):
    """A message that is to be sent, and the key of its group."""

    key: str
    notification: Notification


Silenced = Callable[[str, Mapping[str, str]], bool]


class Board:
    """The notifications per receiver.

    `changed` and `health_changed` name unsaved state; the code that stores it clears them.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Begin empty, or where `state` left off."""
        self._groups: dict[str, Group] = dict((state or {}).get("groups", {}))
        self.health: dict[str, Health] = dict((state or {}).get("health", {}))
        self.changed: set[str] = set()
        self.health_changed: set[str] = set()
        self._lasting: dict[str, set[tuple[str, str]]] = {}  # by subject: (group, id)
        for key, group in self._groups.items():
            for alert in group["alerts"].values():
                self._index(key, alert["happening"])

    def state(self) -> dict[str, Any]:
        """Return everything, as plain values."""
        copied: dict[str, Any] = json.loads(json.dumps({"groups": self._groups, "health": self.health}))
        return copied

    def group(self, key: str) -> Group | None:
        """Return a group; None where it is over."""
        return self._groups.get(key)

    def take(
        self,
        happened: Happening,
        labels: dict[str, str],
        routes: Sequence[Route],
        resends: Mapping[str, float],
        now_s: float,
    ) -> None:
        """Take one happening in; `resends` are the receivers that group and repeat by themselves, with their periods."""
        subject = happened["subject"] or ""
        if happened["kind"] == "recovered":
            for key, id_ in sorted(self._lasting.get(subject, ())):
                groups.resolve(self._groups[key], id_, happened, now_s)
                self.changed.add(key)
                if id_ not in self._groups[key]["alerts"]:
                    self._unindex(key, {**happened, "id": id_})
            return
        if happened["kind"] in _SEEN:
            for key, id_ in self._lasting.get(subject, ()):
                self._groups[key]["alerts"][id_]["seen"] = True
                self.changed.add(key)
        for way in ways(happened, labels, routes):
            timing = groups.timing_of(way.route, resends.get(way.receiver))
            key = _key(way, timing)
            group = self._groups.get(key)
            if group is None:
                by = {} if timing["stateful"] else dict(way.group)
                group = self._groups[key] = {
                    "receiver": way.receiver,
                    "group": by,
                    "timing": timing,
                    "alerts": {},
                    "news_at": None,
                    "sent_at": None,
                }
            if groups.add(group, happened, labels, now_s):
                self._index(key, happened)
                self.changed.add(key)

    def keep(self, receivers: Iterable[str]) -> list[str]:
        """Forget all other receivers, and return the names of those that something was still waiting for."""
        known = set(receivers)
        gone = [key for key, group in self._groups.items() if group["receiver"] not in known]
        dropped = sorted({self._groups[key]["receiver"] for key in gone if self._groups[key]["alerts"]})
        for key in gone:
            self._remove(key)
        for name in self.health.keys() - known:
            del self.health[name]
            self.health_changed.add(name)
        return dropped

    def due(self, now_s: float, busy: Iterable[str] = (), silenced: Silenced = lambda _model, _labels: False) -> list[Outgoing]:
        """Return what is to be sent now; a receiver among `busy`, or one that is to be left alone for a while, gets nothing.

        A message that is not delivered yet comes again as it was.
        """
        occupied = set(busy)
        found = []
        for key, group in list(self._groups.items()):
            receiver = group["receiver"]
            health = self.health.get(receiver)
            if receiver in occupied or (health is not None and health["retry_at"] > now_s):
                continue
            waits = "sending" in group
            sending = group["sending"] if waits else groups.begin(group, key, now_s, self._holds(now_s, silenced))
            if sending is not None:
                if not waits:
                    self.changed.add(key)
                found.append(Outgoing(key, _notification(group, sending)))
            elif groups.is_over(group, now_s):
                self._remove(key)
        return found

    def next_at(self, now_s: float, silenced: Silenced = lambda _model, _labels: False) -> float:
        """Return when to look again, if nothing comes in until then."""
        holds = self._holds(now_s, silenced)
        at = math.inf
        for group in self._groups.values():
            health = self.health.get(group["receiver"])
            wait_until = 0.0 if health is None else health["retry_at"]
            at = min(at, max(wait_until, now_s) if "sending" in group else max(groups.next_at(group, holds), wait_until))
        return at

    def delivered(self, key: str, now_s: float) -> None:
        """Note that the message of a group was delivered."""
        health = self._ended(key, now_s)
        health["sent"] += 1
        health["problem"] = None

    def refused(self, key: str, problem: str, now_s: float) -> None:
        """Note that the message of a group was refused for good: it is not sent again, and what follows is."""
        health = self._ended(key, now_s)
        health["lost"] += 1
        health["problem"] = problem[:_PROBLEM]

    def failed(self, key: str, problem: str, now_s: float, after_s: float | None = None) -> int:
        """Note that the message of a group could not be delivered, and return how often in a row its receiver has failed.

        The receiver is left alone for a while, twice as long each time; for `after_s` at least, where it asks for that.
        """
        health = self._health(self._groups[key]["receiver"])
        health["failed"] += 1
        health["failures"] += 1
        pause_s = min(_FIRST_S * 2.0 ** min(health["failures"] - 1, 20), _LONGEST_S)
        health["retry_at"] = now_s + max(pause_s, min(after_s or 0.0, _LONGEST_S))
        health["problem"] = problem[:_PROBLEM]
        return health["failures"]

    def _ended(self, key: str, now_s: float) -> Health:
        group = self._groups[key]
        before = list(group["alerts"].values())
        groups.delivered(group, now_s)
        for alert in before:
            if alert["happening"]["id"] not in group["alerts"]:
                self._unindex(key, alert["happening"])
        self.changed.add(key)
        if groups.is_over(group, now_s):
            self._remove(key)
        health = self._health(group["receiver"])
        health["failures"], health["retry_at"], health["last_at"] = 0, 0.0, now_s
        return health

    def _health(self, receiver: str) -> Health:
        self.health_changed.add(receiver)
        return self.health.setdefault(
            receiver, {"sent": 0, "failed": 0, "lost": 0, "failures": 0, "retry_at": 0.0, "problem": None, "last_at": None}
        )

    def _holds(self, now_s: float, silenced: Silenced) -> groups.Holds:
        def holds(alert: Alert, timing: Timing) -> bool:
            happened = alert["happening"]
            if timing["stateful"] and alert["told"]:
                return False  # the receiver shows it already, and would take it for over
            if groups.is_quiet(timing, happened["severity"], now_s):
                return True
            return timing["silences"] and happened["model"] is not None and silenced(happened["model"], alert["labels"])

        return holds

    def _remove(self, key: str) -> None:
        for alert in self._groups.pop(key)["alerts"].values():
            self._unindex(key, alert["happening"])
        self.changed.add(key)

    def _index(self, key: str, happened: Happening) -> None:
        if happened["kind"] in groups.LASTING and happened["subject"]:
            self._lasting.setdefault(happened["subject"], set()).add((key, happened["id"]))

    def _unindex(self, key: str, happened: Happening) -> None:
        of_subject = self._lasting.get(happened["subject"] or "")
        if of_subject is not None:
            of_subject.discard((key, happened["id"]))
            if not of_subject:
                del self._lasting[happened["subject"] or ""]


def _key(way: Way, timing: Timing) -> str:
    said = json.dumps([way.receiver, timing, [] if timing["stateful"] else way.group], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _notification(group: Group, sending: Sending) -> Notification:
    firing = [told for told in sending["alerts"] if "resolved" not in told]
    severities = [SEVERITIES.index(told["happening"]["severity"]) for told in firing]
    return Notification(
        id=sending["id"],
        receiver=group["receiver"],
        at=sending["at"],
        severity=SEVERITIES[max(severities, default=0)],
        group=group["group"],
        firing=firing,
        resolved=[told for told in sending["alerts"] if "resolved" in told],
    )

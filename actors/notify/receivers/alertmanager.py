"""Prometheus' Alertmanager, by its API v2: an alert for each happening, which it groups, silences and passes on.

What lasts is sent again, and ends a while after it was sent last; once it is over it is sent with its end. Anything else fires
for five minutes, since Alertmanager passes on what fires. Alerts with the same labels are one alert.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from actors.config.notify import AlertmanagerSettings
from actors.notify import texts
from actors.notify.notification import Notification, Told
from actors.notify.receivers.http import deliver, encoded
from actors.notify.rules.group import LASTING

_AT_ONCE: Final = 1000
_LEAST_S: Final = 300.0
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_]")


class Alertmanager:
    """Posts alerts; the same again is the same alert."""

    def __init__(self, settings: AlertmanagerSettings, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now_s = now_s

    def send(self, notification: Notification) -> None:
        """Post every alert of the message."""
        url = f"{self._settings.url.rstrip('/')}/api/v2/alerts"
        alerts = [self._alert(told, notification) for told in (*notification.firing, *notification.resolved)]
        for start in range(0, len(alerts), _AT_ONCE):
            deliver(url, encoded(alerts[start : start + _AT_ONCE]), self._settings.headers, self._settings.timeout_s)

    def _alert(self, told: Told, notification: Notification) -> dict[str, Any]:
        happened = told["happening"]
        began = happened["at"]
        lasts_s = max(4 * self._settings.resend_s, _LEAST_S) if happened["kind"] in LASTING else _LEAST_S
        ends = told["resolved"]["at"] if "resolved" in told else self._now_s() + lasts_s
        labels = {
            "alertname": "VisuTility" + "".join(part.capitalize() for part in happened["kind"].split("_")),
            "id": happened["id"],
            "kind": happened["kind"],
            "severity": happened["severity"],
            "model": happened["model"],
            "version": happened["version"],
            "metric": happened["metric"],
            **{f"label_{_NO_NAME.sub('_', name)}": value for name, value in told["labels"].items()},
        }
        alert = {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {
                "summary": f"{happened['model'] or 'system'}: {texts.words(happened)}",
                "description": texts.line({"happening": happened, "labels": told["labels"]}),
            },
            "startsAt": _written(began),
            "endsAt": _written(max(began, ends)),
        }
        if notification.base is not None:
            alert["generatorURL"] = notification.base + texts.path(happened)
        return alert


def _written(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()

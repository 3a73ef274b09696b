"""Slack, Teams, e-mail, PagerDuty and others by the package Apprise, which knows each by one URL."""

from __future__ import annotations

import importlib.util
from typing import Final

from actors.config.notify import AppriseSettings
from actors.notify.notification import Notification, ReceiverError
from actors.replies import Severity

_TYPES: Final[dict[Severity, str]] = {"info": "info", "warning": "warning", "critical": "failure"}


class Apprise:
    """Sends a title and a text."""

    def __init__(self, settings: AppriseSettings) -> None:
        if importlib.util.find_spec("apprise") is None:
            raise ReceiverError("apprise needs: pip install 'visutility[notify]'")
        import apprise  # noqa: PLC0415  in an extra; 0.5 s

        self._target = apprise.Apprise(asset=apprise.AppriseAsset(app_id="VisuTility", async_mode=False))
        if not self._target.add(settings.url):
            raise ReceiverError("url must be one that Apprise knows: see its log for what is wrong with it")

    def send(self, notification: Notification) -> None:
        """Send it; Apprise has time-outs of its own, and says in its log why it could not."""
        kind = _TYPES[notification.severity] if notification.firing else "success"
        if not self._target.notify(title=notification.title, body=notification.text, notify_type=kind, body_format="text"):
            raise ReceiverError("Apprise could not deliver it: the log of the notifier says why")

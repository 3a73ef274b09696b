"""A webhook: JSON, signed by Standard Webhooks, with the same `webhook-id` on every resend."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from actors.config.notify import WebhookReceiverSettings
from actors.notify.notification import Notification
from actors.notify.receivers.http import deliver, encoded
from actors.retraining.handlers.webhook import standard_signature

TYPE = "io.visutility.notification.v1"


class Webhook:
    """Posts a message; the receiver tells resends by the id."""

    def __init__(self, settings: WebhookReceiverSettings, secret: str | None, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._secret = secret
        self._now_s = now_s

    def send(self, notification: Notification) -> None:
        """Post it."""
        body = encoded(
            {
                "type": TYPE,
                "timestamp": datetime.fromtimestamp(notification.at, UTC).isoformat(),
                "data": {
                    "id": notification.id,
                    "title": notification.title,
                    "text": notification.text,
                    "severity": notification.severity,
                    "group": dict(notification.group),
                    "link": notification.link,
                    "firing": list(notification.firing),
                    "resolved": list(notification.resolved),
                },
            }
        )
        signed = {} if self._secret is None else standard_signature(self._secret, notification.id, int(self._now_s()), body)
        headers = {"webhook-id": notification.id, **self._settings.headers, **signed}
        deliver(self._settings.url, body, headers, self._settings.timeout_s)

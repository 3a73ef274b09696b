"""`webhook`: the order is posted as a CloudEvent 1.0 (JSON, structured mode), with the same id on every resend.

How far "once" goes: a receiver that keeps the ids it has seen acts once. 2xx is done; 410 stops for good; 429 and 503 are
tried again not before their Retry-After; everything else, a time-out and a lost connection too, by the delivery schedule.
Redirects are not followed. With a secret, a delivery is signed by Standard Webhooks (`webhook-id`, `webhook-timestamp`,
`webhook-signature`), so that it cannot be replayed; `X-Visutility-Signature: sha256=HEX`, the HMAC of the body alone, stays for
one release. Neither the secret nor the URL, which may hold one, is ever part of a reason or a log.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from actors import config
from actors.plain import Json
from actors.retraining.handlers.http import ask
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.rows import plain
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Outcome, Retry, Stop
from actors.retraining.rules.orders import Order

# The type of the event says what has happened: drift, or a request for another reason, or a decision about versions.
TYPES: Final[Mapping[str, str]] = {
    orders.ALARM: "io.visutility.drift.detected.v1",
    orders.SHORTFALL: "io.visutility.retrain.requested.v1",
    orders.AGE: "io.visutility.retrain.requested.v1",
    orders.MANUAL: "io.visutility.retrain.requested.v1",
    orders.PROMOTED: "io.visutility.version.promoted.v1",
    orders.ROLLED_BACK: "io.visutility.version.rolled_back.v1",
}
_PREFIX: Final = "whsec_"
# The socket's own time-outs are per read; this ends an answer that drips.
_BEYOND_TIMEOUT_S: Final = 2.0


class WebhookHandler:
    """Posts an order until it is taken; the receiver tells resends by the id."""

    def __init__(
        self,
        settings: config.WebhookHandlerSettings,
        surroundings: Surroundings,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._now_s = now_s  # for a Retry-After that names a date

    async def launch(self, order: Order) -> Outcome:
        """Post once."""
        settings = self._settings.expanded(self._surroundings.environment)
        body = json.dumps(cloud_event(order, self._surroundings.namespace), allow_nan=False).encode()
        headers = {
            **settings.headers,
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "visutility",
            **self._signatures(order.id, body),
        }
        try:
            status, retry_after = await self._surroundings.in_thread(
                lambda: post(settings.url, body, headers, settings.timeout_s),
                timeout_s=settings.timeout_s + _BEYOND_TIMEOUT_S,
            )
        except TimeoutError:
            return Retry(f"no answer within {settings.timeout_s:g} s", silent=True)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Only the kind: the text may quote the URL or a header.
            return Retry(f"no answer: {type(error).__name__}", silent=True)
        return judged(status, retry_after, self._now_s())

    async def follow(self, order: Order) -> Outcome:
        """Nobody knows what an attempt came to whose process died; the id makes it safe to send again."""
        return Retry(f"the outcome of attempt {order.attempts} is unknown: resending with the same id", after_s=0)

    async def stop(self, order: Order) -> bool:
        """Nothing runs here: an attempt ends with its time-out."""
        return True

    async def forget(self, order: Order) -> None:
        """Nothing is kept."""

    def _signatures(self, id_: str, body: bytes) -> dict[str, str]:
        name = self._settings.secret_env
        if name is None:
            return {}
        secret = self._surroundings.environment.get(name)
        if not secret:
            raise ValueError(f"secret_env: the environment of the dispatcher has no {name}")
        # The old header says nothing about when; it stays for one release.
        old = {"X-Visutility-Signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}
        return old | standard_signature(secret, id_, int(self._now_s()), body)


def standard_signature(secret: str, id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks: a receiver that checks them, and the time, takes no replay.

    A secret that begins with `whsec_` holds its bytes as base64, as that specification writes secrets; the bytes of any other
    are its text in UTF-8, which a receiver's library gets as `whsec_` and the base64 of these bytes.
    """
    written = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(written, validate=True) if written != secret else secret.encode()
        signer = Webhook(key)
    except (ValueError, EmptyWebhookSecretError):
        raise ValueError(f"secret_env: a secret that begins with {_PREFIX} must continue in base64") from None
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signer.sign(id_, datetime.fromtimestamp(at_s, UTC), body.decode()),
    }


def cloud_event(order: Order, namespace: str) -> Json:
    """Return an order as a CloudEvent 1.0; `id` is the order's, so every resend is the same event."""
    asked = order.request
    fields = plain(event_fields(order))
    return {
        "specversion": "1.0",
        "id": order.id,
        "source": f"/visutility/{quote(namespace, safe='')}",
        "type": TYPES[asked.cause],
        "subject": f"{asked.model}/{asked.version}",
        "time": datetime.fromtimestamp(asked.triggered_at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": fields,
    }


def judged(status: int, retry_after: str | None, now_s: float) -> Outcome:
    """Return what an HTTP status means for the order."""
    if 200 <= status < 300:
        return Done(reason=f"HTTP {status}")
    if status == http.HTTPStatus.GONE:
        return Stop("HTTP 410: the receiver is gone for good")
    if status in {http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE}:
        return Retry(f"HTTP {status}", after_s=seconds(retry_after, now_s))
    return Retry(f"HTTP {status}")


def seconds(retry_after: str | None, now_s: float) -> float | None:
    """Read Retry-After: seconds, or a date. At least a moment, since 0 would mean: ask again at once."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return max(float(retry_after), _MOMENT_S)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - now_s, _MOMENT_S)
    except (TypeError, ValueError):
        return None


_MOMENT_S: Final = 0.001


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, str | None]:
    """Return the status and the Retry-After of the answer; TimeoutError once `timeout_s` have passed, however it drips."""
    answer = ask("POST", url, body=body, headers=headers, timeout_s=timeout_s)
    return answer.status, answer.retry_after

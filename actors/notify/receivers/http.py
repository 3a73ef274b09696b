"""Posts JSON, and says what the answer means for a message."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from actors.notify.notification import ReceiverError
from actors.retraining.handlers.webhook import post, seconds

# The same bytes would be refused again.
_FOR_GOOD: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)


def encoded(value: object) -> bytes:
    """Return `value` as JSON."""
    return json.dumps(value, allow_nan=False, default=str).encode()


def deliver(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    """Post `body`; ReceiverError, which never names the URL, where the answer is none of success."""
    sent = {"Content-Type": "application/json", "User-Agent": "visutility", **headers}
    try:
        status, retry_after = post(url, body, sent, timeout_s)
    except TimeoutError:
        raise ReceiverError(f"no answer within {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Only the kind: the text may quote the URL or a header.
        raise ReceiverError(f"no answer: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise ReceiverError(f"HTTP {status}", for_good=status in _FOR_GOOD, after_s=seconds(retry_after, time.time()))

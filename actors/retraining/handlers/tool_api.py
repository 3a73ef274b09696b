"""Asks the API of a tool that runs retrains: an answer, or what to change so that there is one."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from actors.retraining.handlers.http import Answer, ask
from actors.retraining.handlers.webhook import seconds
from actors.retraining.rules.delivery import Retry, Stop

_REASON: Final = 300
_REFUSED: Final = {401, 403}
_UNUSABLE: Final = {400, 413, 422}


class RefusedError(Exception):
    """The tool has answered, and not with what was asked for."""

    def __init__(self, outcome: Retry | Stop, status: int = 0) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
        self.status = status


class Api:
    """A tool's API by its URL, with the credentials of the settings; `hints` say what to change, by HTTP status."""

    def __init__(self, settings: Any, hints: Mapping[int, str], *, ca_file: str | None = None) -> None:
        self._settings = settings
        self._hints = dict.fromkeys(_REFUSED, f"token or user and password are refused by {settings.url}") | dict(hints)
        self._ca_file = ca_file
        self.headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "visutility"}
        if settings.token is not None:
            self.headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.user is not None:
            pair = base64.b64encode(f"{settings.user}:{settings.password or ''}".encode()).decode()
            self.headers["Authorization"] = f"Basic {pair}"

    def ask(self, method: str, path: str, body: object = None, *, fine: tuple[int, ...] = ()) -> Answer:
        """Return an answer of 200 to 299 or one of `fine`; RefusedError names what to change."""
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        url = self._settings.url.rstrip("/") + path
        answer = ask(method, url, headers=self.headers, timeout_s=self._settings.timeout_s, body=content, ca_file=self._ca_file)
        if 200 <= answer.status < 300 or answer.status in fine:
            return answer
        said = " ".join(answer.body.decode(errors="replace").split())[:_REASON]
        reason = f"HTTP {answer.status}: {self._hints.get(answer.status) or said}"
        if answer.status in _UNUSABLE:
            raise RefusedError(Stop(reason), answer.status)
        raise RefusedError(Retry(reason, after_s=seconds(answer.retry_after, time.time())), answer.status)

    def json(self, method: str, path: str, body: object = None, *, fine: tuple[int, ...] = ()) -> Any:
        """Return the JSON of such an answer, None for a status of `fine`; RefusedError where it is no JSON."""
        answer = self.ask(method, path, body, fine=fine)
        if answer.status in fine:
            return None
        try:
            return answer.json()
        except ValueError:
            raise RefusedError(Retry(f"{self._settings.url} answered what is no JSON: is url that of the API?")) from None

"""Asks a server for JSON: a bounded answer within a bounded time, and an error that names the server and no secret."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Final

from actors.checks import redacted
from actors.plain import Json

MAX_BYTES: Final = 64 * 2**20
_REASON: Final = 300


class HttpError(RuntimeError):
    """A server gave no usable answer; `code` is that of HTTP where it gave any, and `reason` what it said with it."""

    def __init__(self, text: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class Http:
    """A server by its URL, with headers of its own.

    Example:
        Http("http://prometheus:9090").get("/api/v1/query", {"query": "up"})
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._timeout_s = timeout_s

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Json:
        """Return the answer to a GET. HttpError."""
        asked = f"?{urllib.parse.urlencode(query, doseq=True)}" if query else ""
        return self._ask(urllib.request.Request(f"{self._url}{path}{asked}", headers=self._headers), path)  # noqa: S310  checked by the configuration

    def post(self, path: str, body: Mapping[str, object], *, method: str = "POST") -> Json:
        """Return the answer to a POST of JSON. HttpError."""
        headers = {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310  as above
            f"{self._url}{path}", json.dumps(body).encode(), headers, method=method
        )
        return self._ask(request, path)

    def _ask(self, request: urllib.request.Request, path: str) -> Json:
        where = f"{redacted(self._url)}{path}"
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310  as above
                content = reply.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(_REASON).decode(errors="replace")
            reason = " ".join(said.split())
            raise HttpError(f"{where} answered {error.code}: {reason}", error.code, reason) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HttpError(f"{where} cannot be reached: {getattr(error, 'reason', error)}") from None
        if len(content) > MAX_BYTES:
            raise HttpError(f"{where} answered more than {MAX_BYTES} bytes")
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            raise HttpError(f"{where} did not answer with JSON: {content[:80]!r}") from None
        if not isinstance(found, dict):
            raise HttpError(f"{where} did not answer with a JSON object")
        return found

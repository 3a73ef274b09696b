"""One request over HTTP that ends in time, however the answer drips; redirects are not followed."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

_MAX_ANSWER_BYTES: Final = 2**20


class Answer(NamedTuple):
    """What came back; `body` is cut after 1 MiB."""

    status: int
    retry_after: str | None
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; ValueError where it is none."""
        return json.loads(self.body)


def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    body: bytes | None = None,
    ca_file: str | None = None,
) -> Answer:
    """Return the answer. TimeoutError once `timeout_s` have passed; OSError and HTTPException where there is none.

    Args:
        method: `GET`, `POST`, ...
        url: http or https.
        headers: those of the request.
        timeout_s: for the whole of it.
        body: what is sent.
        ca_file: the certificates that the server's is checked by; by default the machine's.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        trust = ssl.create_default_context(cafile=ca_file)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=trust)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    cut = threading.Event()
    # The socket's own time-outs are per read; this ends an answer that drips.
    end = threading.Timer(timeout_s, _cut, [connection, cut])
    end.start()
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        with connection.getresponse() as answer:
            content = answer.read(_MAX_ANSWER_BYTES)
            if cut.is_set():  # the end of the stream looks like the end of an answer
                raise TimeoutError
            return Answer(answer.status, answer.headers.get("Retry-After"), content)
    except (OSError, http.client.HTTPException):
        if cut.is_set():  # whatever the end of the stream was taken for
            raise TimeoutError from None
        raise
    finally:
        end.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection, cut: threading.Event) -> None:
    """End a connection from another thread: its reader gets an error, or the end of the stream."""
    cut.set()
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

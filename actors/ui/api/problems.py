"""Refusals as RFC 9457 has them, `application/problem+json`, with field, value and rule where one field is wrong."""

from __future__ import annotations

import http
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

from actors.checks import stand_in

MEDIA_TYPE: Final = "application/problem+json"


class FieldProblem(TypedDict):
    """What is wrong with one value; `field` is its path, like `events` or `by`."""

    field: str
    value: Any
    rule: str


class Problem(TypedDict):
    """Why a request was refused."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[FieldProblem]]
    retry_in_s: NotRequired[float]


class RefusedError(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[FieldProblem] = (), *, retry_in_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.retry_in_s = status, detail, list(errors), retry_in_s


def wrong(status: int, field: str, value: object, rule: str) -> RefusedError:
    """Return the refusal of one field.

    >>> wrong(422, "limit", 0, "must be 1 or more").detail
    'limit must be 1 or more, got 0'
    """
    short = stand_in(value)
    return RefusedError(status, f"{field} {rule}, got {short!r}", [{"field": field, "value": short, "rule": rule}])


def problem(status: int, detail: str, errors: Sequence[FieldProblem] = (), retry_in_s: float | None = None) -> Response:
    """Return the answer; `retry_in_s` is also in the header Retry-After, in whole seconds."""
    body: Problem = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers: dict[str, str] = {"cache-control": "no-store"}
    if errors:
        body["errors"] = list(errors)
    if retry_in_s is not None:
        body["retry_in_s"] = retry_in_s
        headers["retry-after"] = str(max(1, math.ceil(retry_in_s)))
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(encoded(body), status, headers=headers, media_type=MEDIA_TYPE)


def encoded(value: Any) -> bytes:
    """Return JSON as every reader takes it: a number that is not finite is null.

    >>> encoded({"statistic": float("inf")})
    b'{"statistic":null}'
    """
    try:
        return _dumped(value)
    except ValueError:
        return _dumped(_finite(value))


def _dumped(value: Any) -> bytes:
    # A lone half of a character, as JSON can write it, has no UTF-8.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value

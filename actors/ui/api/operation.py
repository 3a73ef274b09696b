"""One operation of the API: what it asks and answers, who may, and how a request becomes a call and its outcome an answer."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio.to_thread
import msgpack
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from actors import wire
from actors.checks import brief, shown, stand_in
from actors.storage import UNAVAILABLE, StoreError
from actors.ui.access import Visitor
from actors.ui.api import types
from actors.ui.api.problems import FieldProblem, RefusedError, encoded, problem
from actors.ui.backend import Backend

logger = logging.getLogger(__name__)

Right = Literal["read", "act", "log"]
JSON: Final = "application/json"
MSGPACK: Final = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})
_MAX_BODY: Final = 2**16
_RETRY_S: Final = 1.0
_REFUSALS: Final[Mapping[Right, str]] = {
    "read": "this needs the token of a reader or an operator: yours only posts events",
    "act": "this needs the operator's token",
    "log": "this needs the writer's or the operator's token: yours only reads",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked: the values of its path, its query and its body."""

    backend: Backend
    visitor: Visitor
    path: Mapping[str, str]
    query: Any
    body: Any
    wants: str = JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, and the ASGI application that answers it; `do` runs in a thread, and raises what `_refusal` knows."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    do: Callable[[Asked], Any]
    reply: Any
    right: Right = "read"
    query: type[types.Request] | None = None
    body: type[types.Request] | None = None
    packed: bool = False  # takes msgpack too, and bodies as large as the wire's calls
    refuses: tuple[int, ...] = ()
    limiter: anyio.CapacityLimiter | None = field(default=None, compare=False)

    def endpoint(self, backend: Backend) -> _Endpoint:
        """Return the application that answers this operation by `backend`."""
        return _Endpoint(self, backend)


class _Endpoint:
    def __init__(self, operation: Operation, backend: Backend) -> None:
        self._operation, self._backend = operation, backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        operation = self._operation
        visitor: Visitor = request.state.visitor
        try:
            _check_right(operation.right, visitor)
            body = await _read(request, operation) if operation.body is not None else b""
            kind = _kind(request)
            text = await anyio.to_thread.run_sync(
                self._done, dict(request.path_params), request.query_params.multi_items(), kind, body, visitor,
                limiter=operation.limiter,
            )  # fmt: skip
        except Exception as error:
            refused = _refusal(error)
            if refused is None:
                raise
            return problem(refused.status, refused.detail, refused.errors, refused.retry_in_s)
        return Response(text, media_type=JSON, headers={"cache-control": "no-store"})

    def _done(self, path: dict[str, str], query: list[tuple[str, str]], kind: str, body: bytes, visitor: Visitor) -> bytes:
        """Check the request, carry it out and write the answer; all in a thread, because a body may be large."""
        operation = self._operation
        for name, value in path.items():
            rule = wire.stored_rule(value)
            if rule is not None:
                raise KeyError(f"{name} {rule}, got {shown(value)}")
        asked = _query(operation, query)
        given = None
        if operation.body is not None:
            given = _checked(operation.body, _unpacked(kind, body))
        return encoded(operation.do(Asked(self._backend, visitor, path, asked, given)))


def _check_right(right: Right, visitor: Visitor) -> None:
    allowed = {"read": visitor.may_read, "act": visitor.may_act, "log": visitor.may_log}
    if not allowed[right]:
        raise RefusedError(403, _REFUSALS[right])


async def _read(request: Request, operation: Operation) -> bytes:
    kind = _kind(request)
    if kind != JSON and not (operation.packed and kind in MSGPACK):
        known = f"{JSON} or application/msgpack" if operation.packed else JSON
        raise RefusedError(415, f"content-type must be {known}, got {shown(request.headers.get('content-type'))}")
    most = wire.MAX_CALL_BYTES if operation.packed else _MAX_BODY
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise RefusedError(413, f"the body must have at most {most} bytes, got more")
    return bytes(found)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unpacked(kind: str, body: bytes) -> Any:
    try:
        # A time of msgpack becomes an aware datetime, which the wire knows.
        return msgpack.unpackb(body, timestamp=3, strict_map_key=False) if kind in MSGPACK else json.loads(body)
    except RecursionError:
        raise RefusedError(400, "the body must not be nested so deeply") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RefusedError(400, f"the body must be {'msgpack' if kind in MSGPACK else 'JSON'}: {shown(str(error))}") from None


def _query(operation: Operation, given: list[tuple[str, str]]) -> Any:
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise RefusedError(422, f"{shown(name)} must be given once, got {names.count(name)} times")
    return _checked(operation.query or types.Request, dict(given))


def _checked(kind: type[types.Request], value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise RefusedError(422, f"the body must be a mapping, got {shown(value)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found: list[FieldProblem] = []
        for each in error.errors(include_url=False, include_context=False):
            at = ".".join(map(str, each["loc"])) or "body"
            got = None if each["type"] == "missing" else each["input"]
            found.append({"field": shown(at).strip("'"), "value": stand_in(got), "rule": _rule(each["msg"])})
        first = found[0]
        raise RefusedError(422, f"{first['field']} {first['rule']}, got {shown(first['value'])}", found) from None


def _rule(message: str) -> str:
    """Say pydantic's message as a rule.

    >>> _rule("Input should be a valid string")
    'must be a valid string'
    """
    known = {"Field required": "must be given", "Extra inputs are not permitted": "is not known here"}
    return known.get(message) or re.sub("^(Input|String|Value) should |^Value error, must ", "must ", message)


def _refusal(error: Exception) -> RefusedError | None:
    """Return what a caller is told of an error; None for one that is a fault of ours."""
    message = str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, KeyError):
        return RefusedError(404, message)
    if isinstance(error, RecursionError):
        return RefusedError(422, "the body must not be nested so deeply")
    if isinstance(error, ValueError) and not isinstance(error, StoreError):  # a StoreError is a ValueError too
        return RefusedError(422, message)
    if isinstance(error, (StoreError, OSError, RuntimeError, *UNAVAILABLE)):
        logger.warning("the API could not answer: %s", brief(error))
        return RefusedError(503, brief(error).partition("\n")[0], retry_in_s=_RETRY_S)
    return None

"""MLflow's webhooks: a call whose signature is right has the registry looked at now. It says nothing that is believed.

So a call that is lost costs one interval of polling, and one that is sent twice a look.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import anyio.to_thread
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.config.values import expand
from actors.ui.api.problems import problem
from actors.ui.backend import Backend

PATH: Final = "/hooks/mlflow"
REGISTRY: Final = "registry.mlflow"
_MAX_BODY: Final = 2**16


def route(backend: Backend) -> Route:
    """Return what answers MLflow. No token is asked for: the signature is one."""

    async def answer(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                return problem(413, f"the body must have at most {_MAX_BODY} bytes, got more")
        return await anyio.to_thread.run_sync(_answered, backend, dict(request.headers), bytes(body))

    return Route(PATH, answer, methods=["POST"], name="mlflow_hook")


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Return whether MLflow signed this body with the secret, at most five minutes ago; as Standard Webhooks, by other headers.

    >>> is_signed({"x-mlflow-timestamp": "0"}, b"{}", "secret")
    False
    """
    said = {
        "webhook-id": headers.get("x-mlflow-delivery-id", ""),
        "webhook-timestamp": headers.get("x-mlflow-timestamp", ""),
        "webhook-signature": headers.get("x-mlflow-signature", ""),
    }
    try:
        Webhook(secret.encode()).verify(body, said, json_parse=False)
    except (WebhookVerificationError, ValueError):  # also what is no text or no base64
        return False
    return True


def _answered(backend: Backend, headers: Mapping[str, str], body: bytes) -> Response:
    registry = backend.settings().registry.mlflow
    if registry is None or registry.webhook_secret is None:
        return problem(404, "registry.mlflow.webhook_secret is not configured")
    try:
        secret = str(expand(registry.webhook_secret, os.environ))
    except ValueError as error:
        return problem(503, f"registry.mlflow.webhook_secret: {error}")
    if not is_signed(headers, body, secret):
        return problem(401, "the signature is not that of registry.mlflow.webhook_secret, or older than five minutes")
    try:
        backend.look(REGISTRY)
    except (OSError, RuntimeError) as error:
        return problem(503, f"the registry could not be looked at now: {error}")
    return Response(status_code=204)

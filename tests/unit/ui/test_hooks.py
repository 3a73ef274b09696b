"""MLflow's webhook: a right signature has the registry looked at, anything else does nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from actors import config
from actors.errors import NoSystemError
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend

SECRET, BODY = "s" * 32, b'{"entity":"model_version_alias","action":"created"}'
TOKENS = Access({"operator": "o" * 32})


class Looking(StoreBackend):
    """Notes which source is to be looked at."""

    looks: list[str]
    secret: str | None = "${HOOK_SECRET}"
    error: Exception | None = None

    def settings(self) -> config.Settings:
        mlflow = {"url": "http://m", "models": {"a": "b"}, "webhook_secret": self.secret}
        return config.load({"registry": {"mlflow": mlflow}})

    def look(self, source: str) -> None:
        if self.error is not None:
            raise self.error
        self.looks.append(source)


@pytest.fixture
def backend(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looking]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    made = Looking(url)
    made.looks = []
    yield made
    made.close()


def headers(body: bytes = BODY, *, secret: str = SECRET, at: str | None = None) -> dict[str, str]:
    """Return the headers with which MLflow 3.17 sends this body."""
    at = str(int(time.time())) if at is None else at
    signed = hmac.new(secret.encode(), b"d-1." + at.encode() + b"." + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "x-mlflow-delivery-id": "d-1",
        "x-mlflow-timestamp": at,
        "x-mlflow-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def posted(backend: Looking, said: dict[str, str], body: bytes = BODY) -> httpx2.Response:
    page = TestClient(create(backend, TOKENS), base_url="http://page.example/")
    answer: Any = page.post("/api/v1/hooks/mlflow", content=body, headers=said)
    return answer  # type: ignore[no-any-return]


def test_a_right_signature_needs_no_token_and_has_the_registry_looked_at(backend: Looking) -> None:
    assert posted(backend, headers()).status_code == 204
    assert backend.looks == ["registry.mlflow"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        headers(secret="x" * 32),
        headers(b"{}"),
        headers(at=str(int(time.time()) - 3600)),
        headers(at="-1"),
        headers(at="9" * 5000),
        headers() | {"x-mlflow-signature": "v1,"},
        headers() | {"x-mlflow-signature": "nonsense"},
        headers() | {"x-mlflow-delivery-id": "d-2"},
        {"authorization": f"Bearer {'o' * 32}"},
    ],
)
def test_no_wrong_or_old_signature_does_nothing(backend: Looking, said: dict[str, str]) -> None:
    answer = posted(backend, said)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert backend.looks == []


def test_a_body_that_is_no_text_is_refused(backend: Looking) -> None:
    assert posted(backend, headers(b"\xff"), b"\xff").status_code == 401
    assert backend.looks == []


def test_what_is_missing_is_said(backend: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    assert posted(backend, headers(body := b"x" * 2**17), body).status_code == 413
    backend.error = NoSystemError("no system")
    assert posted(backend, headers()).status_code == 503
    monkeypatch.delenv("HOOK_SECRET")
    answer = posted(backend, headers())
    assert answer.status_code == 503
    assert "HOOK_SECRET" in answer.text
    backend.secret = None
    assert posted(backend, headers()).status_code == 404


def test_a_secret_that_is_written_into_the_configuration_is_refused_and_not_shown() -> None:
    mlflow = {"url": "http://m", "models": {"a": "b"}, "webhook_secret": SECRET}
    with pytest.raises(ValueError, match="reference") as caught:
        config.load({"registry": {"mlflow": mlflow}})
    assert SECRET not in str(caught.value)

"""Schemathesis against the API on a store, and with a system that notes every act: `make test-ui`. Skipped without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from actors.metrics import raw_events
from actors.replies import Broadcasted
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from tests.unit.ui.conftest import NOW, Recorded, write

schemathesis = pytest.importorskip("schemathesis")
TOKEN = "o" * 32
HEADERS = {"authorization": f"Bearer {TOKEN}"}

# What a JSON schema cannot say of a text: whether it is a cursor or a selector; nor what must be given together.
_GRAMMARS = {
    "GET /happenings": ("after must be the `cursor`",),
    "GET /models": ("label must",),
    "GET /sequence": ("model_name must",),
    "POST /events": ("events of a call with a sequence must be of one", "sequence must be given", "producer must be given"),
}


class Counted(StoreBackend):
    """Checks events as the broadcaster does, and counts them."""

    def broadcast(self, events: list[Any], producer: str | None, sequence: int | None) -> Broadcasted:
        found = raw_events.sort_events(events, NOW, one_model=producer is not None and sequence is not None)
        return {"accepted": len(events) - len(found.rejected), "duplicates": 0, "rejected": found.rejected}

    def high_water(self, model: str, producer: str) -> int:
        assert model
        assert producer
        return 7


@pytest.fixture(scope="module", params=["store", "system"])
def schema(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    url = f"sqlite:///{tmp_path_factory.mktemp('api')}/store"
    write(url)
    backend = Counted(url)
    backend.system = Recorded() if request.param == "system" else None  # type: ignore[assignment]
    app = create(backend, Access({"operator": TOKEN}), max_events_per_s=10**6)
    yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HEADERS)
    backend.close()


# Its plugin for pytest knows no pytest 9: the cases are drawn here.
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_what_the_document_says_is_what_the_api_does(schema: Any, mode: str) -> None:
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode == "negative" and not operation.query and not operation.body:
            continue  # any text may be a name, which is then not found

        try:
            _try(operation, schemathesis.GenerationMode(mode))
        except BaseException as error:
            error.add_note(operation.label)
            raise


def _try(operation: Any, mode: Any) -> None:
    @hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        response = case.call(headers=HEADERS)
        if response.status_code == 422 and response.json()["detail"].startswith(_GRAMMARS.get(operation.label, ())):
            return
        if operation.label == "POST /events" and response.status_code == 200 and response.json()["rejected"]:
            return  # the wire's rule: a bad event is rejected alone
        case.validate_response(response)

    answers()


def test_a_document_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    write(url)
    backend = StoreBackend(url)
    app = create(backend, Access({"operator": TOKEN}))
    told = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HEADERS)
    told.raw_schema["components"]["schemas"]["StatusShown"]["properties"]["models"] = {"type": "string"}
    case = told["/status"]["GET"].Case()
    with pytest.raises(BaseExceptionGroup, match="Response violates schema"):
        case.call_and_validate(headers=HEADERS)
    backend.close()

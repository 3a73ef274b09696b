"""The API: the same rights as the page, problems that name what is wrong, and events by the wire's rules."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgpack
import pytest
from starlette.testclient import TestClient

from actors.errors import NoSystemError
from actors.metrics import raw_events
from actors.replies import Broadcasted
from actors.ui.access import Access
from actors.ui.api import events
from actors.ui.api.app import create as create_api
from actors.ui.api.doing import DOING
from actors.ui.api.reads import READS
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from tests.unit.ui.conftest import NOW, SCRIPT, Recorded

OPERATOR, READER, WRITER = "o" * 32, "r" * 32, "w" * 32
TOKENS = Access({"operator": OPERATOR, "reader": READER, "writer": WRITER})
GOOD = {"model_name": "m", "accuracy": 0.9}


class Told(StoreBackend):
    """Records what is broadcast, and answers as the test says."""

    def __init__(self, url: str) -> None:
        super().__init__(url, Recorded())  # type: ignore[arg-type]
        self.calls: list[tuple[list[Any], str | None, int | None]] = []
        self.answer: Broadcasted | Exception | None = None

    def broadcast(self, events: list[Any], producer: str | None, sequence: int | None) -> Broadcasted:
        self.calls.append((events, producer, sequence))
        if isinstance(self.answer, Exception):
            raise self.answer
        found = raw_events.sort_events(events, NOW, one_model=sequence is not None)
        return self.answer or {"accepted": len(events) - len(found.rejected), "duplicates": 0, "rejected": found.rejected}

    def high_water(self, model: str, producer: str) -> int:
        return len(model + producer)


@pytest.fixture
def told(url: str) -> Any:
    found = Told(url)
    yield found
    found.close()


def api(backend: StoreBackend, token: str | None = OPERATOR, **more: Any) -> TestClient:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return TestClient(create(backend, TOKENS, **more), base_url="http://page.example/", headers=headers)


def test_every_read_answers_what_the_document_says(backend: StoreBackend) -> None:
    page = api(backend, READER)
    document = page.get("/api/v1/openapi.json").json()
    episode = backend.episodes("m")[0]["id"]
    names = {"model": "m", "about": episode, "study": "none"}
    for each in READS:
        answer = page.get("/api/v1" + each.path.format(**names))
        said = document["paths"][each.path]["get"]["responses"][str(answer.status_code)]
        kind = answer.headers["content-type"]
        jsonschema.validate(answer.json(), {**said["content"][kind]["schema"], "components": document["components"]})
        assert answer.status_code == (404 if "{study}" in each.path else 200), each.path


def test_a_model_called_script_is_only_ever_json(backend: StoreBackend) -> None:
    page = api(backend, READER)
    for path in ("/models", f"/models/{SCRIPT}", f"/series/{SCRIPT}", "/episodes", "/happenings", f"/models/none{SCRIPT}"):
        answer = page.get(f"/api/v1{path}")
        assert answer.headers["content-type"] in {"application/json", "application/problem+json"}, path
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_happenings_are_read_once_each_by_their_cursor(backend: StoreBackend) -> None:
    page, cursor, seen = api(backend, READER), "", []
    while found := (answer := page.get("/api/v1/happenings", params={"after": cursor, "limit": 1}).json())["happenings"]:
        seen += [each["id"] for each in found]
        cursor = answer["cursor"]
    assert len(seen) == len(set(seen)) == 2
    assert answer["cursor"] == cursor


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("/models?page=0", "page", "0"),
        ("/models?sort=colour", "sort", "colour"),
        ("/models?colour=blue", "colour", "blue"),
        ("/orders?state=lost", "state", "lost"),
        ("/happenings?after=e30x", "after", "e30x"),
        ("/sequence?model=m", "producer", None),
    ],
)
def test_a_query_that_breaks_a_rule_is_told_field_value_and_rule(
    backend: StoreBackend, query: str, field: str, value: object
) -> None:
    answer = api(backend).get(f"/api/v1{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["errors"][0]["field"] == field
    assert problem["errors"][0]["value"] == value
    assert problem["errors"][0]["rule"] in problem["detail"]


@pytest.mark.parametrize("operation", DOING, ids=lambda each: each.name)
def test_every_act_is_done_by_the_operator_alone_and_carries_the_name(told: Told, operation: Any) -> None:
    body = {"verdict": "false", "duration": "1h", "version": "v2", "by": "grace", "comment": "why"}
    fields = operation.body.model_fields
    given = {name: body.get(name, "x-1") for name in fields if name != "label"}
    path = f"/api/v1{operation.path}"
    for token in (READER, WRITER):
        assert api(told, token).post(path, json=given).status_code == 403
    assert api(told, None).post(path, json=given).status_code == 401
    assert told.system.acts == []  # type: ignore[union-attr]
    answer = api(told).post(path, json=given)
    assert answer.status_code == 200, answer.text
    ((_, arguments, named),) = told.system.acts  # type: ignore[union-attr]
    assert arguments[0] == "x-1"
    assert named.get("by") == ("grace" if operation.name != "unsilence" else None)
    assert api(told).post(path, json={**given, "colour": 1}).json()["errors"][0]["field"] == "colour"


def test_acts_and_events_of_a_store_without_a_system_are_a_conflict(backend: StoreBackend) -> None:
    page = api(backend)
    assert page.post("/api/v1/acts/trigger", json={"model": "m"}).status_code == 409
    assert page.post("/api/v1/events", json={"events": [GOOD]}).status_code == 409
    with pytest.raises(NoSystemError):
        backend.broadcast([], None, None)


def test_a_writer_posts_events_and_sees_nothing(told: Told) -> None:
    page = api(told, WRITER)
    assert page.post("/api/v1/events", json={"events": [GOOD]}).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert page.get("/api/v1/sequence", params={"model": "m", "producer": "job"}).json() == {"high_water": 4}
    assert api(told, READER).post("/api/v1/events", json={"events": [GOOD]}).status_code == 403
    for path in ("/status", "/models", "/happenings"):
        assert page.get(f"/api/v1{path}").status_code == 403, path
    assert page.get("/", follow_redirects=False).status_code == 303
    assert page.get("/events").status_code == 401
    signed = page.post("/sign-in", data={"name": "job", "token": WRITER}, headers={"sec-fetch-site": "same-origin"})
    assert signed.status_code == 403


@pytest.mark.parametrize("kind", ["application/json", "application/msgpack", "application/x-msgpack"])
def test_events_come_as_json_or_msgpack_with_producer_and_sequence(told: Told, kind: str) -> None:
    body = {"events": [GOOD, {**GOOD, "accuracy": 2.0}], "producer": "job", "sequence": 7}
    content = json.dumps(body).encode() if kind == "application/json" else msgpack.packb(body)
    answer = api(told, WRITER).post("/api/v1/events", content=content, headers={"content-type": kind})
    assert answer.json()["rejected"] == [
        {"index": 1, "field": "accuracy", "value": 2.0, "rule": "must be a number from 0 to 1"}
    ]
    assert told.calls == [(body["events"], "job", 7)]


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, "the body must be JSON"),
        (b"\xc1", "application/msgpack", 400, "the body must be msgpack"),
        (b"[" * 100_000, "application/json", 400, "the body must not be nested so deeply"),
        (b"[]", "application/json", 422, "the body must be a mapping, got []"),
        (b'{"events": 5}', "application/json", 422, "events must be a valid list, got 5"),
        (b'{"events": [], "sequence": "1", "producer": "a"}', "application/json", 422, "sequence must be a whole number"),
        (b'{"events": [], "producer": "a"}', "application/json", 422, "sequence must be given where"),
        (b'{"events": [], "by": "a"}', "application/json", 422, "by is not known here, got 'a'"),
        (b"events=1", "application/x-www-form-urlencoded", 415, "content-type must be application/json or application/msgpack"),
        (b" " * (8 * 2**20 + 1), "application/json", 413, "the body must have at most 8388608 bytes"),
    ],
    ids=["cut", "no-msgpack", "deep", "list", "no-list", "text", "half", "unknown", "form", "large"],
)
def test_a_broken_envelope_is_refused_and_counts_nothing(told: Told, content: bytes, kind: str, status: int, said: str) -> None:
    answer = api(told, WRITER).post("/api/v1/events", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"].startswith(said)
    assert told.calls == []


def test_a_number_that_is_none_is_rejected_by_the_wires_rule(told: Told) -> None:
    content = b'{"events": [{"model_name": "m", "accuracy": NaN}]}'
    answer = api(told, WRITER).post("/api/v1/events", content=content, headers={"content-type": "application/json"})
    assert answer.json()["rejected"][0]["rule"] == "must be a number from 0 to 1"


def test_a_gap_and_a_busy_system_say_what_to_do(told: Told) -> None:
    page = api(told, WRITER)
    body = {"events": [GOOD], "producer": "job", "sequence": 9}
    told.answer = ValueError("sequence must continue: 9 does not follow 4")
    assert page.post("/api/v1/events", json=body).status_code == 409
    told.answer = {"accepted": 0, "duplicates": 0, "rejected": [], "status": "busy", "retry_in_s": 1.5}
    answer = page.post("/api/v1/events", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_token_posts_so_many_events_and_then_waits(told: Told) -> None:
    page = api(told, WRITER, max_events_per_s=1)
    assert page.post("/api/v1/events", json={"events": [GOOD] * 40}).status_code == 200
    answer = page.post("/api/v1/events", json={"events": [GOOD]})
    assert answer.status_code == 429
    assert 28 <= int(answer.headers["retry-after"]) <= 30
    assert len(told.calls) == 1
    assert api(told, OPERATOR, max_events_per_s=1).post("/api/v1/events", json={"events": [GOOD]}).status_code == 200


def test_a_page_of_another_site_can_neither_act_nor_post(told: Told) -> None:
    local = TestClient(create(told, Access(local_name="ada")), base_url="http://127.0.0.1", client=("127.0.0.1", 5))
    body = {"events": [GOOD]}
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = local.post("/api/v1/events", json=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    form = local.post("/api/v1/acts/trigger", content=b'{"model":"m"}', headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert local.post("/api/v1/events", json=body).status_code == 200


def test_what_is_not_there_is_a_problem_too(backend: StoreBackend) -> None:
    page = api(backend)
    assert page.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"
    assert page.get("/api/v2/models").headers["content-type"] == "application/problem+json"
    assert page.post("/api/v1/models", json={}).status_code == 405
    assert page.get("/api/v1/models/a%0Ab").status_code == 404


def test_the_document_has_every_operation_once(backend: StoreBackend) -> None:
    app = create_api(backend, 10)
    document = TestClient(app).get("/openapi.json").json()
    known = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert known == {(each.method.lower(), each.path) for each in (*READS, *DOING, *events.operations(10))}
    assert document["openapi"] == "3.1.0"

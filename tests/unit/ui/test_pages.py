"""Every page over a store, read only and alongside a system; who may act; what other sites may not do."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from actors import config
from actors.config.stored import store_settings
from actors.config.ui import UiSettings, UiTokens
from actors.retraining.rules.orders import DEAD, DISMISSABLE, PENDING, RETRYABLE, STATES, Order, Request
from actors.retraining.tables import DISPATCHER, put_new
from actors.sources.interface import Answer, Row
from actors.sources.state import SourcesState
from actors.storage import Store, schema
from actors.storage.schema import SYSTEM
from actors.ui import access
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from tests.unit.tuning.kept import Kept
from tests.unit.ui.conftest import NOW, SCRIPT, Recorded

HERE = {"base_url": "http://127.0.0.1:8420", "client": ("127.0.0.1", 5)}
SAME = {"sec-fetch-site": "same-origin"}
TOKENS = {"READER": "r" * 32, "OPERATOR": "o" * 32}


def page_of(backend: StoreBackend, rules: Access | None = None) -> TestClient:
    return TestClient(create(backend, rules or Access(local_name="ada")), **HERE)  # type: ignore[arg-type]


def tokens() -> Access:
    said = UiSettings(tokens=UiTokens(reader="${READER}", operator="${OPERATOR}"))
    return access.from_settings(said, TOKENS, host="0.0.0.0")


def test_every_page_opens_on_a_store_without_a_system(backend: StoreBackend) -> None:
    page = page_of(backend)
    episode = backend.episodes("m")[0]["id"]
    for path in (
        "/",
        "/models/m",
        "/series/m",
        "/what-if/m",
        "/episodes",
        f"/episodes/{episode}",
        "/episodes/o-1",
        "/orders",
        "/orders?state=dead",
        "/studies",
        "/system",
    ):
        assert page.get(path).status_code == 200, path
    assert page.get("/models/none").status_code == 404
    assert page.get("/nothing").status_code == 404
    assert "store only" in page.get("/").text
    assert "/act/" not in page.get(f"/episodes/{episode}").text


@pytest.mark.parametrize("state", STATES)
def test_an_order_offers_what_can_be_done_in_its_state_and_is_found_by_it(url: str, state: str) -> None:
    asked = Request("m", "v1", "accuracy", 4.0, NOW, "", {"window_mean": 0.6})
    store = Store(url)
    with store.part(DISPATCHER).write() as connection:
        put_new(connection, [Order(f"o-{state}", asked, state, "so it is", "webhook", {}, NOW)])
    store.close()
    backend = StoreBackend(url, Recorded())  # type: ignore[arg-type]
    try:
        page = page_of(backend)
        listed, told = page.get(f"/orders?state={state}").text, page.get(f"/episodes/o-{state}").text
    finally:
        backend.close()
    assert f"/episodes/o-{state}" in listed
    assert ("/episodes/o-1" in listed) == (state == DEAD)
    for act, states in {"retry": RETRYABLE, "dismiss": DISMISSABLE, "front": (PENDING,)}.items():
        assert (f'action="/act/{act}"' in listed, f'action="/act/{act}"' in told) == (state in states, state in states)


def test_the_fleet_is_filtered_by_state_label_and_text_sorted_and_counted(url: str) -> None:
    store = Store(url)
    store_settings(store, config.parse({"models": {"m": {"labels": {"team": "risk"}}}}, "f"), NOW)
    store.close()
    backend = StoreBackend(url)
    try:
        page = page_of(backend)

        def shown(query: str) -> list[str]:
            return re.findall(r'class="name"><a href="/models/([^"]+)"', page.get(f"/?{query}").text)

        script = "%3Cscript%3Ealert%281%29%3C/script%3E"
        assert shown("sort=model") == [script, "m"]
        assert shown("sort=model&order=down") == ["m", script]
        assert shown("label=team%3Drisk") == shown("text=M&state=drifting&label=team%21%3Dads,team") == ["m"]
        assert shown("text=SCRIPT") == shown("label=team%21%3Drisk") == [script]
        assert shown("state=stable") == shown("text=nothing") == []
        told = page.get("/?label=team%3Drisk").text
        assert '<b>1</b> <span class="state" data-state="drifting">' in told
        assert "label" in page.get("/?label=%3D%3D").text
    finally:
        backend.close()


def test_a_study_that_runs_can_be_stopped_by_who_may_act(url: str) -> None:
    async def begun() -> None:
        kept = Kept(url)
        await kept.begun()
        await kept.close()

    asyncio.run(begun())
    backend = StoreBackend(url, Recorded())  # type: ignore[arg-type]
    try:
        page = page_of(backend)
        told = page.get("/studies/s").text
        # An order names its study by the id.
        assert page.get(f"/studies/{backend.study('s')['study']}").status_code == 200
        assert page.get(f"/trials/{backend.study('s')['study']}").json()["logarithmic"] == []
    finally:
        backend.close()
    assert 'data-state="running"' in told
    assert 'action="/act/stop-study"' in told


def test_a_model_called_script_is_text_on_every_page(backend: StoreBackend) -> None:
    page = page_of(backend)
    for path in ("/", "/episodes", f"/models/{SCRIPT}", f"/what-if/{SCRIPT}"):
        told = page.get(path).text
        assert "<script>alert" not in told, path
        assert "&lt;script&gt;alert(1)" in told, path


def test_no_page_may_run_or_load_anything_of_elsewhere(backend: StoreBackend) -> None:
    told = page_of(backend).get("/models/m")
    policy = told.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in told.text
    assert "style=" not in told.text
    assert "//" not in told.text.replace("sqlite:///", "").replace("http-equiv", "")


def test_the_series_has_the_alarm_with_the_window_that_it_began_in(backend: StoreBackend) -> None:
    told = page_of(backend).get("/series/m").json()["metrics"]["accuracy"]
    alarm = told["alarms"][0]
    assert told["baseline"] == pytest.approx(0.9, abs=0.02)
    assert alarm["from"] < alarm["at"]
    assert len(told["times"]) == len(told["values"]) == sum(told["rows"])


@pytest.mark.parametrize(
    ("what", "form", "noted"),
    [
        ("acknowledge", {"subject": "e-1"}, "acknowledge"),
        ("judge", {"subject": "e-1", "verdict": "false"}, "verdict"),
        ("silence", {"subject": "m", "duration": "1h"}, "silence"),
        ("trigger", {"subject": "m"}, "trigger"),
        ("retry", {"subject": "o-1"}, "retry"),
        ("dismiss", {"subject": "o-1"}, "dismiss"),
        ("front", {"subject": "o-1"}, "front"),
        ("promote", {"subject": "m", "version": "v2"}, "promote"),
        ("roll-back", {"subject": "m"}, "rollback"),
        ("stop-study", {"subject": "s"}, "stop"),
    ],
)
def test_every_act_carries_who_did_it(backend: StoreBackend, what: str, form: dict[str, str], noted: str) -> None:
    system = Recorded()
    backend.system = system  # type: ignore[assignment]
    told = page_of(backend).post(f"/act/{what}", data={**form, "comment": "why", "by": "mallory"}, headers=SAME)
    assert told.status_code == 200, told.text
    name, given, named = system.acts[0]
    assert (name, given[0], named["by"]) == (noted, form["subject"], "ada")
    assert named.get("comment") == "why"


def test_an_act_that_is_refused_says_why(backend: StoreBackend) -> None:
    page = page_of(backend)
    assert page.post("/act/trigger", data={"subject": "m"}, headers=SAME).status_code == 409
    backend.system = Recorded()  # type: ignore[assignment]
    told = page.post("/act/trigger", data={"subject": "nobody"}, headers={**SAME, "hx-request": "true"})
    assert told.status_code == 422
    assert "model must be known" in told.text
    assert page.post("/act/explode", headers=SAME).status_code == 404


@pytest.mark.parametrize(
    "headers", [{}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}]
)
def test_another_site_cannot_act(backend: StoreBackend, headers: dict[str, str]) -> None:
    system = Recorded()
    backend.system = system  # type: ignore[assignment]
    assert page_of(backend).post("/act/trigger", data={"subject": "m"}, headers=headers).status_code == 403
    assert system.acts == []


def test_without_tokens_only_this_machine_by_its_own_name_is_let_in(backend: StoreBackend) -> None:
    app = create(backend, Access())
    assert TestClient(app, base_url="http://127.0.0.1", client=("10.0.0.9", 5)).get("/").status_code == 403
    assert TestClient(app, base_url="http://evil.example", client=("127.0.0.1", 5)).get("/").status_code == 403
    with pytest.raises(ValueError, match=r"ui.host must be a loopback address like 127.0.0.1"):
        access.from_settings(UiSettings(), {}, host="0.0.0.0")


def test_the_reader_reads_and_the_operator_acts(backend: StoreBackend) -> None:
    system = Recorded()
    backend.system = system  # type: ignore[assignment]
    page = page_of(backend, tokens())
    assert page.get("/", follow_redirects=False).headers["location"] == "/sign-in"
    assert page.get("/events").status_code == 401
    assert page.get("/", headers={"authorization": "Bearer " + "x" * 32}, follow_redirects=False).status_code == 303
    for role, code in (("READER", 403), ("OPERATOR", 200)):
        one = page_of(backend, tokens())
        signed = one.post("/sign-in", data={"name": "grace", "token": TOKENS[role]}, headers=SAME)
        assert signed.status_code == 200
        assert TOKENS[role] not in signed.text + str(one.cookies)
        assert ("/act/" in one.get("/models/m").text) == (role == "OPERATOR")
        assert one.post("/act/trigger", data={"subject": "m"}, headers=SAME).status_code == code
    assert [named["by"] for _, _, named in system.acts] == ["grace"]
    assert page.post("/sign-in", data={"name": "grace", "token": "no"}, headers=SAME).status_code == 403


def test_a_cookie_that_was_changed_or_is_old_is_none(backend: StoreBackend) -> None:
    rules = tokens()
    cookie = rules.cookie(access.Visitor("reader", "ada"), 0.0)
    for wrong in (cookie, cookie.replace("reader", "operator"), "a", "a.b.c.d", ""):
        page = page_of(backend, rules)
        page.cookies.set("visutility", wrong)
        assert page.get("/", follow_redirects=False).status_code == 303, wrong


def test_a_trusted_proxy_names_the_user_and_nobody_else_can(backend: StoreBackend) -> None:
    rules = access.from_settings(UiSettings(trusted_proxies=["10.0.0.0/8"]), {}, host="0.0.0.0")
    app = create(backend, rules)
    named = {"x-forwarded-user": "ada"}
    assert TestClient(app, client=("10.1.2.3", 5)).get("/", headers=named).status_code == 200
    assert TestClient(app, client=("10.1.2.3", 5)).get("/", follow_redirects=False).status_code == 303
    assert TestClient(app, client=("11.1.2.3", 5)).get("/", headers=named, follow_redirects=False).status_code == 303


def test_a_token_that_is_missing_short_or_the_same_is_refused() -> None:
    said = UiSettings(tokens=UiTokens(reader="${READER}", operator="${OPERATOR}"))
    with pytest.raises(ValueError, match="at least 16 characters"):
        access.from_settings(said, {"READER": "short", "OPERATOR": "o" * 32}, host="127.0.0.1")
    with pytest.raises(ValueError, match="has no OPERATOR"):
        access.from_settings(said, {"READER": "r" * 32}, host="127.0.0.1")
    with pytest.raises(ValueError, match="must differ"):
        access.from_settings(said, {"READER": "r" * 32, "OPERATOR": "r" * 32}, host="127.0.0.1")


def test_a_configuration_of_another_build_is_a_problem_of_the_store_on_pages_and_in_the_api(
    url: str, backend: StoreBackend
) -> None:
    store = Store(url)
    with store.part(SYSTEM).write() as connection:
        document = json.dumps({"of_tomorrow": {"is": 1}})
        connection.execute(insert(schema.settings).values(version=9, document=document, stored_at=NOW))
    store.close()
    page = page_of(backend)
    for path in ("/models/m", "/what-if/m", "/api/v1/models/m"):
        told = page.get(path)
        assert told.status_code == 503, path
        assert "this build cannot read the configuration in the store" in told.text
        assert "of_tomorrow" in told.text
    for path in ("/", "/orders", "/episodes", "/system", "/api/v1/models"):
        assert page.get(path).status_code == 200, path


def test_a_store_that_cannot_be_asked_now_is_said_on_the_page_and_in_the_api(
    backend: StoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: object, **_named: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(backend, "orders", away)
    page = page_of(backend)
    for path in ("/orders", "/api/v1/orders"):
        told = page.get(path)
        assert (told.status_code, "the server closed the connection" in told.text) == (503, True), path


def test_the_series_has_the_bounds_of_a_threshold_and_whose_the_baseline_is(url: str, backend: StoreBackend) -> None:
    store = Store(url)
    store_settings(
        store, config.parse({"models": {"m": {"watch": {"accuracy": {"detector": "threshold", "lower": 0.8}}}}}, "f"), NOW
    )
    store.close()
    told = page_of(backend).get("/series/m").json()["metrics"]["accuracy"]
    assert (told["bounds"], told["version"]) == ([0.8], "v1")


def test_what_if_shows_both_and_says_what_is_wrong(backend: StoreBackend) -> None:
    page = page_of(backend)
    told = page.post("/what-if/m", data={"settings": "watch: {accuracy: null}"}, headers=SAME)
    assert told.status_code == 200
    assert "as edited" in told.text
    assert page.post("/what-if/m", data={"settings": "colour: blue"}, headers=SAME).status_code == 422


def test_the_system_page_shows_how_far_each_source_is_and_why_one_fails(url: str) -> None:
    store = Store(url)
    state = SourcesState(store)
    for name, kind in (("warehouse", "sql"), ("metrics", "prometheus"), ("<script>", "files")):
        state.known(name, kind)
    place = {"watermark": ["datetime", "2027-01-15T08:00:00"], "seen": ["0" * 64]}
    refused = "rows of more than 10 models (max_models) are refused"
    state.took("warehouse", Answer([Row("m", "v1", NOW, {"accuracy": 0.9})], place, refused=990, problem=refused), NOW)
    state.failed("metrics", "SourceError: HTTP 401")
    store.close()
    backend = StoreBackend(url)
    try:
        told = page_of(backend).get("/system").text
    finally:
        backend.close()
    for shown in ("warehouse", "watermark 2027-01-15T08:00:00", "990", refused, "failing", "SourceError: HTTP 401"):
        assert shown in told
    assert "0" * 64 not in told
    assert "<script></bdi>" not in told

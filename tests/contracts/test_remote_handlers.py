"""Airflow, Prefect and Kubernetes as targets: what is special to runs in another tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import config
from actors.clock import Instant
from actors.retraining import handlers
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Failed, Launched, Promise, Retry, Stop
from tests.contracts.pretended import TOKEN, TOOLS, Airflow, Kubernetes, Prefect, Pretended
from tests.contracts.test_handlers import MODEL, Place, an_order, surroundings
from tests.speed import slow


@pytest.fixture(params=TOOLS, ids=["airflow", "prefect", "kubernetes"])
def tool(request: pytest.FixtureRequest) -> Iterator[Pretended]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    made = Airflow()
    yield made
    made.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def handler_of(tool: Pretended, **changes: Any) -> Any:
    settings = config.load({"defaults": {"handler": tool.document | changes}}).defaults.handler
    return handlers.create(settings, surroundings(environment={"TOOL_TOKEN": TOKEN, "QUEUE": "q1"}))


def test_the_version_and_the_promise_are_read_from_the_runs_result(tool: Pretended, url: str) -> None:
    async def story() -> None:
        place = Place(tool, url)
        await place.request()
        row = await place.until("done")
        assert (row["new_version"], row["attempts"]) == ("v3", 1)

    asyncio.run(story())
    handler = handler_of(tool)
    asyncio.run(handler.launch(an_order()))
    asyncio.run(handler.follow(an_order()))
    assert asyncio.run(handler.follow(an_order())) == Done("v3", promise=Promise(0.91, 500.0))


def test_a_run_that_fails_fails_its_order_and_one_put_back_has_a_run_of_its_own(tool: Pretended, url: str) -> None:
    async def story() -> None:
        place = Place(tool, url)
        tool.ends_with = "failed"
        order = await place.request()
        row = await place.until("failed")
        assert order in row["reason"]
        tool.ends_with = "success"
        await place.dispatcher.retry(order=order)
        await place.until("done")
        assert list(tool.runs) == [order, f"{order}-1"]

    asyncio.run(story())


def test_a_run_of_an_earlier_round_that_goes_on_is_stopped_before_another_begins(tool: Pretended) -> None:
    tool.ends_with = ""
    handler = handler_of(tool)
    assert asyncio.run(handler.launch(an_order())) == Launched()
    again = asyncio.run(handler.launch(an_order(rounds=1)))
    assert isinstance(again, Retry)
    assert "round before" in again.reason
    assert tool.launched == ["s-r-1"]
    outcomes = [asyncio.run(handler.launch(an_order(rounds=1))) for _ in range(3)]
    assert outcomes[-1] == Launched()
    assert tool.launched == ["s-r-1", "s-r-1"]


def test_an_order_that_runs_for_too_long_is_stopped_in_the_tool_and_failed(tool: Pretended, url: str) -> None:
    async def story() -> None:
        tool.ends_with = ""
        place = Place(tool, url, more={"orders": {"timeout": "1h"}})
        order = await place.request()
        row = await place.until("failed")
        assert row["reason"] == "ended by orders.timeout after 3600 s"
        assert tool.launched == [order]
        assert all(run["state"] in {"failed", "cancelled"} for run in tool.runs.values())  # Kubernetes has deleted its Job

    asyncio.run(story())


@pytest.mark.parametrize(
    ("said", "kind", "names"),
    [
        ((401, {"detail": "Unauthorized"}), Retry, "token"),
        ((404, {"detail": "Not Found"}), Retry, ""),
        ((422, {"detail": "no such field"}), Stop, "no such field"),
        ((500, {"detail": "no room"}), Retry, "no room"),
        ((503, {"detail": "later"}), Retry, "HTTP 503"),
        ((200, b"<html>"), Retry, "url"),
        ((200, {"kind": "odd"}), Retry, "otherwise than its API"),
        ("drop", Retry, "does not answer"),
    ],
)
def test_what_a_tool_answers_at_the_launch_names_what_to_change(tool: Pretended, said: Any, kind: type, names: str) -> None:
    if isinstance(tool, Kubernetes) and said[0] == 200:
        pytest.skip("a Job that was created needs no answer to be read")
    tool.misbehaves = lambda _method, _path: said
    outcome = asyncio.run(handler_of(tool).launch(an_order()))
    assert isinstance(outcome, kind)
    assert names in outcome.reason  # type: ignore[attr-defined]
    if said[0] == 404:
        named = {Airflow: "dag_id: Airflow has no DAG 'retrain'", Prefect: "deployment: Prefect has no 'retrain/live'"}
        assert named.get(type(tool), "namespace: the cluster has no 'ml'") in outcome.reason  # type: ignore[attr-defined]
    assert tool.launched == []


def test_a_tool_that_hangs_is_given_up_in_time(tool: Pretended) -> None:
    tool.misbehaves = lambda _method, _path: "hang"
    began_s = time.monotonic()
    outcome = asyncio.run(handler_of(tool, timeout="200ms").launch(an_order()))
    assert isinstance(outcome, Retry)
    assert outcome.silent
    assert time.monotonic() - began_s < slow(5)


@pytest.mark.parametrize(
    "said", [(401, {"detail": "Unauthorized"}), (500, {}), (200, b"<html>"), (200, {"kind": "odd"}), "drop"]
)
def test_a_tool_that_cannot_tell_leaves_the_order_running_and_says_why_until_it_tells(
    tool: Pretended, said: Any, url: str
) -> None:
    async def story() -> None:
        place = Place(tool, url)
        tool.ends_with = ""
        order = await place.request()
        deadline_s = time.monotonic() + slow(30)

        async def rounds(until: Any) -> Any:
            while True:
                history: Any = await place.dispatcher.history()
                row = history["rows"][-1]
                if until(row):
                    return row
                assert time.monotonic() < deadline_s, row
                place.dispatcher._launcher.follow_at.clear()
                await place.dispatcher._launcher.round()
                await asyncio.sleep(0.01)

        await rounds(lambda row: tool.launched and row["state"] == "running")
        tool.misbehaves = lambda _method, _path: said
        row = await rounds(lambda row: row["reason"].startswith(orders.UNKNOWN))
        assert row["state"] == "running"
        tool.misbehaves = lambda _method, _path: None
        row = await rounds(lambda row: not row["reason"])
        assert row["state"] == "running"
        tool.ends_with = "success"
        await place.until("done")
        assert tool.launched == [order]

    asyncio.run(story())


def test_a_run_that_was_seen_and_is_gone_fails_and_one_that_never_began_is_begun(tool: Pretended) -> None:
    handler = handler_of(tool)
    never = asyncio.run(handler.follow(an_order(launched=False)))
    assert never == Retry("no run of this order is there", after_s=0)
    gone = asyncio.run(handler.follow(an_order(launched=True)))
    assert isinstance(gone, Failed)
    assert "put the order back" in gone.reason


def test_an_answer_that_cannot_be_had_proves_nothing_of_the_launch() -> None:
    unknown = Launched(f"{orders.UNKNOWN}HTTP 500")
    order = an_order(launched=False)
    after = orders.settled(order, unknown, Instant(1.0, 1.0, "boot"), None, None)  # type: ignore[arg-type]
    assert not after.launched
    assert orders.going_on(after, Launched()).launched
    assert orders.going_on(after, Launched()).reason == ""
    assert orders.going_on(an_order(reason="asked for by a person"), Launched()).reason == "asked for by a person"


def test_a_paused_dag_and_one_that_is_gone_are_said(airflow: Airflow) -> None:
    airflow.paused = True
    outcome = asyncio.run(handler_of(airflow).launch(an_order()))
    assert outcome == Retry("dag_id: DAG 'retrain' is paused: unpause it")
    airflow.paused = False
    asyncio.run(handler_of(airflow).launch(an_order()))
    airflow.misbehaves = lambda _method, _path: (404, {"detail": "The DAG was not found"})
    outcome = asyncio.run(handler_of(airflow).follow(an_order(launched=True)))
    assert isinstance(outcome, Launched)  # not gone: nothing is known of the runs of a DAG that is not there
    assert "dag_id: Airflow has no DAG" in outcome.reason


def test_a_user_and_password_of_airflow_are_changed_for_a_token(airflow: Airflow) -> None:
    asked: list[Any] = []

    def token(method: str, path: str) -> Any:
        if path != "/auth/token":
            return None
        asked.append(airflow.requests[-1][2])
        return 201, {"access_token": TOKEN}

    airflow.misbehaves = token
    document = {name: value for name, value in airflow.document.items() if name != "token"}
    settings = config.load({"defaults": {"handler": document | {"user": "admin", "password": "${PASSWORD}"}}}).defaults.handler
    handler = handlers.create(settings, surroundings(environment={"PASSWORD": "pw", "QUEUE": "q1"}))
    assert asyncio.run(handler.launch(an_order())) == Launched()
    assert asked == [{"username": "admin", "password": "pw"}]


def test_a_flow_run_whose_worker_has_died_is_cancelled_by_force() -> None:
    prefect = Prefect()
    try:
        prefect.ends_with = ""
        handler = handler_of(prefect)
        asyncio.run(handler.launch(an_order()))
        prefect.state = lambda run: {  # type: ignore[method-assign]
            "type": "CANCELLED" if run["state"] == "cancelled" else "CANCELLING",
            "message": None,
            "timestamp": "2020-01-01T00:00:00Z",
        }
        assert asyncio.run(handler.stop(an_order())) is False
        assert prefect.requests[-1][2]["force"] is True
        assert asyncio.run(handler.stop(an_order())) is True
    finally:
        prefect.close()


def test_a_job_keeps_its_template_and_an_event_is_not_expanded_by_kubernetes() -> None:
    from actors.retraining.handlers.kubernetes import job_of

    pod = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}], "restartPolicy": "Never"}
    template: dict[str, Any] = {"metadata": {"labels": {"team": "ml"}, "name": "mine"}, "spec": {"template": {"spec": pod}}}
    job = job_of(template, an_order(request=an_order().request), "s-r-1")
    assert job["metadata"] == {"name": "s-r-1", "labels": {"team": "ml", "app.kubernetes.io/managed-by": "visutility"}}
    first, second = job["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in first["env"]] == ["X", "VISUTILITY_ORDER", "VISUTILITY_EVENT"]
    assert "$(touch pwned)" in MODEL
    assert "$$(touch pwned)" in second["env"][1]["value"]
    assert template["metadata"]["name"] == "mine"  # the configuration stays as it is


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (
            {"kind": "airflow", "url": "http://a", "dag_id": "d", "token": "plain-t0ken"},
            r"handler.token: must be a reference like \$",
        ),
        ({"kind": "airflow", "url": "http://a"}, "handler.dag_id: is missing"),
        ({"kind": "airflow", "url": "ftp://a", "dag_id": "d"}, "handler.url: must be an http or https URL"),
        ({"kind": "airflow", "url": "http://a", "dag_id": "d", "user": "u"}, "must have user and password together"),
        ({"kind": "airflow", "url": "http://a", "dag_id": "d", "dagid": 1}, "unknown key, did you mean dag_id"),
        ({"kind": "prefect", "url": "http://a", "deployment": "retrain"}, "handler.deployment: must be 'flow/deployment'"),
        ({"kind": "kubernetes", "template": {"spec": {}}}, "spec.template.spec.containers, got none"),
        (
            {"kind": "kubernetes", "template": {"kind": "Pod", "spec": {"template": {"spec": {"containers": [{}]}}}}},
            "kind must be Job",
        ),
        ({"kind": "kubernetes", "template": {"spec": {"template": {"spec": {"containers": [{}]}}}}}, "restartPolicy"),
        ({"kind": "kubernetes", "template": {"spec": {"template": []}}}, "template must be a mapping"),
        (
            {
                "kind": "kubernetes",
                "template": {
                    "spec": {
                        "ttlSecondsAfterFinished": 60,
                        "template": {"spec": {"restartPolicy": "Never", "containers": [{}]}},
                    }
                },
            },
            "ttlSecondsAfterFinished must be 86400 or more",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_what_to_change(handler: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        config.load({"defaults": {"handler": handler}})
    assert "plain-t0ken" not in str(error.value)

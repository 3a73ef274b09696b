"""One suite over every way to launch a retrain: through the dispatcher, against receivers that answer, refuse and hang.

`webhook` meets a real HTTP server, `task` and `module:Class` run their real code on a runner without Ray, `ray_job` a Jobs
API without Ray, `channel` a consumer. The real runner and Jobs API follow in tests/cluster.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import importlib
import json
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import standardwebhooks

from actors import config
from actors.cluster.peers import PeerUnavailableError
from actors.config.stored import store_settings
from actors.replies import OrderRow
from actors.retraining import handlers
from actors.retraining.dispatcher import RetrainDispatcher
from actors.retraining.handlers import ray_job, webhook
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Failed, Launched, Retry, Stop
from actors.retraining.rules.orders import Order, Request
from actors.storage import Store
from tests.contracts.pretended import TOKEN, TOOLS
from tests.database import free_port
from tests.known import answered, some
from tests.server import Server
from tests.speed import slow
from tests.unit.retraining.world import FakeClock

MODEL = 'fraud/eu: "v2" $(touch pwned) ;\''  # a name that a careless template would hand to the shell
SECRET = "s3cr3t-of-the-tests"


class Receiving:
    """What stands at the other end of a handler. `launched` holds the id of each retrain that really began."""

    document: dict[str, Any]

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.failures = 0  # so many attempts fail first
        self.away = False

    async def work(self, dispatcher: RetrainDispatcher) -> None:
        """Do what happens by itself in life."""

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        raise AssertionError(f"{name}.{method} must not be called")

    def close(self) -> None:
        """End it."""


class Consuming(Receiving):
    """`channel`: a consumer that takes and finishes; failing, it drops the order and never renews."""

    def __init__(self) -> None:
        super().__init__()
        self.document = {"kind": "channel"}

    async def work(self, dispatcher: RetrainDispatcher) -> None:
        taken = await dispatcher.take(consumer="c", timeout_s=0)
        if taken["status"] != "order":
            return
        self.seen.append(dict(taken["order"]["event"]))
        if self.failures:
            self.failures -= 1
            return
        self.launched.append(taken["order"]["id"])
        await dispatcher.finish(order=taken["order"]["id"], token=taken["token"], outcome="done", new_version="v3")


class FakeRunner(Receiving):
    """`task` and `module:Class`: runs the target in this process, and remembers by key."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, dict[str, Any]] = {}
        self.module = types.ModuleType("retrain_targets")
        vars(self.module)["train"] = self.train
        receiving = self

        class Pager:
            def __init__(self, *, queue: str) -> None:
                self.queue = queue

            def on_retrain(self, event: Any) -> None:
                assert self.queue == "q1"
                receiving.train(event)

        vars(self.module)["Pager"] = Pager
        sys.modules["retrain_targets"] = self.module

    def train(self, event: Any) -> dict[str, str]:
        self.seen.append({name: getattr(event, name) for name in ("id", "model_name", "model_version", "explanation")})
        if self.failures:
            self.failures -= 1
            raise RuntimeError("out of memory")
        self.launched.append(event.id)
        return {"new_version": "v3"}

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        assert name == "runner"
        if self.away:
            raise PeerUnavailableError("runner: away")
        key = arguments["key"]
        match method:
            case "launch":
                if key in self.tasks:
                    return {"status": "exists"}
                assert arguments["options"]["max_retries"] == 0
                module, _, function = arguments["target"].partition(":")
                try:
                    result = getattr(importlib.import_module(module), function)(**arguments["kwargs"])
                    self.tasks[key] = {"state": "done", "result": result, "error": None}
                except Exception as error:  # noqa: BLE001  as a task does
                    self.tasks[key] = {"state": "failed", "result": None, "error": str(error)}
                return {"status": "launched"}
            case "state":
                return self.tasks.get(key, {"state": "unknown", "result": None, "error": None})
            case "forget":
                self.tasks.pop(key, None)
                return {"status": "forgotten"}
        raise AssertionError(method)

    def close(self) -> None:
        del sys.modules["retrain_targets"]


class Tasks(FakeRunner):
    def __init__(self) -> None:
        super().__init__()
        self.document = {"kind": "task", "target": "retrain_targets:train"}


class Customs(FakeRunner):
    def __init__(self) -> None:
        super().__init__()
        self.document = {"kind": "retrain_targets:Pager", "options": {"queue": "${QUEUE}"}}


class FakeJobs(Receiving):
    """`ray_job`: a Jobs API that refuses a second job of one id, as Ray's does; a job succeeds when it is asked after."""

    def __init__(self) -> None:
        super().__init__()
        self.document = {
            "kind": "ray_job",
            "entrypoint": "python train.py --model {model} {{x}}",
            "runtime_env": {"env_vars": {"A": "${QUEUE}"}},
        }
        self.jobs: dict[str, SimpleNamespace] = {}

    def get_job_info(self, job_id: str) -> Any:
        self._answer()
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        job = self.jobs[job_id]
        job.status = "SUCCEEDED" if job.status == "RUNNING" else job.status
        return job

    def submit_job(self, **job: Any) -> str:
        self._answer()
        id_ = job["submission_id"]
        if id_ in self.jobs:
            raise RuntimeError("Request failed with status code 400: the submission id is taken")
        environment = job["runtime_env"]["env_vars"]
        self.seen.append(
            json.loads(environment["VISUTILITY_EVENT"]) | {"entrypoint": job["entrypoint"], "A": environment.get("A")}
        )
        self.jobs[id_] = SimpleNamespace(status="RUNNING", message="", metadata=job["metadata"])
        self.launched.append(id_)
        return str(id_)

    def delete_job(self, job_id: str) -> bool:
        del self.jobs[job_id]
        return True

    def _answer(self) -> None:
        if self.away:
            raise ConnectionError("the Jobs API cannot be reached")
        if self.failures:
            self.failures -= 1
            raise RuntimeError("Request failed with status code 500: no room")


class Hooked(Receiving):
    """`webhook`: a real HTTP server on this machine. `script` holds the next answers; afterwards 200."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[int, dict[str, str]] | str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.release = threading.Event()
        self.server = Server(self.received)
        self.url = f"{self.server.url}hook?key={SECRET}"
        self.document = {"kind": "webhook", "url": self.url, "secret_env": "HOOK_SECRET", "timeout": "2s"}

    def received(self, request: Any, body: bytes) -> None:
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        event = json.loads(body)
        self.seen.append(event["data"])
        if self.failures:
            self.failures -= 1
            request.send_response(500)
            request.end_headers()
            return
        answer = self.script.pop(0) if self.script else (200, {})
        if not isinstance(answer, str):
            self._answered(request, event["id"], *answer)
        elif answer == "hang":
            self.release.wait(slow(60))
        elif answer == "drip":
            request.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.release.wait(0.05):
                request.wfile.write(b"X-Slow: 1\r\n")
        elif answer == "drop":
            request.connection.close()

    def _answered(self, request: Any, id_: str, status: int, headers: dict[str, str]) -> None:
        if 200 <= status < 300 and id_ not in self.launched:  # this receiver keeps the ids it has seen
            self.launched.append(id_)
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()

    def close(self) -> None:
        self.release.set()
        self.server.stop()


@dataclass
class Place:
    """A dispatcher before one receiver."""

    receiving: Any
    url: str
    clock: FakeClock = field(default_factory=FakeClock)
    more: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"QUEUE": "q1", "HOOK_SECRET": SECRET, "TOOL_TOKEN": TOKEN})

    def __post_init__(self) -> None:
        document = {"defaults": {"handler": self.receiving.document}, "delivery": {"attempts": 4}} | self.more
        store_settings(Store(self.url), config.load(document), 0.0)
        self.dispatcher = self.start()

    def start(self) -> RetrainDispatcher:
        self.dispatcher = RetrainDispatcher(
            name="dispatcher",
            namespace="contracts",
            storage=self.url,
            clock=self.clock,
            peers=self.receiving,
            environment=self.environment,
            seed=0,
        )
        return self.dispatcher

    async def restart(self) -> None:
        some(self.dispatcher._loop_task).cancel()
        for task in list(self.dispatcher._launcher.attempts.values()):
            task.cancel()
        # A process that ends takes its threads along.
        self.dispatcher._thread._thread._thread.shutdown(wait=True, cancel_futures=True)
        await asyncio.sleep(0)
        self.start()

    async def request(self, episode: str = "e-1") -> str:
        reply = await self.dispatcher.request(
            episode=episode,
            model=MODEL,
            version="v2",
            metric="accuracy",
            observed_drift=4.5,
            triggered_at=1.8e9,
            explanation={"baseline": {"n": 500, "mean": 0.93}},
        )
        return some(answered(reply)["order"])

    async def until(self, state: str) -> OrderRow:
        """Let life go on, hours if need be, until the order is in `state`."""
        deadline_s = time.monotonic() + slow(60)
        while time.monotonic() < deadline_s:
            row = answered(await self.dispatcher.history())["rows"][-1]
            if row["state"] == state:
                return row
            await self.receiving.work(self.dispatcher)
            self.clock.advance(2.0)
            self.dispatcher._launcher.follow_at.clear()
            await self.dispatcher._launcher.round()
            await asyncio.sleep(0)
        raise AssertionError(f"{state} was not reached: {row}")


@pytest.fixture(
    params=[Consuming, Tasks, Customs, FakeJobs, Hooked, *TOOLS],
    ids=["channel", "task", "module:Class", "ray_job", "webhook", "airflow", "prefect", "kubernetes"],
)
def receiving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = request.param()
    monkeypatch.setattr(ray_job, "_jobs_api", lambda _address: made)
    yield made
    made.close()


@pytest.fixture
def hook() -> Iterator[Any]:
    made = Hooked()
    yield made
    made.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def test_an_order_reaches_its_receiver_once_with_its_event(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        order = await place.request()
        row = await place.until("done")
        assert receiving.launched == [order]
        assert row["attempts"] == 1
        (seen,) = receiving.seen
        assert (seen["id"], seen["model_name"], seen["model_version"]) == (order, MODEL, "v2")
        assert seen["explanation"] == {"baseline": {"n": 500, "mean": 0.93}}

    asyncio.run(story())


def test_attempts_that_fail_are_repeated_until_one_is_through(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        receiving.failures = 2
        order = await place.request()
        await place.until("done")
        assert receiving.launched == [order]

    asyncio.run(story())


def test_what_fails_for_ever_becomes_a_dead_letter_that_can_be_put_back(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        receiving.failures = 10**6
        order = await place.request()
        row = await place.until("dead")
        assert row["attempts"] == 4
        assert row["reason"].startswith("given up after 4 failed attempts")
        assert receiving.launched == []
        receiving.failures = 0
        assert answered(await place.dispatcher.retry(order=order))["order"] == order
        row = await place.until("done")
        assert row["attempts"] == 5
        assert receiving.launched == [order]

    asyncio.run(story())


def test_a_restart_in_the_middle_launches_nothing_beside(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        order = await place.request()
        for _ in range(5):
            await asyncio.sleep(0.01)
            await place.restart()
        await place.until("done")
        assert receiving.launched == [order]

    asyncio.run(story())


def test_a_receiver_that_is_away_for_a_while_costs_no_order(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        receiving.away = True
        order = await place.request()
        for _ in range(10):
            place.dispatcher._wake()
            await asyncio.sleep(0.01)
        receiving.away = False
        await place.until("done")
        assert receiving.launched == [order]

    asyncio.run(story())


def test_no_secret_shows_in_history_or_attempts(receiving: Any, url: str) -> None:
    async def story() -> None:
        place = Place(receiving, url)
        receiving.failures = 1
        order = await place.request()
        await place.until("done")
        shown = json.dumps([await place.dispatcher.history(), await place.dispatcher.order(order=order)])
        assert SECRET not in shown
        assert TOKEN not in shown

    asyncio.run(story())


def unheard_of(**options: object) -> object:
    raise RuntimeError(f"no such queue: {options}")


@pytest.mark.parametrize("secret", ["s3cr3t-token", "line\nbreak-s3cr3t", 'quote\'d "s3cr3t"'])
def test_an_error_that_quotes_a_secret_is_recorded_without_it(hook: Any, url: str, secret: Any) -> None:
    async def story() -> None:
        cases: list[tuple[Receiving, dict[str, Any]]] = [
            (hook, hook.document | {"headers": {"Authorization": "${TOKEN}"}}),
            (Customs(), {"kind": "retrain_targets:Pager", "options": {"${TOKEN}": 1} | {"queue": "${TOKEN}"}}),
        ]
        for receiving, document in cases:
            receiving.document = document
            place = Place(receiving, url + receiving.document["kind"][:3], environment={"TOKEN": secret, "HOOK_SECRET": SECRET})
            hook.failures = 1
            if isinstance(receiving, Customs):
                vars(receiving.module)["Pager"] = unheard_of
            order = await place.request()
            deadline_s = time.monotonic() + slow(30)
            shown = answered(await place.dispatcher.order(order=order))
            while not any(each["reason"] for each in shown["attempt_log"]):
                assert time.monotonic() < deadline_s, "no attempt has its reason on record"
                place.dispatcher._launcher.follow_at.clear()
                await place.dispatcher._launcher.round()
                await asyncio.sleep(0.005)
                shown = answered(await place.dispatcher.order(order=order))
            assert shown["attempts"] >= 1
            assert shown["attempt_log"][0]["reason"]
            assert "s3cr3t" not in str(shown)

    asyncio.run(story())


# --- what is special to each


def an_order(**changes: Any) -> Any:
    asked = Request(MODEL, "v2", "accuracy", 4.5, 1.8e9, "e-1", {"n": 1})
    order = Order("s-r-1", asked, orders.RUNNING, "", "webhook", {}, 1.8e9, attempts=1)
    return dataclasses.replace(order, **changes)


def surroundings(peers: Any = None, environment: Any = None) -> Surroundings:
    async def none_in_force(_model: Any, _names: Any) -> Any:
        return None

    secrets = {"HOOK_SECRET": SECRET} if environment is None else environment
    return Surroundings("contracts", peers, secrets, ThreadPoolExecutor(4), none_in_force)


def settings_of(document: dict[str, Any]) -> config.HandlerSettings:
    return config.load({"defaults": {"handler": document}}).defaults.handler


def job_settings(**more: object) -> config.RayJobHandlerSettings:
    settings = settings_of({"kind": "ray_job", "entrypoint": "true", **more})
    assert isinstance(settings, config.RayJobHandlerSettings)
    return settings


def hooked(hook: Any, **changes: Any) -> Any:
    settings = settings_of(hook.document | changes)
    assert isinstance(settings, config.WebhookHandlerSettings)
    return webhook.WebhookHandler(settings, surroundings())


def test_a_webhook_is_a_cloud_event_with_a_signature_and_the_same_id_on_every_resend(hook: Any) -> None:
    async def story() -> None:
        handler = hooked(hook, headers={"X-Team": "fraud"})
        hook.script = [(500, {})]
        assert await handler.launch(an_order()) == Retry("HTTP 500")
        assert await handler.launch(an_order()) == Done(reason="HTTP 200")

    asyncio.run(story())
    first, second = (json.loads(body) for body in hook.bodies)
    assert first == second
    assert first | {"data": None} == {
        "specversion": "1.0",
        "id": "s-r-1",
        "source": "/visutility/contracts",
        "type": "io.visutility.drift.detected.v1",
        "subject": f"{MODEL}/v2",
        "time": "2027-01-15T08:00:00Z",
        "datacontenttype": "application/json",
        "data": None,
    }
    assert first["data"] == event_fields(an_order())
    headers = hook.headers[0]
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers["X-Team"] == "fraud"
    expected = hmac.new(SECRET.encode(), hook.bodies[0], hashlib.sha256).hexdigest()
    assert headers["X-Visutility-Signature"] == f"sha256={expected}"
    assert not any(SECRET in value for value in headers.values())
    library = standardwebhooks.Webhook(base64.b64encode(SECRET.encode()).decode())
    signed = {name.lower(): value for name, value in headers.items()}
    assert library.verify(hook.bodies[0], signed) == first
    assert signed["webhook-id"] == "s-r-1"
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        library.verify(hook.bodies[0] + b" ", signed)
    late = webhook.standard_signature(SECRET, "s-r-1", int(time.time()) - 600, hook.bodies[0])
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        library.verify(hook.bodies[0], late)


def test_a_secret_that_is_written_as_standard_webhooks_writes_it_is_read_as_base64() -> None:
    secret = "whsec_" + base64.b64encode(b"raw bytes of the key").decode()
    headers = webhook.standard_signature(secret, "s-r-1", int(time.time()), b"{}")
    assert standardwebhooks.Webhook(secret).verify(b"{}", headers) == {}
    with pytest.raises(ValueError, match="secret_env: a secret that begins with whsec_ must continue in base64"):
        webhook.standard_signature("whsec_no base64!", "s-r-1", 1, b"{}")


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("alarm", "drift.detected"),
        ("shortfall", "retrain.requested"),
        ("age", "retrain.requested"),
        ("manual", "retrain.requested"),
        ("promoted", "version.promoted"),
        ("rolled_back", "version.rolled_back"),
    ],
)
def test_the_type_of_the_event_says_what_asks(cause: Any, kind: Any) -> None:
    asked = dataclasses.replace(an_order().request, cause=cause)
    assert webhook.cloud_event(an_order(request=asked), "ns")["type"] == f"io.visutility.{kind}.v1"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((202, {}), Done(reason="HTTP 202")),
        ((410, {}), Stop("HTTP 410: the receiver is gone for good")),
        ((429, {"Retry-After": "120"}), Retry("HTTP 429", after_s=120.0)),
        ((503, {"Retry-After": "7"}), Retry("HTTP 503", after_s=7.0)),
        ((429, {}), Retry("HTTP 429")),
        ((429, {"Retry-After": "soon"}), Retry("HTTP 429")),
        ((429, {"Retry-After": "0"}), Retry("HTTP 429", after_s=0.001)),
        ((404, {}), Retry("HTTP 404")),
        ((302, {"Location": "http://127.0.0.1:1/"}), Retry("HTTP 302")),
    ],
)
def test_what_an_http_answer_means(hook: Any, answer: Any, outcome: Any) -> None:
    hook.script = [answer]
    assert asyncio.run(hooked(hook).launch(an_order())) == outcome


def test_a_retry_after_may_be_a_date() -> None:
    now_s = 1.8e9
    assert webhook.judged(503, formatdate(now_s + 90, usegmt=True), now_s) == Retry("HTTP 503", after_s=90.0)


@pytest.mark.parametrize("fate", ["hang", "drip"])
def test_a_webhook_that_hangs_is_given_up_in_time_and_holds_up_nobody(hook: Any, fate: Any) -> None:
    async def story() -> None:
        hook.script = [fate]
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.01)

        heart = asyncio.create_task(beat())
        outcome = await hooked(hook, timeout="300ms").launch(an_order())
        heart.cancel()
        assert isinstance(outcome, Retry)
        assert outcome.reason.startswith("no answer")
        assert beats > 3

    asyncio.run(story())


def test_a_lost_connection_and_a_closed_port_are_tried_again(hook: Any) -> None:
    hook.script = ["drop"]
    assert isinstance(asyncio.run(hooked(hook).launch(an_order())), Retry)
    hook.server.stop()
    assert asyncio.run(hooked(hook).launch(an_order())) == Retry("no answer: ConnectionRefusedError", silent=True)


def test_a_webhook_without_its_secret_sends_nothing(hook: Any) -> None:
    settings = settings_of(hook.document)
    assert isinstance(settings, config.WebhookHandlerSettings)
    handler = webhook.WebhookHandler(settings, surroundings(environment={}))
    with pytest.raises(ValueError, match="has no HOOK_SECRET"):
        asyncio.run(handler.launch(an_order()))
    assert hook.bodies == []


def test_numbers_that_json_cannot_hold_are_null(hook: Any) -> None:
    asked = Request("m", "1", "accuracy", float("inf"), 1.8e9, "e-1", {"z": float("nan"), "ok": 1.5})
    asyncio.run(hooked(hook).launch(Order("s-r-2", asked, orders.RUNNING, "", "webhook", {}, 1.8e9, attempts=1)))
    assert hook.seen[0]["observed_drift"] is None
    assert hook.seen[0]["explanation"] == {"z": None, "ok": 1.5}


def test_values_in_an_entrypoint_are_quoted_for_the_shell(tmp_path: Path) -> None:
    import subprocess

    line = ray_job.filled("printf %s {model} {{literal}} ${{HOME}}", {"model": MODEL})
    said = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith(MODEL)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="got 'secret'"):
        ray_job.filled("echo {secret}", {"model": "m"})


def job_handler(jobs: Any) -> Any:
    settings = job_settings()
    return ray_job.RayJobHandler(settings, surroundings(), connect=lambda _address: jobs)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("FAILED", Failed("the job failed: exit 3")), ("STOPPED", Failed("the job was stopped")), ("PENDING", Launched())],
)
def test_an_order_follows_its_job(status: Any, outcome: Any) -> None:
    async def story() -> None:
        jobs = FakeJobs()
        handler = job_handler(jobs)
        jobs.jobs["s-r-1"] = SimpleNamespace(status=status, message="exit 3", metadata={"visutility_round": "0"})
        assert await handler.follow(an_order()) == outcome
        assert await handler.launch(an_order()) == outcome  # taken up, not submitted again
        assert jobs.launched == []

    asyncio.run(story())


class LateAgent(FakeJobs):
    """A Jobs API whose job agent is there only at the second submission."""

    def submit_job(self, **job: Any) -> str:
        self.failures, late = 0, self.failures
        if late:
            raise RuntimeError(
                "Request failed with status code 500: No available agent to submit job, please try again later.."
            )
        return super().submit_job(**job)

    def stop_job(self, job_id: str) -> bool:
        raise AssertionError(job_id)

    def _answer(self) -> None:
        """Answer everything but submissions."""


def test_a_job_agent_that_is_not_there_is_named_with_its_address_and_one_that_starts_late_gets_the_job() -> None:
    async def story() -> None:
        jobs = LateAgent()
        jobs.failures = 1
        settings = job_settings(address="https://user:secret@head:8265")
        handler = ray_job.RayJobHandler(settings, surroundings(), connect=lambda _address: jobs)
        with pytest.raises(ConnectionError, match=r"waited \d+ s for the job agent of its head node") as told:
            await handler.launch(an_order())
        assert "https://user:***@head:8265 takes no job" in str(told.value)
        assert await handler.launch(an_order()) == Launched()
        assert jobs.launched == ["s-r-1"]

    asyncio.run(story())


def test_a_jobs_api_that_hangs_fails_the_attempt_with_its_address_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_job, "_CALL_S", 0.05)
    goes_on = threading.Event()

    def hangs(_address: str | None) -> Any:
        goes_on.wait(slow(10))
        raise ConnectionError("too late")

    async def story() -> None:
        handler = ray_job.RayJobHandler(job_settings(address="http://head:8265"), surroundings(), connect=hangs)
        with pytest.raises(TimeoutError, match=r"the Jobs API of http://head:8265 has not taken the job within 0\.05 s"):
            await handler.launch(an_order())
        assert await handler.follow(an_order()) == Launched()
        goes_on.set()

    asyncio.run(story())


def test_an_address_without_a_jobs_api_is_named_with_the_time_that_was_waited() -> None:
    pytest.importorskip("ray.job_submission")
    address = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=r"user:\*\*\*@127.* cannot be reached: ConnectionError after \d+ s;"):
        ray_job._jobs_api(address)


def test_a_dashboard_that_accepts_and_never_answers_holds_no_thread_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.job_submission")
    monkeypatch.setattr(ray_job, "_REPLY_S", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(ConnectionError, match="cannot be reached: ReadTimeout"),
    ):
        ray_job._jobs_api(f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_putting_back_an_order_makes_room_for_a_new_job_of_its_id() -> None:
    async def story() -> None:
        jobs = FakeJobs()
        jobs.jobs["s-r-1"] = SimpleNamespace(status="FAILED", message="", metadata={"visutility_round": "0"})
        assert await job_handler(jobs).launch(an_order(rounds=1)) == Launched()
        assert jobs.launched == ["s-r-1"]
        jobs.jobs["s-r-1"].status = "PENDING"
        assert await job_handler(jobs).launch(an_order(rounds=2)) == Launched()  # still under way: taken up
        assert jobs.launched == ["s-r-1"]

    asyncio.run(story())


def test_a_job_event_that_is_too_large_for_the_environment_comes_without_its_explanation() -> None:
    asked = Request("m", "1", "accuracy", 1.0, 1.8e9, "e-1", {"text": "x" * 200_000})
    order = Order("s-r-2", asked, orders.RUNNING, "", "ray_job", {}, 1.8e9, attempts=1)
    settings = job_settings()
    event = json.loads(ray_job.job_of(settings, order)["runtime_env"]["env_vars"]["VISUTILITY_EVENT"])
    assert (event["id"], event["explanation"]) == ("s-r-2", {})


def test_the_resources_of_a_job_are_those_of_its_entrypoint() -> None:
    resources = {"num_cpus": 2.0, "num_gpus": 0.5, "memory": 1e9, "tpu": 1.0}
    job = ray_job.job_of(job_settings(resources=resources), an_order())
    assert {name: value for name, value in job.items() if name.startswith("entrypoint_")} == {
        "entrypoint_num_cpus": 2.0,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 1_000_000_000,
        "entrypoint_resources": {"tpu": 1.0},
    }


def test_a_class_without_on_retrain_is_named_in_the_dead_letter() -> None:
    from actors.retraining.handlers import custom

    with pytest.raises(TypeError, match=r"handler builtins:dict must have a method on_retrain\(event\), got dict"):
        custom.run(target="builtins:dict", options={}, event={})


def test_channel_orders_are_not_launched_by_anybody() -> None:
    with pytest.raises(ValueError, match="got 'channel'"):
        handlers.create(config.ChannelHandlerSettings(), surroundings())

"""Airflow and Prefect as targets, the real servers: each in a virtual environment of its own, named by AIRFLOW and PREFECT.

AIRFLOW=/path/of/venv/bin/airflow PREFECT=/path/of/venv/bin/prefect python -m pytest tests/integrations/test_real_targets.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from actors import config
from actors.config.stored import store_settings
from actors.retraining import handlers
from actors.retraining.rules.delivery import Launched, Retry
from actors.storage import Store
from tests.contracts.pretended import Airflow
from tests.contracts.test_handlers import MODEL, an_order, surroundings
from tests.docs.pages import ROOT
from tests.integrations.test_real_sources import Program, port, until
from tests.speed import slow

AIRFLOW = os.environ.get("AIRFLOW") or shutil.which("airflow")
PREFECT = os.environ.get("PREFECT") or shutil.which("prefect")
pytestmark = pytest.mark.timeout(600)

PAGE = ROOT / "docs/how-to/launch-in-other-tools.md"


def of_the_page(title: str, *changes: tuple[str, str]) -> str:
    """Return a file of the how-to guide, with the changes that have a run wait or fail where a test says so."""
    (found,) = re.findall(rf'```python title="{re.escape(title)}"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = str(found)
    for there, instead in changes:
        assert there in code, there
        code = code.replace(there, instead)
    return code


DAG = of_the_page(
    "dags/retrain.py",
    (
        "        return {",
        """        import time
        if dag_run.conf.get("fail"):
            raise RuntimeError("no rows")
        time.sleep(dag_run.conf.get("pause_s", 0))
        return {""",
    ),
)
FLOW = of_the_page(
    "flow.py",
    ("import json", "import json, time"),
    ("event: dict", "event: dict, pause_s: float = 0, fail: bool = False"),
    (
        "    return Completed(",
        """    if fail:
        raise RuntimeError("no rows")
    time.sleep(pause_s)
    return Completed(""",
    ),
)


class Target(NamedTuple):
    """A real tool, as the tests use it."""

    program: Program
    document: dict[str, Any]  # with what a run is told under `told`
    told: str
    missing: dict[str, Any]  # what makes it name something that is not there
    names: str
    environment: dict[str, str]

    def settings(self, said: dict[str, Any], **changes: Any) -> Any:
        return {**self.document, self.told: said, **changes}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if AIRFLOW is None:
        pytest.skip("AIRFLOW names no airflow of version 3")
    home, served = tmp_path_factory.mktemp("airflow"), port()
    (home / "dags").mkdir()
    (home / "dags" / "retrain.py").write_text(DAG)
    said = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__API__PORT": str(served),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{served}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(port()),
        "PATH": f"{Path(AIRFLOW).parent}:{os.environ['PATH']}",
    }
    url = f"http://127.0.0.1:{served}"
    line = [f"{name}={value}" for name, value in said.items()]
    program = Program(["env", *line, AIRFLOW, "standalone"], f"{url}/api/v2/version", home, ready_s=240)
    try:
        password = json.loads((home / "simple_auth_manager_passwords.json.generated").read_text())["admin"]
        document = {"kind": "airflow", "url": url, "user": "admin", "password": "${PASSWORD}", "dag_id": "retrain"}
        target = Target(
            program,
            document | {"result_task": "train"},
            "conf",
            {"dag_id": "nothing"},
            "dag_id: Airflow has no DAG",
            {"PASSWORD": password},
        )
        probe = handler_of(target, target.settings({}))
        until(lambda: begun(probe, an_order(id="probe")), "the DAG is parsed", 120)
        yield target
    finally:
        program.kill()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if PREFECT is None:
        pytest.skip("PREFECT names no prefect")
    home, served = tmp_path_factory.mktemp("prefect"), port()
    url = f"http://127.0.0.1:{served}/api"
    line = [f"PREFECT_HOME={home}", f"PREFECT_API_URL={url}", "PREFECT_SERVER_ANALYTICS_ENABLED=false"]
    server = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(served)]
    program = Program(["env", *line, *server], f"{url}/health", home, ready_s=180)
    (home / "flow.py").write_text(FLOW)
    with (home / "flow.log").open("wb") as log:
        command = ["env", *line, str(Path(PREFECT).parent / "python"), str(home / "flow.py")]
        serving = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, start_new_session=True)
    try:
        document = {"kind": "prefect", "url": url, "deployment": "retrain/live"}
        missing = {"deployment": "retrain/nothing"}
        target = Target(program, document, "parameters", missing, "deployment: Prefect has no 'retrain/nothing'", {})
        probe = handler_of(target, target.settings({}))
        until(lambda: begun(probe, an_order(id="probe")), "the flow is served", 120)
        yield target
    finally:
        os.killpg(serving.pid, 9)
        serving.wait()
        program.kill()


@pytest.fixture(params=["airflow", "prefect"])
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.getfixturevalue(request.param)
    return found


def handler_of(target: Target, document: dict[str, Any]) -> Any:
    settings = config.load({"defaults": {"handler": document}}).defaults.handler
    return handlers.create(settings, surroundings(environment=target.environment))


def begun(handler: Any, order: Any) -> bool:
    """Return whether the tool has the run; Prefect answers 503 while its SQLite is busy, and is asked again."""
    return isinstance(asyncio.run(handler.launch(order)), Launched)


def followed(handler: Any, order: Any, within_s: float = 120.0) -> Any:
    deadline_s = time.monotonic() + slow(within_s)
    while isinstance(outcome := asyncio.run(handler.follow(order)), Launched):
        assert time.monotonic() < deadline_s, outcome
        time.sleep(1.0)
    return outcome


def test_a_run_is_begun_once_and_followed_to_its_version_and_promise(target: Target) -> None:
    handler, order = handler_of(target, target.settings({})), an_order(id="s-r-good")
    for _ in range(3):
        until(lambda: begun(handler, order), "it is begun")
    done = followed(handler, order)
    assert (done.new_version, done.promise.value, done.promise.n) == ("8", 0.91, 5000.0)
    until(lambda: begun(handler, order), "it is begun")  # sent again after its end: found, and not run again
    assert followed(handler, order) == done


def test_a_run_that_fails_fails_its_order(target: Target) -> None:
    handler, order = handler_of(target, target.settings({"fail": True})), an_order(id="s-r-bad")
    until(lambda: begun(handler, order), "it is begun")
    assert "s-r-bad" in followed(handler, order).reason


def test_a_run_is_stopped(target: Target) -> None:
    handler, order = handler_of(target, target.settings({"pause_s": 600})), an_order(id="s-r-long")
    until(lambda: begun(handler, order), "it is begun")
    until(lambda: asyncio.run(handler.stop(order)), "the run has ended", 120)
    assert "s-r-long" in asyncio.run(handler.follow(order)).reason


def test_what_is_not_there_and_a_wrong_password_are_named(target: Target) -> None:
    outcome = asyncio.run(handler_of(target, target.settings({}, **target.missing)).launch(an_order()))
    assert isinstance(outcome, Retry)
    assert target.names in outcome.reason
    if target.environment:
        wrong = target._replace(environment={"PASSWORD": "wrong"})
        outcome = asyncio.run(handler_of(wrong, target.settings({})).launch(an_order()))
        assert isinstance(outcome, Retry)
        assert "user and password are refused" in outcome.reason


DISPATCHER = """
import asyncio, json, os, sys
from actors.cluster.peers import PeerUnavailableError
from actors.retraining.dispatcher import RetrainDispatcher

class Nobody:
    async def call(self, name, method, *, timeout_s, **arguments):
        raise PeerUnavailableError(name)

async def main():
    dispatcher = RetrainDispatcher(name="dispatcher", namespace="real", storage=sys.argv[1], peers=Nobody())
    await dispatcher.request(episode="e-1", model=sys.argv[2], version="v2", metric="accuracy", observed_drift=4.5,
                             triggered_at=1.8e9, explanation={})
    while True:
        row = (await dispatcher.history())["rows"][-1]
        print(json.dumps(row), flush=True)
        if row["state"] == "done":
            return
        await asyncio.sleep(0.2)

asyncio.run(main())
"""


def test_an_order_is_carried_to_its_end_over_kill_9_of_dispatcher_and_server(target: Target, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    store = Store(url)
    store_settings(store, config.load({"defaults": {"handler": target.settings({"pause_s": 15})}}), 0.0)
    store.close()

    def begun() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DISPATCHER, url, MODEL]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | target.environment)

    def rows(process: subprocess.Popen[str]) -> Iterator[Any]:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)

    for launched in (False, True):  # killed while it launches, and while it follows
        process = begun()
        next(row for row in rows(process) if row["state"] == "running" and row.get("launched", True) in {launched, True})
        process.kill()
        process.communicate()  # closes the pipe too
    target.program.kill()
    process = begun()
    next(row for row in rows(process) if row["state"] in {"running", "pending"})
    target.program.begin()
    *_, last = rows(process)
    process.communicate()
    assert (last["state"], last["new_version"]) == ("done", "8")


def test_the_pretended_airflow_is_like_the_published_api(airflow: Target) -> None:
    published = json.load(urllib.request.urlopen(f"{airflow.document['url']}/openapi.json", timeout=30))
    pretended = Airflow()
    try:
        handler = handler_of(
            airflow._replace(environment={"TOOL_TOKEN": "t0ken-of-the-tests", "QUEUE": "q"}), pretended.document
        )
        asyncio.run(handler.launch(an_order()))
        asyncio.run(handler.stop(an_order()))
        asyncio.run(handler.follow(an_order()))
    finally:
        pretended.close()
    bodies = {"POST": "TriggerDAGRunPostBody", "PATCH": "DAGRunPatchBody"}
    checked = [(body, bodies[method]) for method, _, body in pretended.requests if method in bodies]
    assert {name for _, name in checked} == set(bodies.values())
    for body, name in checked:
        jsonschema.validate(body, {"$ref": f"#/components/schemas/{name}", "components": published["components"]})
    with pytest.raises(jsonschema.ValidationError):  # the check is one
        jsonschema.validate(
            {"dag_run_id": "x"}, {"$ref": "#/components/schemas/TriggerDAGRunPostBody", "components": published["components"]}
        )

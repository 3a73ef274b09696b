"""The registry against a real MLflow server on SQLite, with the server and the process between them killed meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from actors import config
from actors.retraining.rules.delivery import Done, Retry, Stop
from actors.sources import kinds
from actors.sources.feed import Feed
from actors.sources.state import SourcesState
from actors.storage import Store
from actors.storage.sources import SOURCES, read_sources
from actors.ui.app import create
from actors.ui.serving import Prepared, bound
from tests.contracts import test_registry as pretended
from tests.integrations.test_real_sources import MlflowServer, needs_mlflow, port, until
from tests.unit.ui.test_hooks import SECRET, TOKENS, Looking

REGISTER = """
mlflow.set_experiment('churn')
with mlflow.start_run() as run:
    mlflow.log_param('rows', 300)
    mlflow.log_metric('val', float(sys.argv[1]))
if not client.search_registered_models("name='churn-there'"): client.create_registered_model('churn-there')
print(client.create_model_version('churn-there', source=run.info.artifact_uri, run_id=run.info.run_id).version)
"""
MOVE = "client.set_registered_model_alias('churn-there', 'champion', sys.argv[1])"


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path)
    yield made
    made.kill()


@needs_mlflow
def test_versions_promises_and_the_alias_are_followed_and_set_whatever_is_killed(
    tmp_path: Path, mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = config.load(
        {"registry": {"mlflow": {"url": mlflow.url, "models": {"churn-there": "churn"}, "promise": "val", "promise_n": "rows"}}}
    ).registry.mlflow
    assert said is not None
    monkeypatch.setattr(pretended, "REGISTRY", said)
    system = pretended.System(pretended.Mlflow())
    store = Store(f"sqlite:///{tmp_path}/store")

    def work() -> None:
        """Look, each time in a new process's state on the same store."""
        feed = Feed("it", cast("Any", said), SourcesState(store), system, lambda it: kinds.make(it, decisions=system.decisions))
        for _ in range(20):
            if feed.step(time.time()) > 0.0:
                return

    def shown() -> Any:
        with store.part(SOURCES).read() as connection:
            return read_sources(connection)["it"]

    work()
    assert shown()["problem"] == "churn: there is no registered model churn-there"
    mlflow.run(REGISTER, "0.7")
    work()
    assert shown()["problem"] == "churn: the alias champion of churn-there points to nothing"
    mlflow.run(MOVE, "1")
    mlflow.run(REGISTER, "0.8")
    mlflow.kill()
    work()
    assert shown()["state"] == "failing"
    mlflow.begin()

    def is_followed() -> bool:
        work()
        return system.versions.live == "1"

    until(is_followed, "the alias is followed")
    assert {row["version"]: row["state"] for row in system.versions.rows()} == {"1": "live", "2": "registered"}
    assert {version: each["values"]["accuracy"] for version, each in system.promises.items()} == {"1": 0.7, "2": 0.8}
    system.promote("2")
    mlflow.kill()
    outcome = system.deliver()
    assert isinstance(outcome, Retry)
    assert outcome.silent
    mlflow.begin()
    assert isinstance(system.deliver(forgets=True), Done)  # killed before the outcome was on record
    assert isinstance(system.deliver(), Done)
    system.rollback()
    work()
    assert isinstance(system.deliver(), Done)
    work()
    assert system.versions.live == "1"
    assert mlflow.run("print(client.get_model_version_by_alias('churn-there', 'champion').version)") == "1"
    assert [each.kind for each, _ in system.decided] == ["promoted", "rolled back"]
    assert isinstance(pretended.launched("9", "1"), Stop)
    mlflow.run("client.delete_model_version('churn-there', '1')")
    work()
    assert shown()["problem"] == "churn: the alias champion of churn-there points to nothing"
    store.close()


EVENTS = ["model_version.created", "model_version_alias.created"]
HOOK = f"client.create_webhook('visutility', sys.argv[1], {EVENTS}, secret=sys.argv[2])"


@needs_mlflow
def test_mlflows_webhook_has_the_registry_looked_at_by_its_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    url = f"sqlite:///{tmp_path}/store"
    Store(url).close()
    backend, own = Looking(url), port()
    backend.looks = []
    server = MlflowServer(tmp_path)
    with bound("127.0.0.1", own) as listening:
        page = Prepared(create(backend, TOKENS), listening, "")
        serving = threading.Thread(target=page.run)
        serving.start()
        try:
            server.run(HOOK, f"http://127.0.0.1:{own}/api/v1/hooks/mlflow", SECRET)
            server.run(REGISTER, "0.7")
            until(lambda: backend.looks == ["registry.mlflow"], "the new version is told")
            server.run(MOVE, "1")
            until(lambda: backend.looks == ["registry.mlflow"] * 2, "the moved alias is told")
        finally:
            page.end()
            serving.join()
            server.kill()
            backend.close()

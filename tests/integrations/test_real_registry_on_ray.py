"""The registry on a real Ray and a real MLflow server: the server, the poller and the dispatcher are killed -9 in turn."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# Before Ray starts: its workers inherit the folder of failpoints. Sources that are edited meanwhile are no other build.
os.environ["VISUTILITY_FAILPOINTS"] = f"/tmp/visutility-failpoints-{os.getpid()}"
os.environ.setdefault("VISUTILITY_BUILD", "test-real-registry")

import ray

import actors
from actors import failpoints as points
from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.http_json import Http
from tests.cluster.waiting import eventually
from tests.integrations.test_real_sources import MlflowServer, needs_mlflow
from tests.speed import slow

pytestmark = [needs_mlflow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
FAILPOINTS = Path(os.environ["VISUTILITY_FAILPOINTS"])
API = "/api/2.0/mlflow"
ALIAS = f"{API}/registered-models/alias"
THERE, HERE = "churn-there", "churn"
POLLING = ["sources.read", "sources.took", "sources.committed", "sources.sent", "sources.settled"]
PROMOTING = ["dispatcher.after_promotion", "dispatcher.before_attempt", "dispatcher.after_attempt",
             "dispatcher.before_effect", "dispatcher.after_effect", "dispatcher.after_done"]  # fmt: skip


class Registry:
    """A registered model on the real server, used by its REST API as other tools do."""

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self._http = Http(server.url, headers={}, timeout_s=slow(20))
        self._post("/experiments/create", name="churn")
        self._post("/registered-models/create", name=THERE)

    def _post(self, path: str, **body: object) -> Any:
        return self._http.post(f"{API}{path}", body)

    def add(self, accuracy: float) -> str:
        run = self._post("/runs/create", experiment_id="1")["run"]["info"]["run_id"]
        self._post("/runs/log-parameter", run_id=run, key="rows", value="300")
        self._post("/runs/log-metric", run_id=run, key="val", value=accuracy, timestamp=1)
        added = self._post("/model-versions/create", name=THERE, source=f"runs:/{run}/model", run_id=run)
        return str(added["model_version"]["version"])

    def move(self, version: str) -> None:
        self._post("/registered-models/alias", name=THERE, alias="champion", version=version)

    def alias(self) -> str:
        found = self._http.get(ALIAS, {"name": THERE, "alias": "champion"})
        return str(found["model_version"]["version"])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    server = MlflowServer(tmp_path)
    yield Registry(server)
    server.kill()


@pytest.fixture
def system(tmp_path: Path, registry: Registry) -> Iterator[actors.System]:
    os.environ.pop("RAY_ADDRESS", None)
    FAILPOINTS.mkdir(exist_ok=True)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=150 * 2**20)
    followed = {"url": registry.server.url, "models": {THERE: HERE}, "promise": "val", "promise_n": "rows", "every": "200ms"}
    started = actors.start({
        "storage": f"sqlite:///{tmp_path}/store",
        "registry": {"mlflow": followed},
        "models": {HERE: {"promotion": {"gate": "registry"}}},
        "delivery": {"backoff": "200ms", "max_backoff": "1s"},
    })  # fmt: skip
    yield started
    started.stop()
    ray.shutdown()
    for left in FAILPOINTS.iterdir():
        left.unlink()


def shown(system: actors.System) -> Any:
    return system.status()["sources"].get("registry.mlflow", {"state": None, "problem": None})


def has_problem(system: actors.System, problem: str) -> bool:
    return problem in str(shown(system)["problem"])


def versions(system: actors.System) -> dict[str, str]:
    """Return the state of each version; an actor that was just killed knows none for a moment."""
    with suppress(ConnectionError, PeerUnavailableError, KeyError):
        return {row["version"]: row["state"] for row in system.versions.history(HERE)}
    return {}


def is_live(system: actors.System, version: str) -> bool:
    return versions(system).get(version) == "live"


def strikes(point: str) -> Callable[[], bool]:
    return lambda: not (FAILPOINTS / point).exists()


def decided(system: actors.System, version: str, *, back: bool) -> bool:
    """Promote a version, or roll back to it, as a person does: without an answer, look first whether it has come through."""
    if not is_live(system, version):
        with suppress(ConnectionError, PeerUnavailableError):
            system.versions.rollback(HERE) if back else system.versions.promote(HERE, version)
    return is_live(system, version)


def decisions(system: actors.System) -> list[dict[str, Any]]:
    peers = BlockingPeers(system.namespace)
    with suppress(PeerUnavailableError, KeyError):
        return list(peers.call("dispatcher", "promotions", {}, timeout_s=slow(10))["rows"])
    return []


def are_done(system: actors.System, count: int) -> bool:
    found = decisions(system)
    return len(found) == count and all(row["state"] == "done" for row in found)


def test_whichever_side_is_killed_each_version_is_announced_once_and_alias_and_live_version_agree(
    system: actors.System, registry: Registry
) -> None:
    eventually(partial(has_problem, system, "the alias champion of churn-there points to nothing"), "no alias is a state")
    newest, promised = registry.add(0.5), {"1": 0.5}
    registry.move(newest)
    eventually(partial(is_live, system, newest), "the first alias is followed")
    for point in [*POLLING, "kill of the poller", "kill of the server"]:
        if point in POLLING:
            points.arm(FAILPOINTS, point, "exit")
        newest = registry.add(accuracy := 0.5 + len(promised) / 100)
        promised[newest] = accuracy
        if point == "kill of the poller":
            os.kill(eventually(lambda: system.status()["actors"]["sources"]["pid"], "the poller runs"), signal.SIGKILL)
        registry.move(newest)
        if point == "kill of the server":
            registry.server.kill()
            eventually(partial(has_problem, system, "cannot be reached"), "a server that is down is a state")
            registry.server.begin()
        if point in POLLING:
            eventually(strikes(point), f"{point} strikes")
        eventually(partial(is_live, system, newest), f"the alias is followed after {point}")
    shown_promises = {row["version"]: row["promise"] for row in system.versions.history(HERE)}
    expected = {
        version: {"values": {"accuracy": value}, "n": 300.0, "source": "hold_out"} for version, value in promised.items()
    }
    assert shown_promises == expected
    assert [(row["cause"], row["version"]) for row in decisions(system)] == [("promoted", each) for each in list(promised)[1:]]

    count = len(promised) - 1
    for number, point in enumerate(PROMOTING):
        points.arm(FAILPOINTS, point, "exit")
        version = newest if number % 2 else "1"
        eventually(partial(decided, system, version, back=bool(number % 2)), f"decided around {point}")
        eventually(strikes(point), f"{point} strikes")
        count += 1
        eventually(partial(are_done, system, count), f"decision {count} is carried out after {point}")
        assert registry.alias() == version
    registry.server.kill()
    eventually(partial(decided, system, "2", back=False), "decided while the server is down")
    eventually(lambda: "reach" in str(decisions(system)[-1:]), "it waits for the server")
    registry.server.begin()
    eventually(partial(are_done, system, count + 1), "the promotion during the outage is carried out")
    assert registry.alias() == "2"
    registry.move("3")  # followed, and of the looks before it none has taken for news what this system had set itself
    eventually(partial(is_live, system, "3"), "somebody else moves it")
    assert [row["version"] for row in decisions(system)[-2:]] == ["2", "3"]

    registry.server.run("client.delete_model_version('churn-there', '3')")
    eventually(partial(has_problem, system, "the alias champion of churn-there points to nothing"), "its version is gone")
    registry.server.run("client.delete_registered_model('churn-there')")
    eventually(partial(has_problem, system, "there is no registered model churn-there"), "the model is gone")
    assert is_live(system, "3")

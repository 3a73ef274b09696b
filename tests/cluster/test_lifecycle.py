"""How a system is started, joined, changed, stopped; what happens to it when its processes freeze or die."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

import actors
from actors.cluster import build, card, connection, deployment, lifecycle
from actors.errors import ConflictError, NoSystemError
from actors.storage import StoreError
from actors.system import System
from tests.cluster.alone import alone
from tests.cluster.waiting import eventually
from tests.known import some
from tests.rays import start_alone
from tests.speed import slow

ROOT = Path(__file__).parents[2]


def pids(system: System) -> dict[str, int]:
    return {name: some(actor["pid"]) for name, actor in system.status()["actors"].items()}


def log_one(system: System, model: str) -> None:
    """Log one event on the raw wire, again until it is taken: a detector that is being made is no error."""

    def taken() -> bool:
        broadcaster = ray.get_actor("broadcaster", namespace=system.namespace)
        reply: Any = ray.get(broadcaster.broadcast.remote(events=[{"model_name": model, "accuracy": 0.9}]), timeout=slow(60))
        assert reply["rejected"] == []
        return bool(reply["accepted"] == 1)

    eventually(taken, "an event is accepted")


def environment(cluster: str, **more: str) -> dict[str, str]:
    """A shell next to this process: its Ray's address and, where there is an address, its token mode."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    mode = os.environ.get("RAY_AUTH_MODE")
    named = {"RAY_ADDRESS": cluster} | ({"RAY_AUTH_MODE": mode} if mode else {})
    return kept | (named if cluster else {}) | more


def driver(*arguments: str, cluster: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `visutility ...` as a person would."""
    command = [sys.executable, "-m", "drivers.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(cluster, **more), capture_output=True, text=True, timeout=slow(150), check=False
    )


@pytest.fixture(scope="module")
def running(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that the tests here leave as they found it."""
    folder = tmp_path_factory.mktemp("running")
    system = actors.start({"storage": f"sqlite:///{folder}/store"}, namespace=f"running-{uuid.uuid4().hex[:6]}")
    yield system
    system.stop()


class TestARunningSystem:
    def test_start_attaches_to_it(self, running: System) -> None:
        before = pids(running)
        assert set(before) == set(deployment.CORE)
        assert pids(actors.start(namespace=running.namespace)) == before

    def test_a_driver_of_another_build_is_refused_with_both_builds_named(
        self, running: System, cluster: str, tmp_path: Path
    ) -> None:
        shutil.copytree(ROOT / "actors", tmp_path / "actors", ignore=shutil.ignore_patterns("__pycache__"))
        with (tmp_path / "actors" / "build.py").open("a") as source:
            source.write("# another build\n")
        code = f"import actors; actors.start(namespace={running.namespace!r})"
        before = pids(running)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment(cluster, PYTHONPATH=str(tmp_path), VISUTILITY_BUILD=""),
            capture_output=True,
            text=True,
            timeout=slow(120),
            check=False,
        )
        assert done.returncode == 1
        said = done.stderr.splitlines()[-1]
        assert "ConflictError" in said
        assert f"runs build {build.BUILD}, this process has build {build.VERSION}+" in said
        assert str(tmp_path) in said, "where the package was found: it may be a job's own that shadows ours"
        assert pids(running) == before

    def test_another_configuration_is_refused_with_its_differences(self, running: System) -> None:
        with pytest.raises(ConflictError) as caught:
            actors.start({"defaults": {"cooldown": "6h"}}, namespace=running.namespace)
        assert 'defaults.cooldown: "30m" -> "6h"' in str(caught.value)
        assert "visutility reload" in str(caught.value)
        assert running.settings().defaults.cooldown_s == 1800.0

    def test_another_storage_is_refused(self, running: System, tmp_path: Path) -> None:
        with pytest.raises(ConflictError, match="storage: sqlite:"):
            actors.start({"storage": f"sqlite:///{tmp_path}/other"}, namespace=running.namespace)
        assert not (tmp_path / "other").exists()
        with pytest.raises(ConflictError, match="storage cannot be changed by a reload"):
            running.reload({"storage": f"sqlite:///{tmp_path}/other"})

    def test_its_store_is_refused_to_a_second_system(self, running: System, namespace: str) -> None:
        known = card.read(running.namespace)
        assert known is not None
        with pytest.raises(ConflictError, match=f"in use by the system in namespace '{running.namespace}'"):
            actors.start({"storage": known.storage, "defaults": {"cooldown": "1h"}}, namespace=namespace)
        assert deployment.names(namespace) == []
        assert card.read(namespace) is None

    def test_a_system_is_carried_to_another_process_by_name(self, running: System) -> None:
        again = pickle.loads(pickle.dumps(running))
        assert again.status()["namespace"] == running.namespace

    def test_the_drivers_find_it(self, running: System, cluster: str) -> None:
        told = driver("status", "-o", "json", "--namespace", running.namespace, cluster=cluster)
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["build"] == build.BUILD
        lines = driver("watch", "--rounds", "1", "--namespace", running.namespace, cluster=cluster)
        assert lines.returncode == 0, lines.stderr
        assert "tuner: pid " in lines.stdout


class TestNoSystem:
    def test_connect_says_how_to_start_one_and_lets_a_job_go_on(
        self, cluster: str, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        system = actors.connect(namespace=namespace)
        assert "start one with `visutility start`" in caplog.text
        with pytest.raises(NoSystemError, match="visutility start"):
            system.status()
        system.stop()

    def test_a_driver_says_so_in_one_line(self, cluster: str, namespace: str) -> None:
        told = driver("status", "-o", "json", "--namespace", namespace, cluster=cluster)
        assert told.returncode == 1
        assert "no system runs in namespace" in json.loads(told.stdout)["error"]
        assert len(told.stderr.splitlines()) == 1

    def test_no_ray_at_the_address_is_an_error_that_names_it(self) -> None:
        told = driver("status", "--address", "127.0.0.1:1", cluster="")
        assert told.returncode == 1
        assert "no Ray answers at 127.0.0.1:1" in told.stderr


class TestAStartThatFails:
    @pytest.mark.parametrize("taken", ["tuner", "broadcaster", "detector:m", "observer:pager"])
    def test_names_that_foreign_actors_hold_are_refused_and_nothing_is_started(
        self, namespace: str, settings: dict[str, Any], taken: str
    ) -> None:
        class Tuner:  # ours has this name too, in a module of ours
            def hello(self) -> str:
                return "not yours"

        held: Any = ray.remote(Tuner).options(name=taken, namespace=namespace, num_cpus=0).remote()
        assert ray.get(held.hello.remote()) == "not yours"
        with pytest.raises(
            ConflictError, match=f"'{taken}' is taken by an actor of class .*Tuner, which is not part of the system"
        ):
            actors.start(settings, namespace=namespace)
        assert deployment.names(namespace) == [taken]
        assert card.read(namespace) is None
        assert ray.get(held.hello.remote()) == "not yours", "it was left alone"
        ray.kill(held)

    @pytest.mark.parametrize(
        "storage", ["sqlite:////proc/nowhere", "oracle://x", "sqlite://", "postgresql://u:secret@127.0.0.1:1/d"]
    )
    def test_a_storage_that_cannot_be_opened_is_refused_and_nothing_is_started(self, namespace: str, storage: str) -> None:
        with pytest.raises(StoreError, match="storage") as caught:
            actors.start({"storage": storage}, namespace=namespace)
        assert "secret" not in str(caught.value)
        assert deployment.names(namespace) == []
        assert card.read(namespace) is None

    def test_an_interrupted_start_leaves_nothing(self, cluster: str, namespace: str, settings: dict[str, Any]) -> None:
        # A shell has what it runs in the background ignore SIGINT, which is inherited: by a suite that runs there, and by this.
        heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{heeding}; import actors; actors.start({settings!r}, namespace={namespace!r})"
        begun = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment(cluster), stderr=subprocess.DEVNULL)
        eventually(lambda: deployment.names(namespace), "the first actor of the start")
        begun.send_signal(signal.SIGINT)
        assert begun.wait(slow(60)) != 0
        assert deployment.names(namespace) == []
        assert card.read(namespace) is None


def test_two_drivers_at_once_make_one_system(cluster: str, namespace: str, settings: dict[str, Any]) -> None:
    code = (
        f"import actors, json; s = actors.start({settings!r}, namespace={namespace!r}); "
        "print('PIDS', json.dumps({n: a['pid'] for n, a in s.status()['actors'].items()}))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment(cluster), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [each.communicate(timeout=slow(120))[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    found = [json.loads(text.partition("PIDS ")[2]) for text in said]
    assert found[0] == found[1]
    assert set(found[0]) == set(deployment.CORE)


def test_a_start_that_looked_before_the_other_one_claimed_attaches_to_it(
    start: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = start()
    running = {name: each["pid"] for name, each in system.status()["actors"].items()}
    monkeypatch.setattr(lifecycle, "_after_a_stop", lambda _namespace: None)
    assert {name: each["pid"] for name, each in start().status()["actors"].items()} == running


def test_stop_then_start_carries_on_and_reload_keeps_state(start: Callable[..., System]) -> None:
    system = start()
    log_one(system, "m")
    changed = system.reload({"defaults": {"cooldown": "6h"}})
    assert changed["changes"] == ['defaults.cooldown: "30m" -> "6h"']
    assert changed["problems"] == {}
    assert set(changed["reloaded"]) == {*deployment.CORE, "detector:m"}
    log_one(system, "m")
    system.stop()
    assert deployment.names(system.namespace) == []

    again = start(defaults={"cooldown": "6h"})
    log_one(again, "m")
    assert again.status()["models"]["m"]["events"] == 3
    assert again.settings().defaults.cooldown_s == 6 * 3600
    stopped = driver("stop", "--namespace", again.namespace, cluster=connection_address())
    assert stopped.returncode == 0, stopped.stderr
    assert deployment.names(again.namespace) == []


def connection_address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def test_status_tells_of_actors_that_are_frozen_or_dead_and_the_watch_brings_them_back(start: Callable[..., System]) -> None:
    system = start()
    log_one(system, "m")
    before = pids(system)
    os.kill(before["tuner"], signal.SIGSTOP)
    os.kill(before["dispatcher"], signal.SIGSTOP)
    os.kill(before["detector:m"], signal.SIGKILL)
    try:
        told = system.status()
        assert told["models"]["m"]["events"] == 1
        assert not told["actors"]["tuner"]["alive"]
        assert told["actors"]["tuner"]["pid"] == before["tuner"], "the pid of a frozen process, for a person to look at"
        # The broadcaster replaces the dispatcher, the new dispatcher replaces the tuner, Ray restarts the detector.
        for name in ("dispatcher", "tuner", "detector:m"):
            eventually(partial(is_new, system, name, before), f"another process is {name}", within_s=120.0)
    finally:
        for name in ("tuner", "dispatcher"):
            if connection.alive(before[name]):
                os.kill(before[name], signal.SIGKILL)
    log_one(system, "m")
    assert system.status()["models"]["m"]["events"] == 2


def is_new(system: System, name: str, before: dict[str, int]) -> bool:
    actor = system.status()["actors"].get(name, {"alive": False})
    return bool(actor["alive"] and actor["pid"] != before[name])


def test_an_actor_that_is_ended_for_good_is_made_again_while_the_system_is_meant_to_run(start: Callable[..., System]) -> None:
    system = start()
    before = pids(system)
    handle = deployment.find("runner", system.namespace)
    assert handle is not None
    deployment.kill(handle, restart=False)
    eventually(lambda: is_new(system, "runner", before), "another process is the runner")


def test_up_outlives_its_command_and_down_ends_just_that_one(cluster: str, namespace: str, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    configuration = tmp_path / "visutility.yaml"
    configuration.write_text("storage: sqlite:///./data\n")
    with start_alone():
        up = driver("up", str(configuration), "--cpus", "1", "-o", "json", cluster="", **state)
    assert up.returncode == 0, up.stderr
    known = json.loads(up.stdout)
    assert known["address"] != cluster
    assert (tmp_path / "data").is_dir(), "a relative path is relative to the configuration"
    try:
        told = driver("status", "-o", "json", cluster="", **state)
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["storage"] == f"sqlite:///{tmp_path}/data"
        with pytest.raises(ConflictError, match=f"in use by the system .* on the Ray at {known['address']}"):
            actors.start(configuration, namespace=namespace)
        assert deployment.names(namespace) == []
        again = driver("up", str(configuration), "-o", "json", cluster="", **state)
        assert json.loads(again.stdout)["pid"] == known["pid"]
    finally:
        down = driver("down", "-o", "json", cluster="", **state)
    assert json.loads(down.stdout)["ended"] is True
    assert not connection.alive(known["pid"])
    eventually(lambda: not children_with(known["address"]), "the processes of that Ray have ended")
    assert ray.is_initialized()
    carried_on = actors.start(configuration, namespace=namespace)
    assert carried_on.status()["actors"]["tuner"]["epoch"] == 2, "the store that is free again is taken up"
    assert json.loads(driver("down", "-o", "json", cluster="", **state).stdout) == {"ended": False}


def children_with(address: str) -> list[int]:
    """Return the processes whose command line names the address."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if address in words:
                found.append(int(folder.name))
    return found


def test_our_threads_start_no_ray_for_a_process_that_has_left_its_own_or_leaves_as_they_call(
    start: Callable[..., System], cluster: str, tmp_path: Path
) -> None:
    system = start(defaults={"handler": {"kind": "channel", "lease": "1s"}})
    told = alone(
        "tests.cluster.scenarios.leaving",
        "leave",
        # Ray's default, and so that of the suite's own Ray.
        environment={"RAY_AUTH_MODE": "token", "VISUTILITY_FAILPOINTS": str(tmp_path)},
        address=cluster,
        namespace=system.namespace,
    )
    assert told == {"order": "left", "asked for another Ray": 0, "asked between look and call": []}

"""Which Ray a process uses, as far as that is decided without one; where a system's store lies."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.experimental import internal_kv

import actors
from actors import config, system
from actors.cluster import build, connection, places
from actors.events import MetricsEvent
from actors.metrics.link import RayLink
from actors.storage import StoreError


@pytest.mark.parametrize("address", ["ray://head:10001", "http://127.0.0.1:8265", "https://x"])
def test_an_address_that_cannot_carry_what_we_promise_is_refused_with_the_way_to_go(address: str) -> None:
    with pytest.raises(ValueError, match=r"address must be HOST:PORT of the cluster.*ray job submit"):
        connection.attach(address, otherwise="look")


def test_the_address_of_the_environment_is_checked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ValueError, match="ray:// client is not supported"):
        connection.attach(None, otherwise="private")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:none", "127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_named_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match=f"no Ray answers at {address}"):
        connection.attach(address, otherwise="look")


def test_where_no_ray_runs_one_sentence_says_how_to_begin_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere(**_options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to")

    monkeypatch.setattr(ray, "init", nowhere)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match=r"^no Ray runs on this machine: start one .*\(--address, RAY_ADDRESS\)$"):
        connection.attach(None, otherwise="look")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_takes_the_lock_of_the_connection_along_and_can_connect() -> None:
    held, ends = threading.Event(), threading.Event()

    def keep() -> None:
        with connection._lock:
            held.set()
            ends.wait()

    keeper = threading.Thread(target=keep)
    keeper.start()
    held.wait()
    threading.Timer(0.1, ends.set).start()  # the fork waits for it
    child = os.fork()
    if child == 0:
        free: list[bool] = []
        looks = threading.Thread(
            target=lambda: free.append(connection._lock.acquire(timeout=1))
        )  # as a call of `ray.init` does
        looks.start()
        looks.join()
        os._exit(0 if free == [True] else 1)
    keeper.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_up_noted_is_found_and_a_broken_note_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert connection.remembered() is None
    connection.note().parent.mkdir()
    connection.note().write_text("{")
    assert connection.remembered() is None
    connection.note().write_text('{"address": "a:1", "pid": 1}')
    assert connection.remembered() == {"address": "a:1", "pid": 1}


def test_without_a_home_the_note_lies_in_a_folder_of_this_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connection.note() == tmp_path / ".local" / "state" / "visutility" / "up.json"
    temporary = Path(tempfile.gettempdir()) / f"visutility-{os.getuid()}" / "up.json"
    monkeypatch.setattr(os, "access", lambda *_: False)  # read-only
    assert connection.note() == temporary

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert connection.note() == temporary


def test_a_note_that_another_user_wrote_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    connection.note().parent.mkdir()
    connection.note().write_text('{"address": "a:1", "pid": 1}')
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert connection.remembered() is None


def test_a_process_is_told_alive_and_apart_from_a_later_one_of_its_number() -> None:
    assert connection.alive(os.getpid())
    assert connection.began(os.getpid()) > 0
    assert not connection.alive(2**22 + 1)


def storage(source: Path | dict[str, str]) -> str | None:
    return places.named(config.load(source), source)


class TestWhereTheStoreLies:
    def test_a_relative_path_is_relative_to_the_configuration_file(self, tmp_path: Path) -> None:
        path = tmp_path / "v.yaml"
        path.write_text("storage: sqlite:///./data")
        assert storage(path) == f"sqlite:///{tmp_path}/data"

    def test_without_a_file_to_the_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert storage({"storage": "sqlite:///data"}) == f"sqlite:///{tmp_path}/data"

    def test_one_that_is_not_named_is_told_apart(self) -> None:
        assert storage({}) is None

    def test_in_a_job_s_folder_it_is_refused(self) -> None:
        folder = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1")
        with pytest.raises(StoreError, match="a job, whose working directory is temporary"):
            places.absolute("sqlite:///./data", folder)

    def test_on_several_nodes_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.is_initialized", lambda: True)
        monkeypatch.setattr(connection, "alive_nodes", lambda: ["a", "b"])
        with pytest.raises(StoreError, match=r"absolute path .* on a cluster of 2 nodes, got 'sqlite:///\./data'"):
            storage({"storage": "sqlite:///./data"})
        assert storage({"storage": "sqlite:////var/data"}) == "sqlite:////var/data"

    def test_the_environment_may_name_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STORE_URL", "postgresql://u:p@h/d")
        assert storage({"storage": "${STORE_URL}"}) == "postgresql://u:p@h/d"
        monkeypatch.delenv("STORE_URL")
        with pytest.raises(ValueError, match="the environment of this process has no STORE_URL"):
            storage({"storage": "${STORE_URL}"})


@pytest.mark.parametrize("options", [{"on_full": "block"}, {"buffer_bytes": 0}, {"buffer_bytes": True}, {"buffer_bytes": 1.5}])
def test_connect_checks_its_options_before_it_looks_for_a_ray(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        system.connect(**options)  # type: ignore[arg-type]


def test_the_build_s_version_is_the_package_s() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{build.VERSION}"' in text


def test_a_changed_source_is_another_build(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = build._hash(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert build._hash(tmp_path) != before


@pytest.mark.parametrize("is_fork", [True, False])
def test_without_a_connection_of_its_own_every_call_is_told_at_once(is_fork: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fork Ray answers nothing, and elsewhere it would start a cluster."""
    held = object()
    monkeypatch.setattr(ray, "is_initialized", lambda: is_fork)
    monkeypatch.setattr(connection, "worker", lambda: held)
    monkeypatch.setattr(connection, "_inherited", held)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda *_args, **_named: pytest.fail("Ray was asked"))
    monkeypatch.setattr(ray, "get_actor", lambda *_args, **_named: pytest.fail("Ray was asked"))
    joined = system.System("nowhere")
    # Only what a fork can do wrong: without any Ray, `connect` looks for one.
    attaching: list[Callable[[], object]] = [actors.connect, lambda: actors.start({})] if is_fork else []
    calls: list[Callable[[], object]] = [
        *attaching,
        joined.status,
        joined.settings,
        joined.stop,
        joined.retrains.history,
        joined.tuner.studies,
        lambda: joined.reload({}),
        lambda: joined.acknowledge("e"),
        lambda: joined.versions.history("m"),
        lambda: next(iter(joined.retrains.stream(model="m"))),
        lambda: joined.register(_Observer(), name="o"),
        lambda: joined.metrics.promise({"accuracy": 0.9}, n=10, model="m", version="1"),
        lambda: joined.metrics.baseline({"accuracy": [0.9] * 50}, model="m", version="1"),
    ]
    for call in calls:
        with pytest.raises(ConnectionError, match="no Ray connection of its own"):
            call()
    assert RayLink("nowhere").send([]) is None, "what is logged waits"


def test_every_client_survives_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    joined = system.System("nowhere")
    for client in (joined, joined.metrics, joined.retrains, joined.versions, joined.tuner):
        assert type(pickle.loads(pickle.dumps(client))) is type(client)
    with pytest.raises(ConnectionError, match=r"dispatcher\.\w+: this process has no Ray connection"):
        pickle.loads(pickle.dumps(joined.retrains)).history()


class _Observer:
    def on_event(self, event: MetricsEvent) -> None:
        """See nothing."""


def test_a_fork_has_no_connection_of_its_own_until_it_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[object] = [object()]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(connection, "worker", lambda: held[-1])
    assert connection.is_own()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        inherited = connection.is_own()
        held.append(object())
        os.write(write, b"%d%d" % (inherited, connection.is_own()))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 2) == b"01"
    os.close(read)
    assert connection.is_own()

"""Studies on a real Ray: the same table whatever happens, nothing finished lost, nothing finished run again."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import failpoints
from actors.cluster import deployment
from actors.storage import Store
from actors.tuning.client import StudyError, Tuning
from actors.tuning.offline import list_studies, read_study
from actors.tuning.study import Study
from tests.speed import slow

SPACE = {"x": [0.0, 1.0], "n": [1, 9, "int"]}


class Tuners:
    """The tuner and its runner alone, in a namespace and a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"tune-{uuid.uuid4().hex[:6]}"
        self.storage = f"sqlite:///{folder}/store"
        Store(self.storage).close()  # only a start makes one
        self.start()
        self.tuning = Tuning(self.namespace)

    def start(self) -> None:
        for name in ("runner", "tuner"):
            ray.get(deployment.spawn(name, namespace=self.namespace, storage=self.storage).hello.remote(), timeout=slow(60))

    def pid(self, name: str) -> int:
        handle = deployment.find(name, self.namespace)
        assert handle is not None
        hello: Any = ray.get(handle.hello.remote(), timeout=slow(60))
        return int(hello["pid"])

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def stop(self) -> None:
        deployment.end_actors(self.namespace)


@pytest.fixture(scope="module")
def tuners(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuners]:
    made = Tuners(tmp_path_factory.mktemp("tuners"))
    yield made
    made.stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "executions"


def executions(log: Path) -> Counter[int]:
    """How often each trial was begun."""
    return Counter(int(line.split()[0]) for line in log.read_text().splitlines()) if log.exists() else Counter()


def logged(log: Path, seconds: float = 0.0, held_from: int | None = None) -> Callable[..., float]:
    """An objective that writes down each execution before it ends; trials from `held_from` on wait until `release(log)`."""
    path = str(log)

    def objective(params: dict[str, Any], trial: Any) -> float:
        time.sleep(seconds)
        while held_from is not None and trial.id >= held_from and not os.path.exists(f"{path}.go"):  # noqa: PTH110  shipped by value
            time.sleep(0.01)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{trial.id} {os.getpid()}\n".encode())
        os.close(descriptor)
        return float(params["x"] + trial.seed / 2**32)

    return objective


def release(log: Path) -> None:
    Path(f"{log}.go").touch()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + slow(seconds)
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def _ran_more_than(log: Path, trials: int) -> bool:
    return len(executions(log)) > trials


def table(study: Study) -> list[tuple[int, str, float | None]]:
    return [(trial.id, json.dumps(trial.params), trial.value) for trial in study.trials]


def test_one_two_and_eight_workers_give_the_same_table_bit_for_bit(tuners: Tuners, log: Path) -> None:
    tables = []
    runs: list[tuple[int, Any]] = [(1, "inline"), (2, "child"), (8, "inline")]
    for workers, executor in runs:
        study = tuners.tuning.run(
            logged(log), SPACE, trials=200, seed=7, max_concurrent=workers, executor=executor, resources={"cpu": 0.25}
        )
        assert study.state == "DONE"
        assert study.counts() == {"COMPLETED": 200}
        tables.append(table(study))
    assert tables[0] == tables[1] == tables[2]
    assert study.best.value == min(value for _, _, value in tables[0] if value is not None)
    assert executions(log) == dict.fromkeys(range(200), 3)


def test_a_tuner_killed_three_times_loses_and_repeats_nothing(tuners: Tuners, log: Path) -> None:
    tuners.tuning.submit(logged(log, 0.002), SPACE, trials=1500, seed=3, name="killed", max_concurrent=2)
    for part in (200, 600, 1000):
        wait_for(functools.partial(_ran_more_than, log, part), "the study does not go on")
        tuners.kill("tuner")
    study = tuners.tuning.wait("killed", timeout_s=slow(60))
    assert study.counts() == {"COMPLETED": 1500}
    assert executions(log) == dict.fromkeys(range(1500), 1)
    expected = tuners.tuning.run(lambda params: 0.0, SPACE, trials=1500, seed=3)
    assert [trial.params for trial in study.trials] == [trial.params for trial in expected.trials]
    # Read with no system, the study is the same.
    assert table(read_study(tuners.storage, "killed")) == table(study)
    assert "killed" in [listed["name"] for listed in list_studies(tuners.storage)]


@pytest.mark.parametrize("point", ["tuner.before_commit", "tuner.after_commit"])
def test_a_tuner_that_dies_around_its_commit_loses_and_repeats_nothing(
    tuners: Tuners, log: Path, failpoints: Path, point: str
) -> None:
    name = f"at {point}"
    tuners.tuning.submit(logged(log, 0.002, held_from=200), SPACE, trials=400, name=name, max_concurrent=2)
    wait_for(lambda: len(executions(log)) > 50, "the study does not go on")
    arm(failpoints, point, "exit")
    release(log)
    study = tuners.tuning.wait(name, timeout_s=slow(60))
    assert not (failpoints / point).exists(), "the failpoint was not reached"
    assert study.counts() == {"COMPLETED": 400}
    assert executions(log) == dict.fromkeys(range(400), 1)


arm = failpoints.arm


def test_a_killed_worker_costs_only_what_it_was_running(tuners: Tuners, log: Path) -> None:
    tuners.tuning.submit(logged(log, 0.05, held_from=50), SPACE, trials=60, name="worker killed", max_concurrent=2)
    wait_for(lambda: len(executions(log)) > 10, "the study does not go on")
    for _ in range(2):
        pid = int(log.read_text().splitlines()[-1].split()[1])
        os.kill(pid, signal.SIGKILL)
        before = len(executions(log))
        wait_for(functools.partial(_ran_more_than, log, min(before + 5, 45)), "the study does not go on")
    release(log)
    study = tuners.tuning.wait("worker killed", timeout_s=slow(60))
    assert study.counts() == {"COMPLETED": 60}
    # Each kill may repeat what that worker had run and not yet reported: at 50 ms a trial, one.
    assert sum(executions(log).values()) <= 62
    assert max(trial.attempts for trial in study.trials) >= 2


def test_a_killed_runner_costs_only_what_ran(tuners: Tuners, log: Path) -> None:
    tuners.tuning.submit(logged(log, 0.02), SPACE, trials=100, name="runner killed", max_concurrent=2)
    wait_for(lambda: len(executions(log)) > 20, "the study does not go on")
    tuners.kill("runner")
    study = tuners.tuning.wait("runner killed", timeout_s=slow(60))
    assert study.counts() == {"COMPLETED": 100}, [trial.error for trial in study.trials if trial.error]
    assert sum(executions(log).values()) <= 104


DRIVER = """
import sys, time, ray
from actors.tuning.client import Tuning

address, namespace, path = sys.argv[1:]
ray.init(address=address, logging_level="ERROR", log_to_driver=False)


def objective(params, trial):
    time.sleep(0.02)
    with open(path, "a") as file:
        file.write(f"{trial.id} 0\\n")
    return params["x"]


Tuning(namespace).run(objective, {"x": [0.0, 1.0]}, trials=120, seed=1, name="driver killed", max_concurrent=2)
"""


def test_a_killed_driver_wastes_nothing_and_its_study_is_taken_up_by_name(tuners: Tuners, cluster: str, log: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster, tuners.namespace, str(log)])
    try:
        wait_for(lambda: len(executions(log)) > 10, "the study does not begin")
    finally:
        driver.kill()
        driver.wait()
    study = tuners.tuning.run(logged(log), {"x": [0.0, 1.0]}, trials=120, seed=1, name="driver killed")
    assert study.counts() == {"COMPLETED": 120}
    assert executions(log) == dict.fromkeys(range(120), 1)
    with pytest.raises(ValueError, match="space of the study 'driver killed' must stay"):
        tuners.tuning.run(logged(log), {"x": [0.0, 2.0]}, trials=120, seed=1, name="driver killed")
    with pytest.raises(ValueError, match="seed of the study 'driver killed' must stay 1, got 2"):
        tuners.tuning.run(logged(log), {"x": [0.0, 1.0]}, trials=120, seed=2, name="driver killed")


@pytest.mark.parametrize("executor", ["inline", "fork"])
def test_a_stopped_study_ends_what_runs_and_is_resumed_by_name(tuners: Tuners, tmp_path: Path, executor: Any) -> None:
    go = tmp_path / "go"

    def objective(params: dict[str, Any]) -> float:
        while not go.exists():
            time.sleep(0.01)
        return float(params["x"])

    name = f"stopped {executor}"
    submitted = tuners.tuning.submit(objective, SPACE, trials=20, seed=5, name=name, max_concurrent=2, executor=executor)
    assert submitted.state == "RUNNING"
    wait_for(lambda: tuners.tuning.study(name).counts().get("RUNNING") == 2, "no trial hangs")
    tuners.tuning.stop(name)
    stopped = tuners.tuning.study(name)
    assert stopped.state == "STOPPED"
    assert stopped.counts()["CANCELLED"] == 2
    go.touch()
    if executor == "inline":  # by its whole submission, or by its name alone
        resumed = tuners.tuning.run(objective, SPACE, trials=20, name=name, max_concurrent=2, executor=executor)
    else:
        tuners.tuning.resume(name)
        resumed = tuners.tuning.wait(name)
    assert resumed.counts() == {"COMPLETED": 20}
    whole = tuners.tuning.run(lambda params: float(params["x"]), SPACE, trials=20, seed=5)
    assert table(resumed) == table(whole)


def test_an_objective_that_kills_its_worker_fails_alone(tuners: Tuners) -> None:
    def objective(params: dict[str, Any]) -> float:
        if params["n"] == 9:
            ctypes.string_at(0)
        return float(params["x"])

    study = tuners.tuning.run(objective, {"n": {"choices": [9, 1]}, "x": [0.0, 1.0]}, trials=4, seed=0, max_concurrent=2)
    for trial in study.trials:
        if trial.params["n"] == 9:
            assert trial.state == "FAILED"
            assert "the worker process died 3 times" in str(trial.error)
        else:
            assert trial.state == "COMPLETED"
    assert {trial.params["n"] for trial in study.trials} == {1, 9}


def test_a_hang_is_killed_at_its_time_out_and_the_rest_completes(tuners: Tuners) -> None:
    def objective(params: dict[str, Any]) -> float:
        if params["n"] > 7:
            time.sleep(3600)
        return float(params["x"])

    study = tuners.tuning.run(objective, SPACE, trials=12, seed=1, timeout_s=slow(1.0), max_concurrent=2)
    assert {trial.state for trial in study.trials if trial.params["n"] > 7} == {"TIMED_OUT"}
    assert {trial.state for trial in study.trials if trial.params["n"] <= 7} == {"COMPLETED"}


def test_early_stopping_cuts_trials_short(tuners: Tuners) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        for step in range(1, 60):
            if not trial.report(step, params["x"]):
                break
            time.sleep(0.01)
        return float(params["x"])

    study = tuners.tuning.run(
        objective, SPACE, trials=16, seed=1, max_concurrent=4, early_stopping={"name": "asha", "min_steps": 4, "reduction": 2}
    )
    counts = study.counts()
    assert counts["PRUNED"] >= 3
    assert counts["PRUNED"] + counts["COMPLETED"] == 16
    assert study.best.state == "COMPLETED"
    pruned = [trial.params["x"] for trial in study.trials if trial.state == "PRUNED"]
    assert study.best.params["x"] < min(pruned)


def test_a_study_whose_objective_workers_cannot_open_fails_before_any_trial(tuners: Tuners) -> None:
    with pytest.raises(StudyError, match="cannot be loaded on a worker: ModuleNotFoundError: No module named 'no_such_module'"):
        tuners.tuning.run("no_such_module:objective", SPACE, trials=5)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"objective": 7}, "objective must be callable"),
        ({"objective": lambda: 0}, "objective must take"),
        ({"objective": "nonsense"}, "objective must be module:function"),
        ({"space": {"x": [1, 0]}}, "min must be below max"),
        ({"trials": 0}, "trials must be"),
        ({"strategy": "nonsense"}, "strategy 'nonsense' is unknown"),
        ({"mode": "best"}, "mode must be"),
    ],
)
def test_bad_input_is_refused_before_any_trial(tuners: Tuners, changes: dict[str, Any], rule: str) -> None:
    before = len(tuners.tuning.studies())
    call: dict[str, Any] = {"objective": lambda params: 0.0, "space": SPACE, "trials": 5} | changes
    with pytest.raises(ValueError, match=rule):
        tuners.tuning.run(call.pop("objective"), call.pop("space"), **call)
    assert len(tuners.tuning.studies()) == before


def test_a_module_beside_the_script_reaches_workers_that_lack_it(tuners: Tuners, tmp_path: Path) -> None:
    (tmp_path / "only_beside_the_script.py").write_text("import also_there\n\ndef scaled(x):\n    return also_there.K * x\n")
    (tmp_path / "also_there.py").write_text("K = 3.0\n")
    (tmp_path / "script.py").write_text(
        "import os, sys, ray, only_beside_the_script\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "from actors.tuning.client import Tuning\n"
        "def objective(params):\n    return only_beside_the_script.scaled(params['x'])\n"
        "for executor in ('inline', 'child'):\n"
        "    study = Tuning(sys.argv[2]).run(objective, {'x': [1, 2]}, trials=4, seed=1, executor=executor, progress=False)\n"
        "    assert study.counts() == {'COMPLETED': 4}, [trial.error for trial in study.trials]\n"
        "    assert all(trial.value == 3 * trial.params['x'] for trial in study.trials)\n"
    )
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, str(tmp_path / "script.py"), address, tuners.namespace]
    environment = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=slow(120), check=False, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_deleted_study_is_gone_and_its_name_is_free(tuners: Tuners) -> None:
    tuners.tuning.run(lambda params: params["x"], SPACE, trials=3, name="to be deleted", seed=1)
    tuners.tuning.delete("to be deleted")
    with pytest.raises(KeyError, match="got 'to be deleted'"):
        tuners.tuning.delete("to be deleted")
    assert "to be deleted" not in {study["name"] for study in tuners.tuning.studies()}
    again = tuners.tuning.run(lambda params: params["x"], SPACE, trials=2, name="to be deleted", seed=2)
    assert len(again.trials) == 2


def test_a_fork_of_a_connected_process_is_told_at_once_that_it_has_no_connection(tuners: Tuners) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        began_s = time.monotonic()
        try:
            tuners.tuning.studies()
            said = "answered"
        except ConnectionError as error:
            said = str(error)
        os.write(write, f"{time.monotonic() - began_s:.1f} {said}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    took_s, said = os.read(read, 1000).decode().split(" ", 1)
    os.close(read)
    assert "has no Ray connection of its own" in said
    assert float(took_s) < slow(5)
    assert tuners.tuning.studies()  # its parent goes on


def test_an_unknown_study_is_named(tuners: Tuners) -> None:
    with pytest.raises(KeyError, match="got 'nobody'"):
        tuners.tuning.study("nobody")


def test_a_caller_without_the_package_submits_and_reads_plain_values(tuners: Tuners, cluster: str) -> None:
    code = (
        "import sys, json, ray\n"
        "sys.modules['actors'] = None\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "tuner = ray.get_actor('tuner', namespace=sys.argv[2])\n"
        "ray.get(tuner.submit.remote(objective='builtins:len', plan={'name': 'plain', 'space': {'x': [1, 2]}, 'trials': 3}))\n"
        "summary = ray.get(tuner.study.remote(name='plain', wait_s=30))\n"
        "print(json.dumps([summary['state'], [t['value'] for t in ray.get(tuner.trials.remote(name='plain'))]]))\n"
    )
    command = [sys.executable, "-c", code, cluster, tuners.namespace]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=slow(60), cwd="/")
    assert json.loads(found.stdout.splitlines()[-1]) == ["DONE", [1.0, 1.0, 1.0]]

"""What stands between a user and the tuner: shipping an objective, counting capacity, telling progress."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.runner import capacity
from actors.replies import StudySummary
from actors.tuning import Tuning, shipping
from actors.tuning.executors.trial import Objective
from actors.tuning.progress import Progress, Watch, watching


def test_an_objective_of_a_local_module_travels_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_mine.py").write_text(
        "K = 3\n\ndef helper(x):\n    return K * x\n\ndef f(params):\n    return helper(params['x'])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    packed = shipping.pack(shipping.load("module_of_mine:f"))
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())({'x': 2}))"
    found = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True, cwd="/")
    assert found.stdout == b"6\n"


OPEN = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())({'x': 2}))"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write modules into the folder of a script; what a test imports from there is forgotten at its end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**modules: str) -> Path:
        for name, text in modules.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def opened_elsewhere(packed: bytes) -> str:
    """Open an objective in a process that has none of its files, and call it with x = 2."""
    found = subprocess.run([sys.executable, "-c", OPEN], input=packed, capture_output=True, check=False, cwd="/")
    return found.stdout.decode().strip() or found.stderr.decode().strip().splitlines()[-1]


@pytest.mark.parametrize(
    "objective",
    [
        "import helpers_of_mine\ndef f(params):\n    return helpers_of_mine.scaled(params['x'])\n",
        "from helpers_of_mine import scaled\ndef f(params):\n    return scaled(params['x'])\n",
        "def f(params):\n    import helpers_of_mine\n    return helpers_of_mine.scaled(params['x'])\n",
        (
            "def f(params):\n    def inner():\n        from helpers_of_mine import scaled\n        return scaled\n"
            "    return inner()(params['x'])\n"
        ),
        "from helpers_of_mine import Scale\nscale = Scale()\ndef f(params):\n    return scale.of(params['x'])\n",
        "def f(params):\n    from package_of_mine.inner import deep\n    return deep(params['x'])\n",
        "import package_of_mine.inner\ndef f(params):\n    return package_of_mine.inner.deep(params['x'])\n",
        (
            "import importlib\ndef f(params):\n"
            "    return importlib.import_module('package_of_mine.by_name').helpers().scaled(params['x'])\n"
        ),
    ],
    ids=["module", "function", "inside", "nested", "instance", "package inside", "package", "by name"],
)
def test_local_modules_beside_the_script_travel_with_the_objective(beside: Callable[..., Path], objective: str) -> None:
    beside(
        objective_of_mine=objective,
        helpers_of_mine="import constants_of_mine\n\nclass Scale:\n    def of(self, x):\n        return scaled(x)\n\n"
        "def scaled(x):\n    return constants_of_mine.K * x\n",
        constants_of_mine="K = 3\ntry:\n    import no_such_module_at_all\nexcept ImportError:\n    pass\n",
        package_of_mine__in____init__="",
        package_of_mine__in__inner="from package_of_mine import other\nfrom .other import K\n\ndef deep(x):\n"
        "    from . import lazily\n    return lazily.one() * K * other.ONE * x\n",
        package_of_mine__in__other="K = 3\nONE = 1\n",
        package_of_mine__in__lazily="def one():\n    return 1\n",
        package_of_mine__in__by_name="def helpers():\n    return __import__('helpers_of_mine')\n",
    )
    assert opened_elsewhere(shipping.pack(shipping.load("objective_of_mine:f"))) == "6"


def test_a_script_that_is_run_takes_the_modules_beside_it_along(beside: Callable[..., Path]) -> None:
    folder = beside(
        script_of_mine="import sys\nimport helpers_of_mine\nfrom actors.tuning import shipping\n"
        "sys.stdout.buffer.write(shipping.pack(lambda params: helpers_of_mine.scaled(params['x'])))\n",
        helpers_of_mine="def scaled(x):\n    return 3 * x\n",
    )
    made = subprocess.run([sys.executable, str(folder / "script_of_mine.py")], capture_output=True, check=True, cwd="/")
    assert opened_elsewhere(made.stdout) == "6"


def test_what_travelled_wins_over_a_file_of_that_name_and_does_not_stay_for_the_next_study(
    beside: Callable[..., Path], tmp_path: Path
) -> None:
    beside(
        objective_of_mine="import helpers_of_mine\ndef f(params):\n    return helpers_of_mine.K * params['x']\n",
        helpers_of_mine="K = 3\n",
    )
    first = shipping.pack(shipping.load("objective_of_mine:f"))
    (tmp_path / "helpers_of_mine.py").write_text("K = 50\n")
    second = shipping.pack(shipping.load("objective_of_mine:f"))
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "helpers_of_mine.py").write_text("K = 7\n")
    code = (
        "import pickle, sys, helpers_of_mine; first, second = pickle.load(sys.stdin.buffer); "
        "print(helpers_of_mine.K, pickle.loads(first)({'x': 1}), pickle.loads(second)({'x': 1}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((first, second)), capture_output=True, check=True, cwd=other
    )
    assert found.stdout.split() == [b"7", b"3", b"50"]


def test_a_local_module_without_a_source_is_refused_before_anything_runs(beside: Callable[..., Path], tmp_path: Path) -> None:
    import py_compile

    beside(
        objective_of_mine="import helpers_of_mine\ndef f(params):\n    return helpers_of_mine.K * params['x']\n",
        helpers_of_mine="K = 3\n",
    )
    py_compile.compile("helpers_of_mine.py", cfile=str(tmp_path / "helpers_of_mine.pyc"))
    (tmp_path / "helpers_of_mine.py").unlink()
    with pytest.raises(ValueError, match=r"local module 'helpers_of_mine', which has no source to ship"):
        shipping.pack(shipping.load("objective_of_mine:f"))


def test_more_local_modules_than_an_objective_may_drag_along_are_refused(
    beside: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_MAX_MODULES", 3)
    modules = {f"helper_{n}_of_mine": f"import helper_{n + 1}_of_mine\n" for n in range(5)} | {"helper_5_of_mine": ""}
    beside(objective_of_mine="import helper_0_of_mine as h\ndef f(params):\n    return h.K * params['x']\n", **modules)
    with pytest.raises(ValueError, match="more than 3 local modules"):
        shipping.pack(shipping.load("objective_of_mine:f"))


def test_an_installed_objective_travels_by_reference() -> None:
    import statistics

    assert len(shipping.pack(statistics.fmean)) < 100
    assert pickle.loads(shipping.pack(statistics.fmean)) is statistics.fmean


def test_what_cannot_be_shipped_says_why() -> None:
    import threading

    lock = threading.Lock()

    def objective(_params: Any) -> float:
        return float(lock.locked())

    with pytest.raises(ValueError, match="objective cannot be pickled: TypeError"):
        shipping.pack(objective)
    with pytest.raises(ValueError, match="must be callable"):
        shipping.pack(7)  # type: ignore[arg-type]
    for target, rule in (
        ("nonsense", "must be module:function"),
        ("no_such:f", "cannot be imported"),
        ("math:no", "cannot be imported"),
    ):
        with pytest.raises(ValueError, match=rule):
            shipping.load(target)


def test_a_reference_is_opened_by_import() -> None:
    with pytest.raises(Exception, match="No module named"):
        Objective(b"ref:no_such:f")
    assert Objective(b"ref:math:fsum")._function([1, 2]) == 3.0


NODES = [{"CPU": 4.0, "memory": 8e9, "node:1": 1.0}, {"CPU": 2.0, "GPU": 1.0, "memory": 2e9}, {}]


@pytest.mark.parametrize(
    ("resources", "tasks"),
    [
        ({}, 6),
        ({"cpu": 0.5}, 12),
        ({"cpu": 3}, 1),
        ({"gpu": 0.25}, 2),  # a CPU each as well
        ({"gpu": 0.25, "cpu": 0}, 4),
        ({"memory_bytes": 2e9}, 5),
        ({"licence": 1}, 0),
        ({"cpu": 0}, 6),
    ],
)
def test_how_many_trials_the_nodes_could_carry(resources: dict[str, float], tasks: int) -> None:
    assert capacity(NODES, resources) == tasks


def summary(done: int, **changes: Any) -> StudySummary:
    known: Any = {
        "name": "s",
        "state": "RUNNING",
        "done": done,
        "trials": 100,
        "workers": 2,
        "best_value": None,
        "counts": {"RUNNING": 2, "FAILED": 1, "TIMED_OUT": 1},
    } | changes
    told: StudySummary = known
    return told


def test_progress_tells_done_best_rate_failures_and_time_left() -> None:
    seen: list[Progress] = []
    watch = Watch(seen.append, 1.0, clock=iter([10.0, 12.0, 14.0]).__next__)
    watch.take(summary(0))
    watch.take(summary(20, best_value=0.125))
    watch.take(summary(100, state="DONE", best_value=0.1))
    assert [now.line() for now in seen] == [
        "s: 0/100 trials, no value yet, 2 failed",
        "s: 20/100 trials, best 0.125, 10 trials/s, 2 failed, 8 s left",
        "s: 100/100 trials, best 0.1, 25 trials/s, 2 failed",
    ]


def test_without_a_terminal_lines_are_printed_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for asked, printed in ((None, 0), (False, 0), (True, 1)):
        with watching("s", asked) as watch:
            watch.take(summary(1))
        assert capsys.readouterr().err.count("1/100") == printed


def test_without_a_ray_connection_of_its_own_a_process_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("nobody waits for a connection that this process has never made"))
    tuning = Tuning("ns")
    calls: list[Callable[[], object]] = [
        tuning.studies,
        lambda: tuning.study("s"),
        lambda: tuning.stop("s"),
        lambda: tuning.delete("s"),
        lambda: tuning.run("math:fsum", {"x": [0, 1]}, trials=1),
    ]
    for call in calls:
        with pytest.raises(ConnectionError, match=r"no Ray connection of its own .* call actors.connect\(\)"):
            call()

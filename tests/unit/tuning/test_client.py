"""What stands between a user and the tuner: shipping an objective, counting capacity, telling progress."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.runner import capacity
from actors.replies import StudySummary
from actors.tuning import shipping
from actors.tuning.executors.trial import Objective
from actors.tuning.progress import Watch, watching


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
    known: Any = {"name": "s", "state": "RUNNING", "done": done, "trials": 100, "workers": 2, "best_value": None,
                  "counts": {"RUNNING": 2, "FAILED": 1, "TIMED_OUT": 1}} | changes  # fmt: skip
    told: StudySummary = known
    return told


def test_progress_tells_done_best_rate_failures_and_time_left() -> None:
    seen = []
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

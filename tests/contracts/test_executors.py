"""Every executor against every objective that misbehaves: it costs its own trial, and the next one runs."""

from __future__ import annotations

import ctypes
import json
import os
import posix
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from actors.tuning.executors import isolated
from actors.tuning.executors.create import Executor, create
from actors.tuning.executors.trial import Assignment, LoadError, TrialTerms, wants_trial
from actors.tuning.rules.steps import Outcome
from tests.speed import slow

CONTAINING = ["child", "fork"]
ALL = ["inline", *CONTAINING]


class HugeText:
    def __repr__(self) -> str:
        return "x" * 10**7


class BrokenTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(_: Any) -> float:
    raise RuntimeError("the data is gone")


def raising_endlessly(_: Any) -> float:
    raise RuntimeError("x" * 10**7)


def raising_without_text(_: Any) -> float:
    raise BrokenTextError


def exiting(_: Any) -> float:
    sys.exit(3)


def without_memory(_: Any) -> float:
    raise MemoryError


def flooding(_: Any) -> float:
    for _line in range(1000):
        sys.stdout.write("x" * 99_999 + "\n")
    return 1.0


def forking(_: Any) -> float:
    child = os.fork()  # the child comes back from here as well
    if child:
        os.waitpid(child, 0)
    return 1.0


def segfaulting(_: Any) -> float:
    ctypes.string_at(0)
    return 1.0


def ending_its_process(_: Any) -> float:
    os._exit(7)


def killing_itself(_: Any) -> float:
    os.kill(os.getpid(), 9)
    return 1.0


def hanging(_: Any) -> float:
    time.sleep(3600)
    return 1.0


def leaving_a_hanging_grandchild(_: Any) -> float:
    subprocess.Popen(["sleep", "3600"])
    os._exit(5)


def hoarding(_: Any) -> float:
    return float(len(bytearray(3 * 2**30)))


def closing_every_file(_: Any) -> float:
    os.closerange(0, 256)
    return 1.0


# What runs anywhere and fails its own trial: (objective, what the error says).
RAISING: list[tuple[Callable[..., Any], str]] = [
    (raising, "RuntimeError: the data is gone"),
    (raising_endlessly, "RuntimeError: xxx"),
    (raising_without_text, "BrokenTextError"),
    (exiting, "SystemExit: 3"),
    (without_memory, "MemoryError"),
    (lambda _: None, "must return a number, got NoneType"),
    (lambda _: "0.5", "must return a number, got str"),
    (lambda _: True, "must return a number, got bool"),
    (lambda _: [1.0], "must return a number, got list"),
    (lambda _: {"loss": 1.0}, "must return a number, got dict"),
    (lambda _: 1j, "must return a number, got complex"),
    (lambda _: "x" * 10**8, "must return a number, got str"),
    (lambda _: HugeText(), "must return a number, got HugeText"),
    (lambda _: float("nan"), "must return a finite number, got nan"),
    (lambda _: float("-inf"), "must return a finite number, got -inf"),
    (lambda _: 10**5000, "must return a finite number"),
]

# What takes its process with it.
DEADLY: list[tuple[Callable[..., Any], str]] = [
    (segfaulting, "SIGSEGV"),
    (ending_its_process, "exit code 7"),
    (killing_itself, "SIGKILL (out of memory?)"),
    (leaving_a_hanging_grandchild, "exit code 5"),
    (hoarding, "MemoryError"),
    (closing_every_file, "ended with exit code"),
]


def dispatch(table: list[tuple[Callable[..., Any], str]], *others: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    """One objective that misbehaves by its parameter `n`, and behaves where it is -1: a zygote costs 0.1 s."""
    objectives = [*(objective for objective, _ in table), *others]

    def objective(params: dict[str, Any]) -> Any:
        return 0.25 if params["n"] < 0 else objectives[params["n"]](params)

    return objective


class Runner:
    def __init__(self, executor: str, objective: Any, *, go_on: bool = True, **study: Any) -> None:
        self.reported: list[tuple[int, int, float]] = []

        def reported(assignment: Assignment, step: int, value: float) -> bool:
            self.reported.append((assignment.trial, step, value))
            return go_on

        shipped = objective if isinstance(objective, bytes) else b"pkl:" + _by_value(objective)
        self.executor: Executor = create(
            executor,
            shipped,
            TrialTerms(**{"context": {"k": 1}} | study),
            reported=reported,
            seed_of=lambda trial: 1000 + trial,
        )
        self.trials = 0

    def run(self, **params: Any) -> Outcome:
        self.trials += 1
        return self.executor.run(Assignment(self.trials, 1, json.dumps(params)))


def _by_value(objective: Any) -> bytes:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return bytes(cloudpickle.dumps(objective))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


sys.modules.setdefault(__name__, sys.modules[__name__])


@pytest.fixture
def made() -> Iterator[Callable[..., Runner]]:
    runners: list[Runner] = []

    def make(*arguments: Any, **settings: Any) -> Runner:
        runners.append(Runner(*arguments, **settings))
        return runners[-1]

    yield make
    for runner in runners:
        runner.executor.close()


@pytest.mark.parametrize("executor", ALL)
def test_what_fails_by_itself_costs_its_trial_with_the_error(made: Any, executor: str) -> None:
    runner = made(executor, dispatch(RAISING))
    for number, (_, error) in enumerate(RAISING):
        outcome = runner.run(n=number)
        assert (outcome.kind, outcome.value) == ("failed", None), error
        assert error in str(outcome.error)
        assert len(str(outcome.error)) < 5000
        assert runner.run(n=-1) == Outcome("completed", 0.25, None)


@pytest.mark.parametrize("executor", ALL)
def test_printing_and_forking_cost_nothing(made: Any, executor: str, capfd: pytest.CaptureFixture[str]) -> None:
    runner = made(executor, dispatch([], flooding, forking))
    assert runner.run(n=1) == Outcome("completed", 1.0, None)
    if executor != "inline":  # inline prints where its worker prints
        assert runner.run(n=0) == Outcome("completed", 1.0, None)
        printed = capfd.readouterr().out
        assert "bytes dropped" in printed
        assert len(printed) < 200_000
    assert runner.run(n=-1) == Outcome("completed", 0.25, None)


@pytest.mark.parametrize("executor", CONTAINING)
def test_what_kills_its_process_costs_its_trial_with_the_reason(made: Any, executor: str) -> None:
    runner = made(executor, dispatch(DEADLY), memory_bytes=2**30)
    for number, (_, error) in enumerate(DEADLY):
        outcome = runner.run(n=number)
        assert (outcome.kind, outcome.value) == ("failed", None), error
        assert error in str(outcome.error)
        assert runner.run(n=-1) == Outcome("completed", 0.25, None)


def test_inline_a_crash_takes_the_worker_which_is_documented() -> None:
    code = (
        "import json, sys; sys.path.insert(0, '.')\n"
        "from actors.tuning.executors.create import create\n"
        "from actors.tuning.executors.trial import Assignment, TrialTerms\n"
        "e = create('inline', b'ref:os:_exit', TrialTerms(None), reported=lambda *_: True, seed_of=int)\n"
        "e.run(Assignment(0, 1, '9'))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


@pytest.mark.parametrize("executor", CONTAINING)
def test_a_hang_is_killed_at_its_time_out_with_all_it_started(made: Any, executor: str) -> None:
    def hanging_with_a_grandchild(params: dict[str, Any]) -> float:
        if params["n"] < 0:
            return 0.25
        started = subprocess.Popen(["sleep", "3600"])
        Path(params["path"]).write_text(str(started.pid))
        time.sleep(3600)
        return 1.0

    path = Path(f"/tmp/visutility-test-{os.getpid()}-{executor}")
    timeout_s = slow(1.0)  # within it, the grandchild is started and noted, and the next trial ends
    runner = made(executor, hanging_with_a_grandchild, timeout_s=timeout_s)
    outcome = runner.run(n=0, path=str(path))
    assert outcome == Outcome("timed_out", None, f"killed after {timeout_s:g} s")
    assert runner.run(n=-1, path=str(path)) == Outcome("completed", 0.25, None)
    grandchild = int(path.read_text())
    path.unlink()
    deadline = time.monotonic() + slow(30)
    while _runs(grandchild):
        assert time.monotonic() < deadline, "the grandchild still runs"
        time.sleep(0.01)


@pytest.mark.parametrize("executor", CONTAINING)
def test_one_that_reports_all_the_time_is_killed_at_its_time_out_too(made: Any, executor: str) -> None:
    def objective(_params: dict[str, Any], trial: Any) -> float:
        while True:
            trial.report(1, 0.0)

    assert made(executor, objective, timeout_s=0.2).run() == Outcome("timed_out", None, "killed after 0.2 s")


@pytest.mark.parametrize("executor", ALL)
def test_threads_of_an_objective_report_together_and_not_after_its_end(made: Any, executor: str) -> None:
    def objective(_params: dict[str, Any], trial: Any) -> float:
        import threading

        def report(first: int) -> None:
            for step in range(first, first + 50):
                assert trial.report(step, 1.0)

        def report_on() -> None:
            try:
                while True:
                    trial.report(1000, 1.0)
                    time.sleep(0.001)
            except RuntimeError:  # the trial has ended
                pass

        threads = [threading.Thread(target=report, args=(100 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threading.Thread(target=report_on, daemon=True).start()
        return 1.0

    runner = made(executor, objective)
    for trial in (1, 2, 3):
        assert runner.run() == Outcome("completed", 1.0, None)
        steps = sorted(step for number, step, _ in runner.reported if number == trial and step < 1000)
        assert steps == [100 * thread + step for thread in range(8) for step in range(50)]


@pytest.mark.parametrize("executor", CONTAINING)
def test_what_a_trial_prints_for_ever_does_not_fill_the_disk(made: Any, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def objective(_params: dict[str, Any]) -> float:
        deadline_s = time.monotonic() + 2.0
        while time.monotonic() < deadline_s:
            sys.stdout.write("x" * 99_999 + "\n")
            time.sleep(0.0005)
        sys.stdout.write("the end\n")
        sys.stdout.flush()
        os._exit(7)

    sizes: list[int] = []
    runner = made(executor, objective)
    bound = runner.executor._bound_output

    def bounded() -> None:
        bound()
        sizes.append(os.fstat(runner.executor._output.fileno()).st_size)

    monkeypatch.setattr(isolated, "_LOOK_S", 0.05)
    monkeypatch.setattr(runner.executor, "_bound_output", bounded)
    assert str(runner.run().error).endswith("the end")
    assert len(sizes) > 5
    assert max(sizes) < 2 * isolated._MAX_OUTPUT_BYTES


@pytest.mark.parametrize("executor", CONTAINING)
def test_one_that_writes_half_a_message_to_its_worker_is_killed_at_its_time_out(made: Any, executor: str) -> None:
    def objective(params: dict[str, Any]) -> float:
        if params["n"] < 0:
            return 0.25
        import contextlib

        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"\xff\x00\x00\x00half")
        time.sleep(3600)
        return 1.0

    timeout_s = slow(1.0)  # within it, the next trial ends
    runner = made(executor, objective, timeout_s=timeout_s)
    assert runner.run(n=0) == Outcome("timed_out", None, f"killed after {timeout_s:g} s")
    assert runner.run(n=-1) == Outcome("completed", 0.25, None)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("executor", ALL)
def test_a_trial_has_its_seed_context_and_reports(made: Any, executor: str) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        assert (trial.id, trial.attempt, trial.seed, trial.context, trial.params) == (1, 1, 1001, {"k": 1}, params)
        assert trial.report(1, 0.5)
        assert trial.report(2, float("nan"))
        assert trial.report(np.int64(3), np.float32(0.25))
        assert trial.report(4, np.array(0.125))
        for step, value in ((-1, 1.0), (True, 1.0), (1, "x"), (1, None)):
            try:
                trial.report(step, value)
            except ValueError:
                continue
            raise AssertionError("a bad report was taken")
        return 2

    runner = made(executor, objective)
    assert runner.run(x=1) == Outcome("completed", 2.0, None)
    assert [report[:2] for report in runner.reported] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert [report[2] for report in runner.reported if report[1] > 2] == [0.25, 0.125]


@pytest.mark.parametrize("executor", ALL)
def test_a_stop_sign_reaches_the_objective(made: Any, executor: str) -> None:
    def objective(_params: dict[str, Any], trial: Any) -> float:
        for step in range(100):
            if not trial.report(step, 1.0):
                return float(step)
        return -1.0

    assert made(executor, objective, go_on=False).run() == Outcome("stopped", 0.0, None)


@pytest.mark.parametrize("executor", ALL)
@pytest.mark.parametrize(
    ("shipped", "error"),
    [
        (b"ref:no_such_module:f", "ModuleNotFoundError"),
        (b"ref:math:no_such", "AttributeError"),
        (b"pkl:\x80nonsense", "UnpicklingError|ValueError"),
        (b"ref:math:pi", "must be callable"),
    ],
)
def test_an_objective_that_cannot_be_opened_says_why(executor: str, shipped: bytes, error: str) -> None:
    with pytest.raises(LoadError, match=error):
        Runner(executor, shipped)


class KillsWhoeverOpensIt:
    def __reduce__(self) -> Any:
        return posix._exit, (4,)  # os._exit is replaced where coverage is measured


@pytest.mark.parametrize("executor", CONTAINING)
def test_an_objective_that_kills_whoever_opens_it_says_so(executor: str) -> None:
    with pytest.raises(LoadError, match="ended with code 4"):
        Runner(executor, b"pkl:" + cloudpickle.dumps(KillsWhoeverOpensIt()))


@pytest.mark.parametrize("executor", CONTAINING)
def test_cancelling_ends_what_runs(made: Any, executor: str) -> None:
    import threading

    runner = made(executor, hanging)
    threading.Timer(0.3, runner.executor.cancel).start()
    assert runner.run().kind == "failed"


@pytest.mark.parametrize("executor", CONTAINING)
def test_forks_do_not_share_their_random_numbers(made: Any, executor: str) -> None:
    def objective(_: Any) -> float:
        import random

        import numpy as np

        return random.random() + np.random.random()  # noqa: NPY002  the global one is what is tested

    runner = made(executor, objective)
    assert len({runner.run().value for _ in range(4)}) == 4


@pytest.mark.parametrize(
    ("objective", "answer"),
    [
        (lambda params: 0, False),
        (lambda params, trial: 0, True),
        (lambda params, other: 0, True),
        (lambda params, trial=None: 0, True),
        (lambda params, verbose=False: 0, False),
        (lambda *arguments: 0, False),
        (lambda params, **options: 0, False),
    ],
)
def test_what_an_objective_takes(objective: Any, answer: bool) -> None:
    assert wants_trial(objective) is answer


@pytest.mark.parametrize("objective", [lambda: 0, lambda a, b, c: 0, lambda *, params: 0, 7, None, "x"])
def test_an_objective_with_other_arguments_is_refused(objective: Any) -> None:
    with pytest.raises(ValueError, match="objective must"):
        wants_trial(objective)

"""What every search strategy keeps, ours and adapted ones."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from actors.tuning import ExhaustedError, Learner, PastTrial, TuningStrategy, create
from actors.tuning.strategies.interface import resume
from actors.tuning.strategies.space import parse

SPACE: dict[str, Any] = {
    "x": [-1.0, 1.0],
    "lr": [1e-5, 1e-2, "log"],
    "layers": [1, 8, "int"],
    "kind": {"choices": ["a", 1, True, None, [1, 2]]},
}


class Counting:
    """A user's strategy: no more than the protocol asks."""

    def __init__(self, space: Any, *, seed: int, step: float = 0.1) -> None:
        self._space, self._n, self._step = space, 0, step
        self.told: list[tuple[int, float | None]] = []

    def next_params(self) -> dict[str, Any]:
        self._n += 1
        return {"x": min(self._n * self._step, 1.0) - 1, "lr": 1e-3, "layers": 1, "kind": "a"}

    def tell(self, trial: int, loss: float | None) -> None:
        self.told.append((trial, loss))


sys.modules.setdefault("strategies_under_test", sys.modules[__name__])

INDEPENDENT = ["random", {"name": "grid", "points": 3}, "scipy:Sobol", "scipy:Halton", "scipy:LatinHypercube"]
LEARNING = ["optuna:TPESampler", "optuna:RandomSampler", "optuna:NSGAIISampler", "strategies_under_test:Counting"]
ALL = [*INDEPENDENT, *LEARNING]


def within(params: dict[str, Any]) -> bool:
    low_high = all(
        low <= params[name] <= high for name, (low, high) in {"x": (-1, 1), "lr": (1e-5, 1e-2), "layers": (1, 8)}.items()
    )
    encoded = [json.dumps(choice) for choice in SPACE["kind"]["choices"]]
    return low_high and isinstance(params["layers"], int) and json.dumps(params["kind"]) in encoded


@pytest.mark.parametrize("strategy", ALL, ids=str)
def test_parameters_are_plain_and_within_the_space(strategy: Any) -> None:
    made = create(strategy, SPACE, seed=3)
    assert isinstance(made, TuningStrategy)
    for trial in range(25):
        params = made.next_params()
        assert within(params)
        assert list(params) == [parameter.name for parameter in parse(SPACE).parameters]
        assert json.loads(json.dumps(params)) == params
        if isinstance(made, Learner):
            made.tell(trial, None if trial % 7 == 3 else float(trial))


@pytest.mark.parametrize("strategy", ALL, ids=str)
def test_the_same_seed_and_results_give_the_same_parameters(strategy: Any) -> None:
    def sequence() -> list[dict[str, Any]]:
        made, given = create(strategy, SPACE, seed=11), []
        for trial in range(20):
            given.append(made.next_params())
            if isinstance(made, Learner):
                made.tell(trial, given[-1]["x"] ** 2)
        return given

    assert sequence() == sequence()


@pytest.mark.parametrize("strategy", INDEPENDENT, ids=str)
def test_one_that_does_not_learn_resumes_exactly(strategy: Any) -> None:
    whole = create(strategy, SPACE, seed=5)
    expected = [whole.next_params() for _ in range(20)]
    resumed = create(strategy, SPACE, seed=5)
    resume(resumed, [PastTrial(params, finished=False, loss=None) for params in expected[:13]])
    assert [resumed.next_params() for _ in range(7)] == expected[13:]


@pytest.mark.parametrize("strategy", LEARNING, ids=str)
def test_one_that_learns_goes_on_after_a_restart(strategy: Any) -> None:
    first = create(strategy, SPACE, seed=5)
    past = [PastTrial(first.next_params(), finished=n % 3 != 2, loss=None if n == 4 else float(n)) for n in range(15)]
    resumed = create(strategy, SPACE, seed=5)
    resume(resumed, past)
    assert within(resumed.next_params())
    assert isinstance(resumed, Learner)
    resumed.tell(2, 0.5)  # an unfinished one finishes now
    resumed.tell(15, 0.25)
    assert within(resumed.next_params())


def test_a_restarted_tpe_has_learnt_what_its_predecessor_knew() -> None:
    """After 60 results with the best at x = 0.7 a fresh TPE that was only told of them looks there."""
    space = {"x": [-1.0, 1.0]}
    past = [PastTrial({"x": x}, finished=True, loss=(x - 0.7) ** 2) for x in (n / 30 - 1 for n in range(60))]
    resumed = create("optuna:TPESampler", space, seed=1)
    resume(resumed, past)
    asked = []
    for trial in range(60, 80):
        x = resumed.next_params()["x"]
        asked.append(abs(x - 0.7))
        assert isinstance(resumed, Learner)
        resumed.tell(trial, (x - 0.7) ** 2)
    assert sorted(asked)[10] < 0.2


def test_a_grid_gives_every_point_once_and_says_when_it_ends() -> None:
    grid = create({"name": "grid", "points": 3}, {"a": [0.0, 1.0], "n": [1, 2, "int"], "c": {"choices": ["x", "y"]}}, seed=0)
    points = [grid.next_params() for _ in range(12)]
    assert len({json.dumps(point) for point in points}) == 12 == grid.size  # type: ignore[attr-defined]
    assert points[:3] == [{"a": 0.0, "n": 1, "c": "x"}, {"a": 0.0, "n": 1, "c": "y"}, {"a": 0.0, "n": 2, "c": "x"}]
    assert {point["a"] for point in points} == {0.0, 0.5, 1.0}
    with pytest.raises(ExhaustedError, match="12 points"):
        grid.next_params()


@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        ("bayes", "unknown, expected random, grid"),
        ("", "unknown"),
        (7, "a name or"),
        ({"points": 3}, "a name or"),
        ("optuna:NoSampler", "expected one of"),
        ("optuna:GridSampler", "expected one of"),
        ("scipy:Faure", "expected one of"),
        ("no_such_module:Class", "cannot be imported"),
        ("json:NoClass", "cannot be imported"),
        ("collections:OrderedDict", "strategy"),
        ({"name": "grid", "points": 1}, "points must be"),
        ({"name": "random", "points": 1}, "points"),
        ({"name": "optuna:TPESampler", "nonsense": 1}, "nonsense"),
    ],
    ids=str,
)
def test_a_bad_strategy_is_refused_with_the_rule(strategy: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=r"strategy|points") as refused:
        create(strategy, SPACE, seed=0)
    assert rule in str(refused.value)


@pytest.mark.parametrize(("strategy", "extra"), [("optuna:TPESampler", "optuna"), ("scipy:Sobol", "scipy")])
def test_a_missing_extra_names_the_command_that_installs_it(strategy: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.setitem(sys.modules, f"{extra}.stats", None)
    with pytest.raises(ValueError, match=rf"pip install 'visutility\[{extra}\]'"):
        create(strategy, SPACE, seed=0)


def test_the_strategies_serve_without_ray() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from actors.tuning import TuningStrategy, RandomSearchTuner\n"
        "print(RandomSearchTuner({'lr': [1e-5, 1e-2]}, seed=0).next_params())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("{'lr': 0.00")

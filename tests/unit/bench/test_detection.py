"""The detection benchmark's own tools: a wrong yardstick would make every figure wrong."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.detection import main
from tests.bench.detection_families import FAMILIES
from tests.bench.detection_oracle import Oracle
from tests.bench.detection_runs import Measured, arl_row, default, delays, run_lengths
from tests.known import some

RATIOS = [name for name, family in FAMILIES.items() if family.log_ratio is not None and name != "seasonal"]


class AtOnce:
    """A negative control: alarms at its third event whatever it is."""

    def first(self, values: Any) -> Any:
        return 2 if len(values) > 2 else None


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_shift_of_one_moves_the_mean_by_one_standard_deviation(name: str) -> None:
    family = FAMILIES[name]
    before = family.stream(np.random.default_rng(1)).take(60_000)
    after = family.stream(np.random.default_rng(2)).take(60_000, family.bad * 1.0)
    sd = 0.03 if name in {"seasonal", "wander"} or name.startswith("ar") else before.std()
    assert (after.mean() - before.mean()) / (family.bad * sd) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_the_likelihood_ratio_is_one_on_average_without_a_change_and_positive_in_logs_after_it(name: str, shift: Any) -> None:
    family = FAMILIES[name]
    log_ratio = some(family.log_ratio)
    x = family.stream(np.random.default_rng(3)).take(200_000)
    assert np.exp(log_ratio(x, family.bad * shift)).mean() == pytest.approx(1.0, abs=0.03)
    y = family.stream(np.random.default_rng(4)).take(20_000, family.bad * shift)
    assert log_ratio(y, family.bad * shift).mean() > 0 > log_ratio(x, family.bad * shift).mean()


def test_the_oracle_is_pages_recursion() -> None:
    family = FAMILIES["ar.5"]
    oracle = Oracle.__new__(Oracle)
    oracle._family, oracle._ratio, oracle._shift, oracle.threshold = family, some(family.log_ratio), -1.0, math.inf
    x = family.stream(np.random.default_rng(5)).take(300)
    later = some(family.log_ratio)(x, -1.0)
    first = some(family.first_ratio)(x, -1.0)
    w, slow = -math.inf, []
    for later_n, first_n in zip(later, first, strict=True):
        w = max(w + later_n, first_n)
        slow.append(w)
    total = np.cumsum(later)
    fast = total + np.maximum.accumulate(first - total)
    assert fast == pytest.approx(slow)


def test_streams_do_not_depend_on_how_they_are_taken() -> None:
    for name, family in FAMILIES.items():
        if name in {"contaminated", "wander"}:  # they draw two kinds of numbers in turn
            continue
        whole = family.stream(np.random.default_rng(6)).take(300)
        stream = family.stream(np.random.default_rng(6))
        parts = np.concatenate([stream.take(n) for n in (1, 99, 200)])
        assert parts == pytest.approx(whole, rel=1e-12), name


def test_a_detector_that_always_fires_is_found_out() -> None:
    family = FAMILIES["gaussian"]
    assert run_lengths(AtOnce, family, streams=5, limit=10_000) == [3] * 5


def test_the_same_seed_gives_the_same_figures() -> None:
    family = FAMILIES["gaussian"]
    first = arl_row(family, 300.0, streams=4)
    assert first == arl_row(family, 300.0, streams=4)
    runs = delays(default(family), family, (1.0, 2.0), before=200, streams=3)
    assert runs == delays(default(family), family, (1.0, 2.0), before=200, streams=3)
    assert all(1 <= run <= 5000 for each in runs.values() for run in each)


def test_a_mean_comes_with_its_standard_error() -> None:
    measured = Measured.of([1.0, 2.0, 3.0, 4.0])
    assert measured.mean == 2.5
    assert measured.error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)


def test_the_command_prints_its_rows_as_json_and_keeps_what_was_measured_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "results.json"
    for family in ("gaussian", "bernoulli"):
        arguments = ["--section", "arl", "--family", family, "--budget", "100", "--streams", "3", "-o", "json"]
        assert main([*arguments, "--save", str(saved)]) in {0, 1}
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["arl"]
    assert [row["family"] for row in rows] == ["gaussian", "bernoulli"]
    assert all(row["streams"] == 3 and row["arl0"] > 50 for row in rows)
    assert json.loads(saved.read_text())["arl"] == rows


def test_too_few_streams_are_a_usage_error() -> None:
    assert main(["--streams", "1"]) == 2

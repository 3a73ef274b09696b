"""Files of tests run so that what waits and what computes go side by side, and what shares a Ray comes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import order
from tests.order import File, ordered

ROOT = Path(__file__).parents[2]


def test_one_that_waits_goes_beside_those_that_compute_and_what_shares_a_ray_comes_last_longest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(order, "SECONDS", {"tests/cluster/a": 3, "tests/cluster/b": 9, "tests/cluster/own": 2})
    names = ["tests/unit/1", "tests/unit/2", "tests/unit/3", "tests/cluster/own", "tests/cluster/other"]
    files = [File("tests/cluster/a", True), File("tests/cluster/b", True), *(File(name, False) for name in names)]
    assert [file.path for file in ordered(files)] == [
        "tests/cluster/own",
        "tests/unit/1",
        "tests/unit/2",
        "tests/cluster/other",
        "tests/unit/3",
        "tests/cluster/b",
        "tests/cluster/a",
    ]


def test_the_files_that_are_said_to_be_long_exist() -> None:
    assert [path for path in order.SECONDS if not (ROOT / path).exists()] == []

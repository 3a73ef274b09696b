"""The checker of the chaos runs catches each protection that a negative control removes."""

from __future__ import annotations

import json

import pytest

from tests.chaos.negative import CAUGHT_BY, TOGETHER
from tests.cluster.alone import chaos


def test_every_control_is_among_those_that_are_tried() -> None:
    assert sorted(name for names in TOGETHER for name in names) == sorted(CAUGHT_BY)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("names", TOGETHER, ids=",".join)
def test_a_protection_that_is_taken_away_is_missed(names: tuple[str, ...]) -> None:
    told = chaos("--control", ",".join(names), timeout_s=230)
    assert {name: caught for name, _, caught, _ in told["rows"]} == dict.fromkeys(names, True), json.dumps(
        told["rows"], indent=1
    )

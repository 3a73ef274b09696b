"""Inputs that are nearly right, a minute of them; `make fuzz` goes on for ten, by coverage."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.tuning.rules.plan import check
from tests.fuzz import targets
from tests.fuzz.seeds import EVENT, PLAN, SEEDS, STEP

FEW = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        2**63,
        -(2**70),
        10**400,
        0.5,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\x00",
        "\udc80",
        "é" * 300,
        [],
        {},
        [[]],
        {"": 0},
        "1e5",
        "*",
        "a" * 5000,
        b"\xff",
    ]
)
LEAF = ODD | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)


@st.composite
def nearly(draw: st.DrawFn, right: Any) -> Any:
    """Draw `right` with something in it replaced, left out or added, at any depth."""
    if not draw(st.integers(0, 5)):
        return draw(ANY)
    match right:
        case dict():
            made = {key: draw(nearly(value)) if not draw(st.integers(0, 2)) else value for key, value in right.items()}
            if right and not draw(st.integers(0, 7)):
                made.pop(draw(st.sampled_from(sorted(right))))
            if not draw(st.integers(0, 7)):
                made[draw(st.text(max_size=8))] = draw(ANY)
            return made
        case list():
            made_list = [draw(nearly(value)) if not draw(st.integers(0, 2)) else value for value in right]
            return made_list + ([draw(ANY)] if not draw(st.integers(0, 7)) else [])
        case _:
            return right if draw(st.booleans()) else draw(LEAF)


def mangled(seed: bytes, random_: random.Random) -> bytes:
    """Flip, cut, double and overwrite bytes of an input that is right."""
    data = bytearray(seed)
    for _ in range(random_.randint(1, 6)):
        place = random_.randrange(len(data)) if data else 0
        match random_.randrange(5):
            case 0 if data:
                data[place] ^= 1 << random_.randrange(8)
            case 1 if data:
                del data[place : place + random_.randint(1, 8)]
            case 2:
                data[place:place] = data[place : place + random_.randint(1, 16)]
            case 3:
                data[place:place] = random_.randbytes(random_.randint(1, 8))
            case 4 if data:
                data[place] = random_.choice(b"\x00\xff\xc0\xdf\x81\x90{[\"'\n,:*&!|>-")
    return bytes(data)


@FEW
@given(st.lists(nearly(EVENT), max_size=4) | ANY)
def test_raw_events(events: Any) -> None:
    targets.raw_events(events)


@FEW
@given(nearly(PLAN))
def test_plans_of_a_study(asked: Any) -> None:
    targets.study_plan(asked)


@FEW
@given(nearly(STEP))
def test_steps_of_a_worker(fields: Any) -> None:
    targets.worker_step(fields)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.binary(max_size=40))
def test_bytes(name: str, seed: int, noise: bytes) -> None:
    random_ = random.Random(seed)
    for right in SEEDS[name]:
        targets.TARGETS[name](mangled(right, random_))
    targets.TARGETS[name](noise)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_the_inputs_that_the_fuzzers_begin_with_are_right(name: str) -> None:
    for seed in SEEDS[name]:
        targets.TARGETS[name](seed)


def test_a_border_that_raises_what_it_must_not_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the check of missing fields, these inputs find the KeyError."""
    honest = check

    def broken(asked: Any) -> Any:
        if isinstance(asked, dict) and "seed" not in asked:
            raise KeyError("seed")
        return honest(asked)

    @settings(FEW, derandomize=True, max_examples=2000)  # by chance, 150 inputs keep their seed in one run of ten
    @given(nearly(PLAN))
    def plans_of_a_study(asked: Any) -> None:
        targets.study_plan(asked)

    monkeypatch.setattr(targets, "check", broken)
    with pytest.raises(KeyError, match="seed"):
        plans_of_a_study()

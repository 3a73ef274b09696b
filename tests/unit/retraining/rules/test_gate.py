from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.clock import Instant
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.gate import (
    AlreadyActive,
    Cooldown,
    CoolingDown,
    Dispatch,
    DryRun,
    GivenUp,
    Silence,
    Silenced,
    admit,
    can_match,
)


def at(seconds: Any) -> Instant:
    return Instant(1.8e9 + seconds, seconds, "boot")


def cooldown(left_s: Any = 600.0, order: Any = "o-1") -> Cooldown:
    return Cooldown(order, Countdown(at(0), left_s))


def silence(pattern: Any = "fraud", left_s: Any = 600.0) -> Silence:
    return Silence("q-1", pattern, Countdown(at(0), left_s), "holiday")


def decide(
    model: str = "fraud", now: Any = 10.0, active: Any = None, cooled: Any = None, silences: Any = (), **how: Any
) -> Any:
    return admit(model, now=at(now), active=active, cooldown=cooled, silences=list(silences), **how)


def test_a_first_request_is_dispatched() -> None:
    assert decide() == Dispatch()


def test_inside_the_cooldown_nothing_is_dispatched_and_it_says_how_long() -> None:
    assert decide(cooled=cooldown()) == CoolingDown("o-1", 590.0)


def test_at_the_very_end_of_the_cooldown_it_is_dispatched() -> None:
    assert decide(now=599.999, cooled=cooldown()) == CoolingDown("o-1", at(600).boot_s - 599.999)
    assert decide(now=600.0, cooled=cooldown()) == Dispatch()


def test_a_silence_holds_back_by_name_and_by_pattern_and_no_other_model() -> None:
    assert decide(silences=[silence()]) == Silenced("q-1", "holiday", 590.0)
    assert decide(silences=[silence("fr*")]) == Silenced("q-1", "holiday", 590.0)
    assert decide(silences=[silence("other"), silence("FRAUD")]) == Dispatch()
    assert decide(now=600.0, silences=[silence()]) == Dispatch()


def test_another_order_of_the_model_holds_back_even_a_person() -> None:
    assert isinstance(decide(active="o-9"), AlreadyActive)
    assert isinstance(decide(active="o-9", manual=True), AlreadyActive)


def test_a_person_passes_cooldown_and_silence_and_that_is_said() -> None:
    passed = decide(cooled=cooldown(), silences=[silence()], manual=True)
    assert passed == Dispatch(("silence q-1", "cooldown of o-1"))


def test_a_dry_run_decides_the_same_and_launches_nothing() -> None:
    assert decide(dry_run=True) == DryRun()
    assert decide(dry_run=True, cooled=cooldown()) == decide(cooled=cooldown())
    assert decide(dry_run=True, manual=True, cooled=cooldown()) == DryRun(("cooldown of o-1",))


@given(
    st.lists(st.tuples(st.floats(0, 4000), st.booleans(), st.sampled_from([-86_400.0, 0.0, 86_400.0])), max_size=40),
    st.floats(1, 3600),
)
def test_two_dispatches_are_never_closer_than_the_cooldown(requests: Any, cooldown_s: Any) -> None:
    true_s, wall_s = 0.0, 1.8e9
    armed, last_s = None, None
    for pause_s, silenced, step_s in requests:
        true_s += pause_s
        wall_s += pause_s + step_s
        now = Instant(wall_s, true_s, "boot")
        quiet = [Silence("q", "m", Countdown(now, 1.0), "")] if silenced else []
        match admit("m", now=now, active=None, cooldown=armed, silences=quiet):
            case Dispatch():
                assert last_s is None or true_s - last_s >= cooldown_s - 1e-6
                assert not silenced
                armed, last_s = Cooldown("o", Countdown(now, cooldown_s)), true_s
            case CoolingDown(retry_in_s=retry_in_s):
                assert last_s is not None
                assert 0 < retry_in_s <= cooldown_s


def test_a_model_whose_retrains_came_to_nothing_asks_no_more_until_a_person_does() -> None:
    asked: dict[str, Any] = {"now": at(0), "active": None, "cooldown": None, "silences": []}
    assert admit("m", **asked, in_a_row=2, give_up=3) == Dispatch()
    assert admit("m", **asked, in_a_row=3, give_up=3) == GivenUp(3)
    assert admit("m", **asked, in_a_row=9, give_up=None) == Dispatch()
    assert admit("m", **asked, in_a_row=3, give_up=3, manual=True) == Dispatch(("3 unsuccessful retrains",))


@pytest.mark.parametrize(
    ("pattern", "possible"),
    [
        ("fraud", True),
        ("fraud-*", True),
        ("[!a]", True),
        ("a[0-9]?", True),
        ("é[à-ü]", True),
        ("[]a]", True),
        ("fraud-[", False),
        ("a[z-a]", False),
        ("[*]", False),
        ("x[?*[]", False),
        ("[", False),
        ("ok[a][", False),
    ],
)
def test_a_pattern_that_the_name_of_no_model_can_match_is_known(pattern: Any, possible: Any) -> None:
    assert can_match(pattern) is possible


@given(st.text("ab[]!-*?", max_size=8), st.text("ab]!-", min_size=1, max_size=8))
def test_what_matches_a_name_can_match(pattern: Any, name: str) -> None:
    if fnmatchcase(name, pattern):
        assert can_match(pattern)

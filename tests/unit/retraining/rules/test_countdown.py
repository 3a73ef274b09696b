"""A countdown never ends early: whatever the wall clock does, through reboots and restarts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.clock import Instant
from actors.retraining.rules.countdown import Countdown


@dataclass
class Machine:
    """True time, and what the machine's clocks say of it."""

    true_s: float = 0.0
    wall_s: float = 1.8e9
    boot_s: float = 5000.0
    boots: int = 0

    def now(self) -> Instant:
        return Instant(self.wall_s, self.boot_s, f"boot-{self.boots}")

    def pass_time(self, seconds: float) -> None:
        self.true_s += seconds
        self.wall_s += seconds
        self.boot_s += seconds

    def reboot(self, down_s: float) -> None:
        self.true_s += down_s
        self.wall_s += down_s
        self.boot_s = 3.0
        self.boots += 1


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 5000)),
        st.tuples(st.just("step"), st.sampled_from([-86_400.0, 86_400.0, -1e9, 3600.0])),
        st.tuples(st.just("reboot"), st.floats(0, 5000)),
        st.tuples(st.just("sight"), st.just(0.0)),
    ),
    max_size=30,
)


@given(steps, st.floats(1, 10_000))
def test_it_never_ends_before_its_time_has_truly_passed(steps: Any, cooldown_s: Any) -> None:
    machine = Machine()
    countdown = Countdown(machine.now(), cooldown_s)
    seen = None
    for what, amount in steps:
        match what:
            case "pass":
                machine.pass_time(amount)
            case "step":
                machine.wall_s += amount
            case "reboot":
                machine.reboot(amount)
                countdown = countdown.rebased(machine.now(), seen)
            case "sight":
                seen = machine.now()
        if countdown.is_over(machine.now()):
            assert machine.true_s >= cooldown_s - 1e-6
        assert 0 <= countdown.remaining_s(machine.now()) <= cooldown_s


@given(st.lists(st.floats(0, 500), max_size=20), st.floats(1, 5000))
def test_within_one_boot_it_ends_exactly_on_time(pauses: Any, cooldown_s: Any) -> None:
    machine = Machine()
    countdown = Countdown(machine.now(), cooldown_s)
    for pause_s in pauses:
        machine.wall_s -= 86_400
        machine.pass_time(pause_s)
        assert abs(countdown.remaining_s(machine.now()) - max(cooldown_s - machine.true_s, 0.0)) < 1e-6


def test_after_a_reboot_only_what_was_seen_to_pass_counts() -> None:
    machine = Machine()
    countdown = Countdown(machine.now(), 100.0)
    machine.pass_time(40.0)
    seen = machine.now()
    machine.pass_time(10.0)
    machine.reboot(1e6)
    assert countdown.rebased(machine.now(), seen).remaining_s(machine.now()) == 60.0
    assert countdown.rebased(machine.now(), None).remaining_s(machine.now()) == 100.0
    assert countdown.remaining_s(machine.now()) == 100.0


def test_negative_control_a_countdown_by_the_wall_clock_is_caught() -> None:
    """The property above can fail: by the wall alone, one step forward ends a cooldown at once."""
    machine = Machine()
    start = machine.now()
    machine.wall_s += 86_400
    by_the_wall = max(100.0 - (machine.now().wall_s - start.wall_s), 0.0)
    assert by_the_wall == 0.0
    assert machine.true_s < 100.0
    assert not Countdown(start, 100.0).is_over(machine.now())
    assert replace(start, wall_s=0.0).seconds_since(start) == 0.0

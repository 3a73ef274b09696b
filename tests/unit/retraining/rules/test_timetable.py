"""The queue of a rehearsal keeps the limits and starts every order at the first moment at which there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.retraining.rules.queue import HOUR_S, Limits, Waiting
from actors.retraining.rules.timetable import Timetable

ORDERS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 4000), st.integers(1, 500)), max_size=25)


def played(limits: Limits, orders: list[tuple[int, int, int]]) -> dict[str, float]:
    """Return when each order started, asked for in the order of their times."""
    table, started = Timetable(limits), {}
    for number, (at_s, takes_s, lost) in enumerate(sorted(orders)):
        name = str(number)

        def begin(start_s: float, name: str = name) -> None:
            started[name] = start_s

        table.ask(Waiting(name, float(lost), 100.0), at_s=float(at_s), takes_s=float(takes_s), begin=begin)
    table.advance(1e9)
    return started


@given(
    orders=ORDERS,
    max_running=st.one_of(st.none(), st.integers(1, 3)),
    max_per_hour=st.one_of(st.none(), st.integers(1, 3)),
)
def test_limits_hold_and_nobody_starts_early_or_is_lost(
    orders: list[tuple[int, int, int]], max_running: int | None, max_per_hour: int | None
) -> None:
    started = played(Limits(max_running, max_per_hour), orders)
    asked = {str(number): each for number, each in enumerate(sorted(orders))}
    assert started.keys() == asked.keys()
    assert all(started[name] >= at_s for name, (at_s, _takes, _lost) in asked.items())
    for moment in started.values():
        # One that takes no time has ended when it starts.
        running = [name for name, at_s in started.items() if at_s <= moment < at_s + asked[name][1]]
        assert max_running is None or len(running) <= max_running
        in_hour = [at_s for at_s in started.values() if moment - HOUR_S < at_s <= moment]
        assert max_per_hour is None or len(in_hour) <= max_per_hour


@given(orders=ORDERS)
def test_without_a_shortage_every_order_starts_when_it_is_asked_for(orders: list[tuple[int, int, int]]) -> None:
    started = played(Limits(max_running=100), orders)
    assert [started[str(number)] for number in range(len(orders))] == [float(at_s) for at_s, _takes, _lost in sorted(orders)]


def test_what_has_lost_most_over_its_price_goes_first_and_an_expired_order_leaves_the_queue() -> None:
    table, started = Timetable(Limits(max_running=1)), []
    for name, lost in (("first", 100.0), ("dear", 300.0), ("dearer", 400.0), ("expires", 900.0)):
        waiting = Waiting(name, lost, 100.0)
        table.ask(waiting, at_s=0.0, takes_s=60.0, begin=lambda at_s, name=name: started.append((name, at_s)))  # type: ignore[misc]
    table.drop("expires")
    table.advance(59.0)
    assert started == [("first", 0.0)]
    table.advance(120.0)
    assert started == [("first", 0.0), ("dearer", 60.0), ("dear", 120.0)]

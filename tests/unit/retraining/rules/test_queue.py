"""Which order goes next where orders queue: the dearest loss first, and nobody starves."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.retraining.rules.queue import OLDEST_EVERY, Limits, Load, Waiting, next_up, room, why

ORDERS = st.lists(
    st.tuples(st.none() | st.floats(0, 1e6), st.none() | st.floats(1, 1e4), st.integers(0, 3)), min_size=1, max_size=20
).map(lambda rows: [Waiting(f"o-{n}", lost, price, front) for n, (lost, price, front) in enumerate(rows)])


def test_the_one_that_has_lost_most_over_its_price_goes_first_and_the_oldest_where_there_is_no_price() -> None:
    waiting = [Waiting("old"), Waiting("small", 120, 100), Waiting("large", 900, 300), Waiting("young")]
    assert [each.id for each in next_up(waiting, 0, 3)] == ["large", "small", "old"]
    assert [each.id for each in next_up(waiting[::3], 0, 2)] == ["old", "young"]


def test_what_a_person_has_moved_to_the_front_goes_first_and_the_last_moved_before_the_others() -> None:
    waiting = [Waiting("old"), Waiting("dear", 900, 100), Waiting("moved", front=1), Waiting("moved later", front=2)]
    assert [each.id for each in next_up(waiting, 0, 3)] == ["moved later", "moved", "dear"]


def test_every_fourth_start_goes_to_the_oldest() -> None:
    waiting = [Waiting("old")] + [Waiting(f"dear-{n}", 900, 100) for n in range(9)]
    assert [each.id for each in next_up(waiting, 0, 4)] == ["dear-0", "dear-1", "dear-2", "old"]
    assert next_up(waiting, OLDEST_EVERY - 1, 1)[0].id == "old"


@given(ORDERS, st.integers(0, 100), st.integers(0, 30))
def test_the_line_holds_each_order_once_and_as_many_as_are_asked_for(waiting: Any, started: Any, count: Any) -> None:
    line = next_up(waiting, started, count)
    assert len(line) == min(count, len(waiting))
    assert len({each.id for each in line}) == len(line)


@given(ORDERS, st.integers(0, 100))
def test_nobody_starves_however_dear_those_are_that_come_after(waiting: Any, started: Any) -> None:
    """An order with m older ones is started within 4 (m + 1) starts, whatever else comes."""
    line, of_interest, starts = list(waiting), waiting[-1].id, 0
    while any(each.id == of_interest for each in line):
        (chosen,) = next_up(line, started + starts, 1)
        line.remove(chosen)
        line.append(Waiting(f"dear-{starts}", 1e9, 1.0, front=9))
        starts += 1
    assert starts <= OLDEST_EVERY * len(waiting)


def test_room_is_what_the_tighter_limit_leaves() -> None:
    assert room(Limits(), Load(9, 9, 9)) is None
    assert room(Limits(max_running=3), Load(1, 9, 9)) == 2
    assert room(Limits(max_running=3, max_per_hour=10), Load(1, 9, 9)) == 1
    assert room(Limits(max_running=3), Load(5, 0, 0)) == 0
    said = why(Limits(max_running=3, max_per_hour=10), Load(3, 10, 0))
    assert said == "3 orders run, max_running is 3 and 10 orders were started in the last hour, max_per_hour is 10"

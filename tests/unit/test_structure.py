"""The numbers of the structure: circles and floors of rooms that import each other."""

from __future__ import annotations

from tests import structure


def test_rooms_are_folders_or_loose_modules_and_an_arrow_counts_once() -> None:
    pairs = [("drivers.up", "actors.system"), ("drivers.down", "actors.system"), ("actors.wire.names", "actors.wire.batch")]
    assert structure.arrows(iter(pairs)) == {"drivers": {"actors.system"}, "actors.system": set(), "actors.wire": set()}


def test_floors_are_the_longest_way_down() -> None:
    assert structure.floors({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}) == 3


def test_rooms_that_reach_each_other_are_a_circle_which_counts_as_one_floor() -> None:
    found = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert structure.circles(found) == [{"a", "b", "c"}]
    assert structure.floors(found) == 2


def test_what_is_largest_is_found_with_its_name() -> None:
    text = "class A:\n    def f(self):\n        pass\n"
    assert list(structure.sizes("a.py", text)) == [("file", 3, "a.py"), ("class", 3, "A in a.py"), ("function", 2, "f in a.py")]

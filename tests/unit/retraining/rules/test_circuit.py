"""A receiver that is not heard costs its own orders time, not those of others."""

from __future__ import annotations

from actors.retraining.rules.circuit import Circuits


def test_a_receiver_has_a_bounded_share_of_the_places() -> None:
    circuits = Circuits()
    assert circuits.allows("hook", 7, 0.0)
    assert not circuits.allows("hook", 8, 0.0)
    assert circuits.allows("other", 0, 0.0)


def test_after_four_misses_one_at_a_time_tries_with_longer_and_longer_pauses() -> None:
    circuits = Circuits()
    assert [circuits.silent("hook", 0.0) for _ in range(4)] == [False, False, False, True]
    assert not circuits.allows("hook", 0, 9.9)
    assert circuits.allows("hook", 0, 10.0)
    assert not circuits.allows("hook", 1, 10.0), "one probe at a time"
    pauses, now_s = [], 10.0
    for _ in range(8):
        assert circuits.silent("hook", now_s) is False
        waited = next(pause for pause in range(1, 400) if circuits.allows("hook", 0, now_s + pause))
        pauses.append(waited)
        now_s += waited
    assert pauses == [20, 40, 80, 160, 300, 300, 300, 300]
    assert circuits.allows("other", 5, now_s)


def test_the_first_answer_closes_the_circuit_and_an_answer_in_between_starts_the_count_anew() -> None:
    circuits = Circuits()
    for _ in range(3):
        circuits.silent("hook", 0.0)
    circuits.heard("hook")
    assert circuits.silent("hook", 0.0) is False
    assert circuits.allows("hook", 3, 0.0)


def test_what_is_remembered_is_bounded() -> None:
    circuits = Circuits()
    for number in range(3000):
        circuits.silent(f"hook-{number}", 0.0)
    assert len(circuits._silent) <= 1000

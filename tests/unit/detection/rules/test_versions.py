"""Which version is live: from its first event, after a won comparison, or by a person's word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.detection.rules.versions import MAX_VERSIONS, Decision, OnWorse, Versions
from actors.people import Signature


def side_by_side(versions: Versions, *, a: tuple[str, float], b: tuple[str, float], seed: int = 0) -> list[Decision]:
    """Let both versions log windows of 200 rows until something is decided; at most 500 periods."""
    rng = np.random.default_rng(seed)
    for period in range(500):
        decisions = []
        for name, rate in (a, b):
            decisions += versions.window(name, hits=int(rng.binomial(200, rate)), n=200, at=float(period))
        if decisions:
            return decisions
    return []


def kinds(decisions: list[Decision]) -> list[str]:
    return [decision.kind for decision in decisions]


# --- without a gate


def test_without_a_gate_a_version_is_live_from_its_first_event() -> None:
    versions = Versions()
    assert kinds(versions.appeared("1", at=0.0)) == ["went live"]
    (decision,) = versions.appeared("2", at=5.0)
    assert (decision.kind, decision.version, decision.over) == ("went live", "2", "1")
    assert [(row["version"], row["state"], row["since"]) for row in versions.rows()] == [
        ("1", "former", 5.0),
        ("2", "live", 5.0),
    ]


def test_a_version_that_is_known_appears_once() -> None:
    versions = Versions()
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    assert versions.appeared("1", at=2.0) == []
    assert versions.live == "2"


def test_a_worse_version_is_flagged_or_rolled_back_as_configured() -> None:
    cases: list[tuple[OnWorse, str, str]] = [("flag", "flagged", "2"), ("rollback", "rolled back", "1")]
    for on_worse, kind, live in cases:
        versions = Versions(on_worse=on_worse)
        versions.appeared("1", at=0.0)
        versions.appeared("2", at=1.0)
        decisions = side_by_side(versions, a=("1", 0.9), b=("2", 0.8))
        assert kinds(decisions) == [kind]
        assert versions.live == live
        evidence = decisions[0].evidence
        assert evidence is not None
        assert (evidence["a"], evidence["b"], evidence["verdict"]) == ("1", "2", "worse")


def test_a_former_version_that_is_silent_is_no_evidence() -> None:
    versions = Versions(on_worse="rollback")
    versions.appeared("1", at=0.0)
    for _ in range(100):
        versions.window("1", hits=190, n=200, at=0.0)
    versions.appeared("2", at=1.0)
    assert [versions.window("2", hits=100, n=200, at=2.0) for _ in range(500)] == [[]] * 500
    assert versions.live == "2"


# --- the gate


def test_under_the_gate_a_later_version_is_a_candidate_until_it_has_won() -> None:
    versions = Versions(gate="challenger")
    versions.appeared("1", at=0.0)
    assert versions.appeared("2", at=1.0) == []
    assert (versions.live, versions.state_of("2")) == ("1", "candidate")
    (decision,) = side_by_side(versions, a=("1", 0.82), b=("2", 0.9))
    assert (decision.kind, decision.version, decision.over) == ("promoted", "2", "1")
    assert (versions.state_of("1"), versions.state_of("2")) == ("former", "live")


def test_under_the_gate_a_worse_candidate_is_rejected_and_nothing_else_changes() -> None:
    versions = Versions(gate="challenger", on_worse="rollback")
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    (decision,) = side_by_side(versions, a=("1", 0.9), b=("2", 0.8))
    assert (decision.kind, decision.version, decision.over) == ("rejected", "2", "1")
    assert (versions.live, versions.state_of("2")) == ("1", "former")


def test_a_newer_candidate_takes_the_place_of_an_undecided_one() -> None:
    versions = Versions(gate="challenger")
    for name in ("1", "2", "3"):
        versions.appeared(name, at=0.0)
    assert (versions.state_of("2"), versions.state_of("3")) == ("former", "candidate")
    assert side_by_side(versions, a=("1", 0.8), b=("2", 0.99)) == []
    assert kinds(side_by_side(versions, a=("1", 0.8), b=("3", 0.9))) == ["promoted"]


# --- people


def test_a_person_promotes_a_candidate_and_rolls_back() -> None:
    versions = Versions(gate="challenger")
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    assert versions.promote("2", at=2.0).over == "1"
    decision = versions.rollback(at=3.0)
    assert (decision.kind, decision.version, decision.over) == ("rolled back", "1", "2")
    assert versions.live == "1"


def test_what_a_person_may_not_ask_for_changes_nothing() -> None:
    versions = Versions()
    versions.appeared("1", at=0.0)
    before = versions.memory()
    with pytest.raises(KeyError, match="has logged something, got '9'"):
        versions.promote("9", at=1.0)
    with pytest.raises(ValueError, match="must not be live already, got '1'"):
        versions.promote("1", at=1.0)
    with pytest.raises(ValueError, match="needs a version that was live before, got only '1'"):
        versions.rollback(at=1.0)
    assert versions.memory() == before


def test_a_candidate_takes_nothing_from_a_version_that_a_person_promoted() -> None:
    versions = Versions(gate="challenger")
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    versions.promote("2", at=2.0)
    versions.appeared("3", at=3.0)
    assert (versions.live, versions.state_of("3")) == ("2", "candidate")


# --- invariants

moves = st.lists(
    st.one_of(
        st.tuples(st.just("window"), st.sampled_from("12345"), st.integers(0, 20)),
        st.tuples(st.just("promote"), st.sampled_from("12345"), st.just(0)),
        st.tuples(st.just("rollback"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@given(moves, st.sampled_from([None, "challenger"]), st.sampled_from(["flag", "rollback"]))
def test_one_version_is_live_always_and_a_successor_goes_on_alike(moves: Any, gate: Any, on_worse: Any) -> None:
    ours = Versions(gate=gate, on_worse=on_worse)
    theirs = Versions(gate=gate, on_worse=on_worse)
    for move, version, hits in moves:
        theirs = Versions(gate=gate, on_worse=on_worse, memory=theirs.memory())
        for versions in (ours, theirs):
            try:
                if move == "window":
                    versions.appeared(version, at=1.0)
                    versions.window(version, hits=hits, n=20, at=1.0)
                elif move == "promote":
                    versions.promote(version, at=1.0)
                else:
                    versions.rollback(at=1.0)
            except (KeyError, ValueError):
                pass
        states = [row["state"] for row in ours.rows()]
        assert states.count("live") == (1 if states else 0)
        assert states.count("candidate") <= 1
    assert ours.memory() == theirs.memory()


def test_versions_are_bounded_and_what_is_in_use_stays() -> None:
    versions = Versions(gate="challenger")
    for number in range(5 * MAX_VERSIONS):
        versions.appeared(f"v{number}", at=float(number))
    names = [row["version"] for row in versions.rows()]
    assert len(names) <= MAX_VERSIONS
    assert versions.live == "v0"
    assert versions.state_of(f"v{5 * MAX_VERSIONS - 1}") == "candidate"


# --- a registry


@pytest.mark.parametrize(("gate", "state"), [(None, "live"), ("challenger", "candidate"), ("registry", "candidate")])
def test_a_version_that_a_registry_announces_becomes_at_its_first_event_what_any_other_would(gate: Any, state: str) -> None:
    versions = Versions(gate=gate)
    versions.appeared("1", at=0.0)
    assert versions.announced("2", at=1.0)
    assert not versions.announced("2", at=2.0)
    assert (versions.state_of("2"), versions.live) == ("registered", "1")
    versions.appeared("2", at=3.0)
    assert versions.state_of("2") == state


def test_a_version_that_is_only_announced_ends_no_comparison() -> None:
    versions = Versions(gate="challenger")
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    versions.announced("3", at=2.0)
    assert versions.compares("2")
    assert kinds(side_by_side(versions, a=("1", 0.8), b=("2", 0.9))) == ["promoted"]


def test_under_the_gate_registry_a_comparison_is_evidence_and_only_the_alias_decides() -> None:
    versions = Versions(gate="registry")
    versions.appeared("1", at=0.0)
    versions.appeared("2", at=1.0)
    assert side_by_side(versions, a=("1", 0.8), b=("2", 0.9)) == []
    assert (versions.live, versions.state_of("2")) == ("1", "candidate")
    evidence = versions.rows()[1]["evidence"]
    assert evidence is not None
    assert evidence["verdict"] == "better"
    assert kinds(versions.follow("2", at=9.0)) == ["promoted"]
    assert versions.follow("2", at=9.0) == []


def test_the_alias_makes_a_version_live_that_has_not_logged_and_its_first_event_changes_nothing() -> None:
    versions = Versions()
    versions.announced("1", at=0.0)
    assert kinds(versions.follow("1", at=0.0, signed=Signature("mlflow"))) == ["went live"]
    assert versions.rows()[0]["by"] == "mlflow"
    versions.announced("2", at=1.0)
    assert kinds(versions.follow("2", at=1.0)) == ["promoted"]
    assert versions.appeared("2", at=2.0) == []
    assert Versions(memory=versions.memory()).live == "2"
    with pytest.raises(KeyError):
        versions.follow("3", at=3.0)

"""Selectors of labels: what they match, how they are written, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import labels
from actors.labels import Selector, Term

RISK = {"team": "risk", "tier": "1"}


@pytest.mark.parametrize(
    ("selector", "is_matched"),
    [
        ("team=risk", True),
        ("team==risk", True),
        ("team=risk,tier!=2", True),
        ("team=risk,tier!=1", False),
        ("owner!=ada", True),
        ("team", True),
        ("owner", False),
        ("!owner", True),
        ("!team", False),
        (" team = risk , tier = 1 ", True),
        ('team="risk"', True),
        ('team="risk,fraud"', False),
    ],
)
def test_all_terms_must_hold(selector: str, is_matched: bool) -> None:
    assert labels.parse(selector).matches(RISK) is is_matched


def test_several_texts_must_all_hold_and_none_selects_every_model() -> None:
    assert labels.parse(["team=risk", "tier=2"]).matches(RISK) is False
    assert labels.parse([]).matches({})
    assert labels.parse(None).matches(RISK)
    assert not labels.parse(None)


@pytest.mark.parametrize(
    "wrong", ["", " ", "team=", "=risk", "a,,b", "a,", ",", "!", "a!b", 'a="x', "team=risk tier=2=,", "a" * 1001]
)
def test_what_is_no_selector_is_refused_with_the_field_and_the_value(wrong: str) -> None:
    with pytest.raises(ValueError, match="--label must be a selector like team=risk"):
        labels.parse(wrong, "--label")


_names = st.text(st.characters(blacklist_characters='=!,"', blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)
_terms = st.one_of(
    st.builds(Term, _names, st.sampled_from(["=", "!="]), st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)),
    st.builds(Term, _names, st.sampled_from(["is there", "is not there"])),
)


@given(st.lists(_terms, min_size=1, max_size=5, unique=True))
def test_a_selector_reads_back_what_it_writes(terms: list[Term]) -> None:
    selector = Selector(tuple(terms))
    assert labels.parse(str(selector)) == selector

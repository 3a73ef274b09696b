"""The pages of results name tests as their evidence: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("robustness.md", "retraining.md")
_SPAN = re.compile(r"`([^`]+)`")
_NAME = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+){2,}(?:\.\.\.)?|Test[A-Za-z]+")


def missing(page: str) -> list[str]:
    """Return the tests that a page names and no file has; a name that ends with `...` is the beginning of one."""
    found: list[str] = []
    text, name = "", "no file"
    for span in _SPAN.findall(page):
        if span.endswith(".py") and "/" in span and not span.startswith("actors/"):
            path, name = ROOT / "tests" / span, span
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            found += [] if path.is_file() else [span]
        elif _NAME.fullmatch(span):
            begins = span.removesuffix("...")
            ends = "" if span.endswith("...") else r"\b"
            if not re.search(rf"(?:def test_|class ){re.escape(begins)}{ends}", text):
                found.append(f"{name}: {span}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_of_results_names_exists(page: str) -> None:
    assert missing((ROOT / "docs" / "results" / page).read_text(encoding="utf-8")) == []


def test_negative_control_a_test_that_is_gone_is_noticed() -> None:
    here = "docs/test_named_tests.py"
    assert missing(f"`{here}`: `every_test_that_a_page_of_results_names_exists`, `every_test_that_a...`") == []
    assert missing(f"`{here}`: `no_test_has_this_name`; `docs/test_gone.py`") == [
        f"{here}: no_test_has_this_name",
        "docs/test_gone.py",
    ]

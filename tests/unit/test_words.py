"""The words of pages, docstrings, comments and messages: plain English, and no leftovers of a merge."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What to write instead stands in the rule's name.
RULES = {
    "unavailable, not away": re.compile(r"\b(?:is|are|was|were|being) away\b(?! from)"),
    "besides or alongside, not beside": re.compile(r"\bbeside\b"),
    "ensure that, not see to it": re.compile(r"\bsees? to it\b"),
    "for lack of, not for want of": re.compile(r"\bfor want of\b"),
    "keep, not hold on to": re.compile(r"\b(?:hold|holds|holding) on to\b"),
    "broken, not leads nowhere": re.compile(r"\bleads? nowhere\b"),
    "fix, not mend": re.compile(r"\bmend(?:s|ed|ing)?\b"),
    "remove, not take away": re.compile(r"\b(?:tak(?:e|es|ing)|took|taken) away\b"),
    "who it is, not whoever": re.compile(r"\bwhoever\b", re.IGNORECASE),
    "Return, not Give or Tell whether, in a docstring": re.compile(r'"""(?:Give (?!up )|Tell whether )'),
    "no person's path": re.compile(rf"{re.escape(str(ROOT))}\b|/(?:home|Users)/(?!you\b|ubuntu\b|ray\b)\w+/"),
}
MERGE = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
# From Python 3.12 on, the texts of f-strings are tokens of their own.
PROSE = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
READ = (".py", ".md", ".yaml", ".yml", ".toml")


def tracked(*folders: str) -> list[Path]:
    """Return the text files of the repository below `folders`, by git where it is one, else by what is there."""
    done = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        found = [each for folder in folders or (".",) for each in (ROOT / folder).rglob("*")]
    return [path for path in found if path.suffix in READ and path.is_file()]


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read: all of a page; docstrings, comments and messages of a module."""
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in PROSE:
            yield from enumerate(token.string.splitlines(), token.start[0])


def broken(path: Path, text: str) -> list[str]:
    """Return a line for each rule that `text`, the content of `path`, breaks."""
    return [
        f"{path.name}:{number}: {rule}: {line.strip()[:80]}"
        for number, line in prose(path, text)
        for rule, pattern in RULES.items()
        if pattern.search(line)
    ]


def test_pages_and_code_use_plain_words() -> None:
    own = Path(__file__)
    files = [path for path in tracked("actors", "drivers", "docs", "tests") if path != own]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = [line for path in files for line in broken(path, path.read_text(encoding="utf-8"))]
    assert found == [], "\n".join(found)


def test_no_merge_left_its_marks() -> None:
    found = [str(path) for path in tracked() if MERGE.search(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "While the store is away, nothing is lost."),
        ("page.md", "Mend it, then retry."),
        ("page.md", f"See {ROOT}/README.md."),
        ("page.md", "Whoever ends it is told."),
        ("module.py", '"""Keep this beside the card."""\n'),
        ("module.py", "x = 1  # for want of a clock\n"),
        ("module.py", '"""Give the number."""\n'),
        ("module.py", '"""Tell whether it is there."""\n'),
    ],
)
def test_a_broken_rule_is_found(name: str, text: str) -> None:
    assert broken(Path(name), text.replace("Mend", "mend"))


def test_code_is_not_prose() -> None:
    assert broken(Path("module.py"), "beside = mend = 1\n") == []
    assert MERGE.search("a\n" + "<" * 7 + " HEAD\n")

"""Every page of ours that the repository names exists: in comments, docstrings, deployment files and Markdown."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"\bdocs/[\w./-]+\.(?:md|png)\b")
LINKED = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def tracked() -> list[Path]:
    """Return the text files of the repository, by git where it is one, else by what lies there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = done.stdout.split("\0") if done.returncode == 0 else [str(path) for path in ROOT.glob("*.*")]
    return [ROOT / name for name in names if Path(name).suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".txt"}]


def missing(path: Path, text: str) -> list[str]:
    """Return the pages that `text`, which stands in `path`, names or links to and which are not there."""
    named = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    if path.suffix != ".md" or path.is_relative_to(ROOT / "docs"):  # the build of the site holds the links of its own pages
        return named
    return named + [link for link in LINKED.findall(text) if not (path.parent / link).exists()]


def test_every_page_that_is_named_is_there() -> None:
    # Entries of the record of decisions name pages as they were called at the time.
    files = [path for path in tracked() if path.exists() and path.name not in {"decisions.md", Path(__file__).name}]
    found = {str(path.relative_to(ROOT)): missing(path, path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("text", ["see docs/nowhere.md", "[a page](docs/nowhere.md)", "![a picture](img/nowhere.png)"])
def test_a_page_that_is_not_there_is_noticed(text: str) -> None:
    assert missing(ROOT / "README.md", text) != []


def test_nothing_names_a_file_outside_the_repository() -> None:
    outside = re.compile(r"\.\./shared\b|\bfacts[/:] *`?\w+\.md")
    names = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.exists() and path.name != Path(__file__).name and outside.search(path.read_text(encoding="utf-8"))
    ]
    assert names == []

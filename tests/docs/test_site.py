"""The documentation builds strictly; planted faults of every kind show that the build would fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.speed import slow

ROOT = Path(__file__).parents[2]
# What the planted page needs of the real configuration: the same checks and the same extensions.
PLANTED = (ROOT / "zensical.toml").read_text(encoding="utf-8")


def built(config: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of `config` as `make docs` does, in a process of its own."""
    command = [sys.executable, "-m", "docs.build", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=slow(120), check=False)


def planted(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Build a site of one page that holds `text`, and one that it may link to."""
    before, _, after = PLANTED.partition("nav = [")
    nav = 'nav = ["index.md", "other.md"]\n' + after.partition("\n]\n")[2]
    config = folder / "zensical.toml"
    settings = (before + nav).replace('paths = ["."]', f'paths = ["{ROOT}"]').replace('"docs/griffe', f'"{ROOT}/docs/griffe')
    config.write_text(settings)
    shutil.copytree(ROOT / "docs" / "assets", folder / "docs" / "assets")
    (folder / "docs" / "index.md").write_text(f"# Home\n\n{text}\n")
    (folder / "docs" / "other.md").write_text("# Other\n\n## A heading\n\n::: actors.start\n")
    return built(config)


def test_the_documentation_builds_strictly() -> None:
    done = built(ROOT / "zensical.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_without_a_fault_builds(tmp_path: Path) -> None:
    done = planted(tmp_path, "[one](other.md), [two](other.md#a-heading), [three][actors.start]\n")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "fault",
    [
        "[a page](nowhere.md)",
        "[a heading](other.md#nowhere)",
        "![a picture](nowhere.png)",
        '<a href="nowhere.html">a link in HTML</a>',
        "[a Python object][actors.nowhere]",
        "::: actors.nowhere",
        '```python exec="1"\nraise ValueError("a block that fails")\n```',
        '```python exec="1"\nprint("[a generated link](nowhere.md)")\n```',
        "![a picture of another host](https://example.com/picture.png)",
    ],
)
def test_a_fault_fails_the_build(fault: str, tmp_path: Path) -> None:
    done = planted(tmp_path, fault)
    assert done.returncode != 0, f"{fault} was not noticed:\n{done.stdout}{done.stderr}"

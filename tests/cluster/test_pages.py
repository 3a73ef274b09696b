"""Every block of the README, the tutorial and the how-to guides runs as it stands on its page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import actors
from actors.system import System
from tests.docs.pages import ROOT, Runner, pages

# These begin a Ray of their own by `visutility up`; the others find a system that runs, as their reader does.
LAPTOP = [page for page in pages() if "how-to" not in page.parts]
RUNNING = [page for page in pages() if "how-to" in page.parts]


def environment(folder: Path) -> dict[str, str]:
    """Keep what `up` notes apart from that of the person who runs the tests."""
    return {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder in which a page's reader works."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def system(cluster: str, tmp_path: Path) -> Iterator[System]:
    """A system with its defaults, under the name that the pages use."""
    started = actors.start({"storage": f"sqlite:///{tmp_path}/store"})
    yield started
    System(started.namespace).stop()


@pytest.mark.parametrize("page", LAPTOP, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_for_the_laptop_runs(page: Path, work: Path, tmp_path: Path) -> None:
    runner = Runner(work, environment(tmp_path) | {"RAY_ADDRESS": "", "RAY_AUTH_MODE": ""})
    try:
        runner.run(page)
    finally:
        runner.shell("visutility down")


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_how_to_guide_runs(page: Path, work: Path, tmp_path: Path, cluster: str, system: System) -> None:
    mode = os.environ.get("RAY_AUTH_MODE")
    named = {"RAY_ADDRESS": cluster} | ({"RAY_AUTH_MODE": mode} if mode else {})
    Runner(work, environment(tmp_path) | named).run(page)

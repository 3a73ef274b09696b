"""Every block of the README, the tutorial and the how-to guides runs as it stands on its page."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import actors
from actors.system import System
from tests.cluster.conftest import PAGES
from tests.docs.pages import ROOT, Runner, pages

# These begin a Ray of their own by `visutility up`; the others find a system that runs, as their reader does.
LAPTOP = [page for page in pages() if "how-to" not in page.parts]
RUNNING = [page for page in pages() if "how-to" in page.parts]
SKIPPED = re.compile(r"<!-- skip: next .*?-->\n\n```.*?```", re.DOTALL)
BLOCK = re.compile(r"```(?:python|shell)(?! title)[^\n]*\n(.*?)```", re.DOTALL)
ASKS_A_SYSTEM = re.compile(r"^visutility (?!config)|actors\.connect\(|get_actor\(", re.MULTILINE)


def environment(folder: Path) -> dict[str, str]:
    """Keep what `up` notes apart from that of the person who runs the tests."""
    return {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": f"{PAGES}:{ROOT}"}


@pytest.fixture
def work() -> Iterator[Path]:
    """The folder in which a page's reader works; empty for each. Modules that workers import have names of their own."""
    yield PAGES
    for left in PAGES.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextlib.contextmanager
def running(page: Path, folder: Path) -> Iterator[None]:
    """Start a system with its defaults, under the name that the pages use, unless nothing on `page` asks for one."""
    blocks = BLOCK.findall(SKIPPED.sub("", page.read_text(encoding="utf-8")))
    if not any(ASKS_A_SYSTEM.search(block) for block in blocks):
        yield
        return
    started = actors.start({"storage": f"sqlite:///{folder}/store"})
    try:
        yield
    finally:
        System(started.namespace).stop()


@pytest.mark.parametrize("page", LAPTOP, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_for_the_laptop_runs(page: Path, work: Path, tmp_path: Path) -> None:
    runner = Runner(work, environment(tmp_path) | {"RAY_ADDRESS": "", "RAY_AUTH_MODE": ""})
    try:
        runner.run(page)
    finally:
        runner.shell("visutility down")


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_how_to_guide_runs(page: Path, work: Path, tmp_path: Path, cluster: str) -> None:
    mode = os.environ.get("RAY_AUTH_MODE")
    named = {"RAY_ADDRESS": cluster} | ({"RAY_AUTH_MODE": mode} if mode else {})
    with running(page, tmp_path):
        Runner(work, environment(tmp_path) | named).run(page)

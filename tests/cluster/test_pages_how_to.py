"""Every block of the how-to guides runs as it stands on its page, with a system that runs, as their reader has one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import actors
from actors.system import System
from tests.cluster.conftest import pages_environment
from tests.docs.pages import HOW_TO, ROOT, Runner, require_curl

SKIPPED = re.compile(r"<!-- skip: next .*?-->\n\n```.*?```", re.DOTALL)
BLOCK = re.compile(r"```(?:python|shell)(?! title)[^\n]*\n(.*?)```", re.DOTALL)
ASKS_A_SYSTEM = re.compile(r"^visutility (?!config)|actors\.connect\(|get_actor\(", re.MULTILINE)


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


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_how_to_guide_runs(page: Path, work: Path, tmp_path: Path, cluster: str) -> None:
    require_curl(page)
    mode = os.environ.get("RAY_AUTH_MODE")
    named = {"RAY_ADDRESS": cluster} | ({"RAY_AUTH_MODE": mode} if mode else {})
    with running(page, tmp_path):
        Runner(work, pages_environment(tmp_path) | named).run(page)

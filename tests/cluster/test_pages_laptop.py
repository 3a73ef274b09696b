"""Every block of the README and the tutorial runs as it stands there: these pages begin a Ray by `visutility up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import pages_environment
from tests.docs.pages import LAPTOP, ROOT, Runner, require_curl


@pytest.mark.parametrize("page", LAPTOP, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_for_the_laptop_runs(page: Path, work: Path, tmp_path: Path) -> None:
    require_curl(page)
    runner = Runner(work, pages_environment(tmp_path) | {"RAY_ADDRESS": "", "RAY_AUTH_MODE": ""})
    try:
        runner.run(page)
    finally:
        runner.shell("visutility down")

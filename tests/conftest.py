"""For every test: properties have no time limit, in CI they draw the same examples every time; order and time-outs."""

from __future__ import annotations

import os

import hypothesis
import pytest

from tests import environment, speed
from tests.order import File, ordered

environment.prepare()

# A machine under load is slow, not wrong. A developer's run looks at new examples; a landing must not fail by a draw.
hypothesis.settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ, print_blob=True)
hypothesis.settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    """Measure the machine before the processes begin that share it (`pytest -n`); they inherit the factor."""
    if workers := config.getoption("numprocesses", None):
        speed.share(int(workers))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files in order, and let a test that hangs be given up later where everything takes longer."""
    _in_order(config, items)
    usual_s = float(config.getoption("timeout") or config.getini("timeout") or 0)
    if config.getoption("collectonly") or usual_s == 0 or speed.factor() == 1:
        return
    for item in items:
        marked = item.get_closest_marker("timeout")
        seconds = float(marked.args[0]) if marked is not None and marked.args else usual_s
        item.add_marker(pytest.mark.timeout(speed.slow(seconds)), append=False)


def _in_order(config: pytest.Config, items: list[pytest.Item]) -> None:
    found: dict[str, list[pytest.Item]] = {}
    for item in items:
        found.setdefault(item.path.relative_to(config.rootpath).as_posix(), []).append(item)
    shares_ray = {path: any("cluster" in getattr(item, "fixturenames", ()) for item in of) for path, of in found.items()}
    items[:] = [item for file in ordered(File(path, shares_ray[path]) for path in found) for item in found[file.path]]

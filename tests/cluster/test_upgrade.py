"""The package shipped by `runtime_env`, two builds of it, and an upgrade that producers ride through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.alone import alone

# Each begins a Ray of its own: seconds on an idle machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(300)


def test_stop_ship_another_build_start_loses_nothing_and_two_builds_do_not_mix(tmp_path: Path) -> None:
    # The builds are the real ones here: the suite's own pin (conftest.py) is taken off.
    told = alone("tests.cluster.scenarios.upgrade", "upgrade", environment={"VISUTILITY_BUILD": ""}, folder=str(tmp_path))
    assert told["old"] != told["new"]
    assert told["old"] in told["refused"], "the refusal names the build that runs"
    assert told["new"] in told["refused"], "and the one that came"
    assert told["logged"] > 0

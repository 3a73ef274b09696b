"""`task`, `module:Class` and `ray_job` on a real Ray under token authentication, the dispatcher killed in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.alone import ROOT, alone


@pytest.mark.timeout(300)
def test_each_order_is_launched_once_though_the_dispatcher_is_killed_in_between(tmp_path: Path) -> None:
    points = tmp_path / "failpoints"
    points.mkdir()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789",
        "VISUTILITY_FAILPOINTS": str(points),
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    scenario = "tests.cluster.scenarios.retraining"
    told = alone(scenario, "handlers", environment=environment, timeout_s=270, folder=str(tmp_path))
    orders, seen = told["orders"], told["seen"]
    assert told["struck"]
    job = "by job; $(exit 1) 'x'"
    assert told["states"] == {
        "by task": "done",
        "fragile": "done",
        "by class": "done",
        job: "done",
        "broken job": "failed",
    }
    assert seen["task"] == [f"{orders['by task']} by task"]
    assert seen["fragile"] == [orders["fragile"]] * 3
    assert seen["class"] == [orders["by class"]]
    assert seen["job"] == [f"{orders[job]} {job}"]
    assert told["new_version"] == "v2"
    assert "the job failed" in told["reason"]
    assert told["put back"] in {"pending", "dispatched"}
    assert told["after putting back"] == "failed"
    assert told["attempts"][-1] == "failed"
    assert len(told["attempts"]) >= 2

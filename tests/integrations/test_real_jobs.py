"""`ray_job` on a real Ray with its dashboard, whose job agent does not start.

That each order becomes one job, followed over a kill of the dispatcher, is tested in tests/cluster/test_handlers_on_ray.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.alone import alone


@pytest.mark.timeout(300)
def test_an_order_for_a_ray_without_a_job_agent_ends_with_where_it_waited_for_what_and_how_long(tmp_path: Path) -> None:
    told = alone("tests.cluster.scenarios.retraining", "no_agent", timeout_s=200, folder=str(tmp_path))
    if told["state"] == "done":
        pytest.skip("this Ray starts its job agent although the port is taken")
    assert (told["ended"], told["state"], told["attempts"]) == (True, "dead", 2)
    assert "the Jobs API of this Ray (" in told["reason"]
    assert "s for the job agent of its head node" in told["reason"]

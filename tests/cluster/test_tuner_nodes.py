"""A study while nodes come and go."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.alone import alone
from tests.cluster.scenarios.tuning import TRIALS


def test_a_study_follows_the_cluster_and_a_lost_node_costs_only_what_ran_there(tmp_path: Path) -> None:
    told = alone("tests.cluster.scenarios.tuning", "come_and_go", folder=str(tmp_path))
    assert told["counts"] == {"COMPLETED": TRIALS}
    assert told["equal"]
    assert told["lost with the node"] <= 2  # it had two processors, and a trial takes longer than a lease
    assert len(told["per node"]) == 4

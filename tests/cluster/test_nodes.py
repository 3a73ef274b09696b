"""Several nodes: who lives where, what a lost node costs (nothing that was acknowledged), and what a lost head leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.alone import alone
from tests.database import Postgres, free_port

# Each begins a Ray of its own: seconds on an idle machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(300)

NODES = "tests.cluster.scenarios.nodes"
PASSWORD = "cluster-secret-do-not-print"


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    server = Postgres("127.0.0.1", free_port(), PASSWORD)
    yield server
    server.stop()


def test_on_postgresql_nodes_come_and_go_and_a_new_cluster_carries_on(database: Postgres) -> None:
    told = alone(NODES, "postgresql", url=database.url)
    assert told["logged_meanwhile"] > 0


def test_on_sqlite_the_stateful_actors_are_pinned_to_the_node_that_holds_it(tmp_path: Path) -> None:
    told = alone(NODES, "sqlite", folder=str(tmp_path))
    assert "3 nodes" in told["refused"]


def test_a_store_that_one_node_cannot_reach_is_an_error_that_names_the_node_and_nothing_is_started(database: Postgres) -> None:
    told = alone(NODES, "unreachable", url=database.url)
    assert "storage postgresql://visutility:***@127.0.0.1" in told["said"]
    assert f"cannot be reached from node {told['apart'][:8]}: " in told["said"]
    assert PASSWORD not in told["said"]

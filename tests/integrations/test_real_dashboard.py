"""The dashboard's queries and the alerts' links in a real Prometheus that scrapes a running system."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cluster.alone import alone
from tests.unit.test_alerts_and_dashboard import dashboard_queries

PROMETHEUS = shutil.which("prometheus")


@pytest.mark.timeout(300)
@pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package prometheus")
def test_each_panel_shows_something_of_a_running_system_and_an_alert_links_to_its_page(tmp_path: Path) -> None:
    queries = [query.replace("fraud", ".*") for query in dashboard_queries()]
    told = alone(
        "tests.cluster.scenarios.exported",
        "panels",
        timeout_s=240,
        folder=str(tmp_path),
        prometheus=str(PROMETHEUS),
        queries=json.dumps(queries),
    )
    assert [query for query in queries if not told["panels"][query]] == []
    assert told["alerts"]["VisuTilityModelDrifting"].startswith("https://drift.example.com/models/")

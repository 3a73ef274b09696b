"""Ray's token authentication on: who has no token stays out, Ray jobs are launched all the same, secrets appear nowhere.

The metrics are read here too, from Ray's own Prometheus endpoint.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.telemetry import NAMES
from tests.cluster.alone import alone
from tests.database import Postgres, free_port

# Each begins a Ray of its own: seconds on an idle machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(300)

SECRET = "do-not-print-7f3a9c"


def test_with_a_token_everything_works_and_no_secret_is_seen_anywhere(tmp_path: Path) -> None:
    database = Postgres("127.0.0.1", free_port(), SECRET)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "VISUTILITY_STORAGE": database.url,
        "HOOK_URL": f"http://127.0.0.1:{free_port()}/{SECRET}",
        "HOOK_SECRET": SECRET,
    }
    try:
        told = alone(
            "tests.cluster.scenarios.secured",
            "everything",
            environment=environment,
            folder=str(tmp_path),
            url=database.url,
            secret=SECRET,
            metrics_port=str(free_port()),
        )
    finally:
        database.stop()
    # All but those of a retrain rule with a price, of sources, of receivers and of a page's URL: this system has none.
    others = {"visutility_errors_lost", "visutility_retrain_price", "visutility_retrains_gave_up", "visutility_page_info"}
    others |= {"visutility_receiver_up", "visutility_notifications_total"}
    others |= {name for name in NAMES if name.startswith("visutility_source_")}
    assert set(told["metrics"]) == {f"ray_{name}" for name in NAMES if name not in others}
    assert len(list(tmp_path.iterdir())) == 1, "the job ran once"

"""A store whose file is deleted while the system runs: nothing is acknowledged, and status says why."""

from __future__ import annotations

from pathlib import Path

from actors.system import System
from tests.cluster.waiting import eventually
from tests.speed import slow


def test_nothing_is_acknowledged_into_a_deleted_file_and_status_names_it(system: System, tmp_path: Path) -> None:
    for number in range(100):
        system.metrics.log({"accuracy": 0.9}, model="m", version="1", timestamp=1.0e9 + number)
    before = system.metrics.flush(timeout_s=slow(60.0))
    assert (before["accepted"], before["pending"]) == (100, 0)
    (lost,) = (tmp_path / "store").glob("detector-*.db")
    lost.rename(tmp_path / "aside")
    for number in range(100):
        system.metrics.log({"accuracy": 0.9}, model="m", version="1", timestamp=1.0e9 + 100 + number)
    during = system.metrics.flush(timeout_s=5.0)
    assert (during["accepted"], during["pending"]) == (100, 100)
    told = eventually(lambda: system.status().get("store_problem"), "status names what is gone", within_s=10.0)
    assert told == f"{lost} was deleted"
    (tmp_path / "aside").rename(lost)
    after = system.metrics.flush(timeout_s=slow(60.0))
    assert (after["accepted"], after["duplicate"], after["pending"]) == (200, 0, 0)
    assert "store_problem" not in system.status()
    assert system.status()["models"]["m"]["events"] == 200

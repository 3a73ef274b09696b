"""What a detector's process loads."""

from __future__ import annotations

import subprocess
import sys

from tests.speed import slow

_NEEDLESS = ("numpy.ma", "sqlalchemy.dialects.postgresql")  # 1.3 and 2 MB of each process


def test_a_detector_s_process_imports_neither_numpy_s_masked_arrays_nor_another_database_s_dialect() -> None:
    asked = f"import sys, actors.detection.detector; print([name for name in {_NEEDLESS} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=slow(120))
    assert found.stdout.strip() == "[]"

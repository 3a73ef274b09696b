"""What a process of a test run has in its environment."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Final

# The folder in which a test arms failpoints, inherited by every worker of Ray. Never that of another process of tests: it would
# strike there.
FAILPOINTS: Final = Path(f"/tmp/visutility-failpoints-{os.getpid()}")
# The folder in which the pages of the documentation run; their workers import what a page saves there.
PAGES: Final = Path(f"/tmp/visutility-pages-{os.getpid()}")


def prepare() -> None:
    """Set the variables, before anything imports `actors` or Ray: both read some of them once."""
    for folder in (FAILPOINTS, PAGES):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ["VISUTILITY_FAILPOINTS"] = str(FAILPOINTS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PAGES), os.environ.get("PYTHONPATH")]))
    # The tokens of "Log over HTTP": the process of the page reads them in its environment, which is that of this Ray.
    os.environ.setdefault("UI_OPERATOR", "o" * 32)
    os.environ.setdefault("UI_WRITER", "w" * 32)
    # Sources that are edited while the tests run are no other build.
    os.environ.setdefault("VISUTILITY_BUILD", f"tests-{uuid.uuid4().hex[:8]}")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

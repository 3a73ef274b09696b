"""Which build this process runs: the version, and a hash of the sources that it imports.

A detached actor keeps the code it was started with. Comparing builds finds the driver that was upgraded while the system was
not, the node with an older wheel, and the job whose own `actors` package shadows ours.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

# Also in pyproject.toml (a test compares them): a package shipped by `py_modules` has no metadata to ask.
VERSION: Final = "0.2.0"
PACKAGE: Final = Path(__file__).parents[1]


def _hash(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


# Read once, at import: what this process runs from now on is what lies there now. A run on sources that are being edited
# (the cluster tests, on a working tree) pins it by the environment.
BUILD: Final = os.environ.get("VISUTILITY_BUILD") or f"{VERSION}+{_hash(PACKAGE)}"

"""A page printed to PDF by the browser of this machine, without a window."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE_S: Final = 120


def browser() -> str:
    """Return the path of Chromium or Chrome. RuntimeError where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        raise RuntimeError(f"--pdf needs one of {', '.join(_NAMES)} on the PATH: install Chromium, or print the page yourself")
    return found


def to_pdf(browser: str, html: str, file: Path) -> None:
    """Print a page. RuntimeError with what the browser says where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(html, encoding="utf-8")
        # The page runs no script and loads nothing, and root, as in a container, has no sandbox of Chromium's.
        options = ["--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={folder}/profile", "--no-pdf-header-footer"]
        done = subprocess.run(  # noqa: S603  a program of this machine, given a file of ours
            [browser, *options, f"--print-to-pdf={file.absolute()}", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    if done.returncode != 0 or not file.exists():
        raise RuntimeError(f"{browser} does not print: {done.stderr.strip()[-500:]}")

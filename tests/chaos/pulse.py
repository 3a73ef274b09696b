"""Asks every actor of a system `hello`, round after round, until its input is closed.

    python -m tests.chaos.pulse NAMESPACE ADDRESS

It prints READY after its first round, and in the end what it has seen, as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any, Final, NamedTuple

import ray

from actors.cluster import deployment

READY: Final = "ready"
# An actor that has not answered by then counts as silent in this round.
_ROUND_S: Final = 15.0
_PAUSE_S: Final = 0.2


class Seen(NamedTuple):
    """The longest that an actor took to answer, which one that was, and the actors whose process is another now."""

    longest_s: float
    slowest: str
    replaced: list[str]


class Rounds:
    """Asks all actors that were there at the beginning, and remembers the slowest answer."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._before = self._pids()
        self._longest_s = 0.0
        self._slowest = ""
        self._replaced: set[str] = set()

    def ask(self) -> None:
        """Ask all actors once, and wait for their answers."""
        handles = {name: deployment.find(name, self._namespace) for name in self._before}
        began_s = time.monotonic()
        asked: dict[Any, str] = {each.hello.remote(): name for name, each in handles.items() if each is not None}
        waiting = list(asked)
        while waiting and (left_s := began_s + _ROUND_S - time.monotonic()) > 0:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
            for reference in ready:
                self._note(asked[reference], time.monotonic() - began_s)
        for reference in waiting:
            self._note(asked[reference], _ROUND_S)
        now = self._pids()
        self._replaced.update(name for name, pid in self._before.items() if now.get(name) not in {pid, 0})

    def seen(self) -> Seen:
        """Return what was seen so far."""
        return Seen(self._longest_s, self._slowest, sorted(self._replaced))

    def _note(self, name: str, took_s: float) -> None:
        if took_s > self._longest_s:
            self._longest_s, self._slowest = took_s, name

    def _pids(self) -> dict[str, int]:
        found = {}
        for name in deployment.names(self._namespace):
            handle = deployment.find(name, self._namespace)
            if handle is not None:
                found[name] = int(deployment.record(handle)["pid"])
        return found


def main(namespace: str, address: str) -> None:
    """Ask until the input is closed."""
    ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    rounds = Rounds(namespace)
    rounds.ask()
    print(READY, flush=True)
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not ended.wait(_PAUSE_S):
        rounds.ask()
    print(json.dumps(rounds.seen()))


if __name__ == "__main__":
    main(*sys.argv[1:])

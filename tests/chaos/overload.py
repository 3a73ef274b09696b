"""The overload drill: too many consumers, calls at a locked store, a receiver that hangs. None may be taken for a failure.

Each part has a control: without the protection that it is about, its figure must not hold.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from actors import wire
from tests.chaos.launches import Receiver
from tests.chaos.stage import Figure, Pulse, Stage, resolved, stage

# A hello that takes longer comes near to what the watchdog takes for a frozen process.
_HELLO_S: Final = 3.0
_CONSUMERS: Final = 1_200
_WAITS_S: Final = 20.0
_CALLS: Final = 1_500
_LOCKED_S: Final = 15.0
_ORDERS: Final = 400
# Measured: 0.1 s; 6 s without the circuit, and 335 s where orders of one receiver could also take every place.
_ANOTHER_S: Final = 3.0
_HANDED_S: Final = 5.0
_PATIENCE_S: Final = 60.0


def drill(controls: Sequence[str] = ()) -> list[Figure]:
    """Run every part, or with `controls` those that must fail without them; return what was found."""
    parts = [part for part in PARTS if not controls or PARTS[part] in controls]
    figures: list[Figure] = []
    with _hanging() as hanging_port:
        for part in parts:
            with stage(_document(hanging_port, 0), controls) as set_up:
                figures += part(set_up, hanging_port)
    return figures


def consumers(set_up: Stage, _hanging_port: int) -> list[Figure]:
    """Let 1,200 consumers wait, each for a model of its own; an order comes for one of them."""
    dispatcher = set_up.actor("dispatcher")
    with Pulse(set_up.system.namespace) as pulse:
        waiting = [
            dispatcher.take.remote(consumer=f"c-{n}", model=f"overload/{n}", timeout_s=_WAITS_S) for n in range(_CONSUMERS)
        ]
        time.sleep(3.0)
        asked_s = time.monotonic()
        handed: object = None
        try:
            set_up.system.retrains.trigger("overload/7", reason="drill")
            (handed,) = resolved([waiting[7]], _WAITS_S)
        except (ConnectionError, RuntimeError) as error:  # the consumers have taken every place: nobody can ask for an order
            handed = error
        handed_s = time.monotonic() - asked_s
        replies = resolved(waiting, _WAITS_S + _PATIENCE_S)
    refused = [reply for reply in replies if isinstance(reply, dict) and reply["status"] == "unavailable"]
    said = bool(refused) and all(reply.get("retry_in_s") for reply in refused)
    got = isinstance(handed, dict) and handed["status"] == "order"
    return [
        pulse.figure(f"{_CONSUMERS:,} consumers wait: the actors answer", _HELLO_S, "no-take-bound"),
        Figure(
            "an order for one of them is handed over",
            f"after {handed_s:.1f} s" if got else f"not at all: {handed!r:.60}",
            f"{_HANDED_S:g} s",
            got and handed_s <= _HANDED_S,
            "no-take-bound",
        ),
        Figure(
            "those beyond the bound are told when to ask again",
            f"{len(refused)} refused",
            "all with retry_in_s",
            said,
            "no-take-bound",
        ),
    ]


def locked(set_up: Stage, _hanging_port: int) -> list[Figure]:
    """Lock the store for 15 s while 1,500 calls are in flight at each stateful actor; then everything is counted once."""
    set_up.system.metrics.log({"accuracy": 0.9}, model="overload/locked", version="1")
    set_up.system.metrics.flush(timeout_s=30)
    dispatcher, broadcaster, tuner = (set_up.actor(name) for name in ("dispatcher", "broadcaster", "tuner"))

    def batch(number: int) -> dict[str, Any]:
        columns = {"accuracy": np.full(1, 0.9), "id": np.full(1, float(number))}
        payload = wire.pack(wire.batch_of_columns(columns, version="1", timestamps=None, now_s=time.time()))
        return {"model": "overload/locked", "producer": f"p-{number}", "sequence": 0, "payload": payload}

    batches = [batch(number) for number in range(_CALLS)]
    with Pulse(set_up.system.namespace) as pulse:
        with _lock(set_up):
            silences = [
                dispatcher.silence.remote(model=f"overload/{n}", duration_s=60.0, comment="drill") for n in range(_CALLS)
            ]
            plan = {"name": "drill", "space": {"x": [0.0, 1.0]}, "trials": 1, "seed": 1}
            studies = [tuner.submit.remote(objective="math:fsum", plan=plan)]
            studies += [tuner.study.remote(name="drill") for _ in range(_CALLS)]
            ingests = [broadcaster.ingest.remote(**each) for each in batches]
            time.sleep(_LOCKED_S)
        resolved([*silences, *studies], _PATIENCE_S)
        answered = resolved(ingests, _PATIENCE_S)
    acked = _sent_until_acked(broadcaster, batches, answered)
    counted = _events(set_up)
    return [
        pulse.figure(
            f"the store is locked for {_LOCKED_S:g} s, {_CALLS:,} calls wait: the actors answer", _HELLO_S, "no-call-bound"
        ),
        Figure(
            "what waited is counted once, after it was sent again",
            f"{acked} acknowledged, {counted - 1} counted",
            f"{_CALLS} and {_CALLS}",
            acked == counted - 1 == _CALLS,
        ),
    ]


def hanging(set_up: Stage, _hanging_port: int) -> list[Figure]:
    """Send 400 orders to a receiver that hangs, then one to another."""
    receiver = Receiver(set_up.folder, lambda _post: False)
    document = _document(_hanging_port, receiver.port)
    try:
        set_up.system.reload(document | {"storage": f"sqlite:///{set_up.store}"})
        for number in range(_ORDERS):
            set_up.system.retrains.trigger(f"hang/{number}", reason="drill")
        time.sleep(4.0)  # the attempts of the first have begun, and hang
        asked_s = time.monotonic()
        set_up.system.retrains.trigger("fine/one", reason="drill")
        while receiver.launched() == 0 and time.monotonic() < asked_s + _PATIENCE_S:
            time.sleep(0.05)
        took_s = time.monotonic() - asked_s
        came = receiver.launched() > 0
    finally:
        receiver.close()
    return [
        Figure(
            f"{_ORDERS} orders hang at one receiver: an order of another model is delivered",
            f"after {took_s:.1f} s" if came else f"not within {_PATIENCE_S:g} s",
            f"{_ANOTHER_S:g} s",
            came and took_s <= _ANOTHER_S,
            "no-circuit",
        )
    ]


Part = Callable[[Stage, int], list[Figure]]
PARTS: Final[dict[Part, str]] = {consumers: "no-take-bound", locked: "no-call-bound", hanging: "no-circuit"}


def _document(hanging_port: int, fine_port: int) -> dict[str, Any]:
    hook = {"kind": "webhook", "timeout": "2s"}
    return {
        "defaults": {"cooldown": "1s"},
        "delivery": {"attempts": 100, "backoff": "1s", "max_backoff": "2s"},
        "models": {
            "hang/*": {"handler": hook | {"url": f"http://127.0.0.1:{hanging_port}/"}},
            "fine/*": {"handler": hook | {"url": f"http://127.0.0.1:{fine_port or hanging_port}/"}},
        },
    }


@contextmanager
def _hanging() -> Iterator[int]:
    """Listen, accept connections, and never answer."""
    taken: list[socket.socket] = []
    server = socket.create_server(("127.0.0.1", 0), backlog=512)

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(server.accept()[0])

    threading.Thread(target=take, daemon=True).start()
    try:
        yield int(server.getsockname()[1])
    finally:
        for connection in [server, *taken]:
            connection.close()


@contextmanager
def _lock(set_up: Stage) -> Iterator[None]:
    """Hold the write lock of every file of the store but the one that places are kept in."""
    held = []
    try:
        for path in sorted(set_up.store.glob("*.db")):
            if path.stem != "system":
                connection = sqlite3.connect(path, isolation_level=None, timeout=10)
                connection.execute("BEGIN IMMEDIATE")
                held.append(connection)
        yield
    finally:
        for connection in held:
            connection.close()


def _sent_until_acked(broadcaster: Any, batches: list[dict[str, Any]], replies: list[Any]) -> int:
    """Send what was not acknowledged again, with the same numbers; return how many are acknowledged in the end."""
    give_up_s = time.monotonic() + _PATIENCE_S
    acked = 0
    while True:
        left = []
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, dict) and reply.get("status", "accepted") == "accepted":
                acked += 1
            else:
                left.append(batch)
        if not left or time.monotonic() > give_up_s:
            return acked
        time.sleep(0.5)
        batches, replies = left, resolved([broadcaster.ingest.remote(**each) for each in left], _PATIENCE_S)


def _events(set_up: Stage) -> int:
    return int(set_up.system.status()["models"]["overload/locked"]["events"])

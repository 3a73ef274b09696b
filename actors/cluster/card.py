"""The cluster's record of the systems on it: one card per namespace, in Ray's internal key-value store.

The card is how two drivers that start at once make one system (it is put if absent), how any process learns the store and the
build of the system it has come to, and how a watchdog knows that the system is meant to run. It is lost with the cluster, as
the actors are; the store is not, and the next `start` writes a new card.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Final, Literal

from ray.experimental import internal_kv

from actors.cluster import connection

_PREFIX: Final = "system:"
_KV_NAMESPACE: Final = b"visutility"
_ELSEWHERE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Card:
    """One system: where it keeps what it knows, on which node that is pinned, which start made it, and its configuration.

    `node` is the id of the node that holds a SQLite store, None on PostgreSQL. `document` is the stored configuration.
    `token` tells this start of the system from any other, `store_id` the store from one that takes its place.
    """

    build: str
    storage: str
    node: str | None
    document: str
    token: str
    store_id: str = ""
    state: Literal["running", "stopping"] = "running"


def read(namespace: str) -> Card | None:
    """Return the card of `namespace`, or None if no system was started there; NotConnectedError as `connection.require_own`."""
    with connection.kept():
        connection.require_own(f"the system in namespace {namespace!r}")
        value = internal_kv._internal_kv_get(_key(namespace), namespace=_KV_NAMESPACE)  # noqa: SLF001 Ray has no public one
    return None if value is None else Card(**json.loads(value))


def claim(namespace: str, card: Card) -> Card:
    """Put `card` if there is none yet, and return the one that is there now."""
    internal_kv._internal_kv_put(_key(namespace), _text(card), overwrite=False, namespace=_KV_NAMESPACE)  # noqa: SLF001  as above
    return read(namespace) or claim(namespace, card)


def replace(namespace: str, card: Card) -> None:
    """Put `card`, whatever is there."""
    internal_kv._internal_kv_put(_key(namespace), _text(card), overwrite=True, namespace=_KV_NAMESPACE)  # noqa: SLF001  as above


def remove(namespace: str) -> None:
    """Forget the system of `namespace`."""
    internal_kv._internal_kv_del(_key(namespace), namespace=_KV_NAMESPACE)  # noqa: SLF001  as above


def elsewhere(address: str, namespace: str) -> Card | None:
    """Return the card of a namespace on another cluster, or None if none answers within 15 s.

    A process of its own asks: Ray's client of a control store ends the process if something else listens at that address.
    """
    command = [sys.executable, "-m", "actors.cluster.card", address, namespace]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_ELSEWHERE_S, check=False)  # noqa: S603 ourselves
        return Card(**json.loads(done.stdout)) if done.returncode == 0 and done.stdout else None
    except (subprocess.TimeoutExpired, ValueError, TypeError):
        return None


def _print_elsewhere(address: str, namespace: str) -> None:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: PLC0415  in the process that `elsewhere` makes

    value = GcsClient(address=address).internal_kv_get(_key(namespace), _KV_NAMESPACE, timeout=5.0)
    sys.stdout.write("" if value is None else value.decode())


def _key(namespace: str) -> bytes:
    return f"{_PREFIX}{namespace}".encode()


def _text(card: Card) -> bytes:
    return json.dumps(asdict(card)).encode()


if __name__ == "__main__":
    _print_elsewhere(*sys.argv[1:])

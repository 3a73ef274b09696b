"""What a Ray cluster remembers of the systems on it: one card a namespace, in the cluster's own key-value store.

The card is how two drivers that start at once make one system (it is put if absent), how any process learns the store and the
build of the system it has come to, and how a watchdog knows that the system is meant to run. It is lost with the cluster, as
the actors are; the store is not, and the next `start` writes a new card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal

from ray.experimental import internal_kv

_PREFIX: Final = "system:"
_KV_NAMESPACE: Final = b"visutility"


@dataclass(frozen=True, slots=True)
class Card:
    """One system: where it keeps what it knows, on which node that is pinned, who started it, what it was told.

    `node` is the id of the node that holds a SQLite store, None on PostgreSQL. `document` is the stored configuration.
    `token` tells this start of the system from any other.
    """

    build: str
    storage: str
    node: str | None
    document: str
    token: str
    state: Literal["running", "stopping"] = "running"


def read(namespace: str) -> Card | None:
    """Give the card of `namespace`; None where no system was started there."""
    value = internal_kv._internal_kv_get(_key(namespace), namespace=_KV_NAMESPACE)  # noqa: SLF001 Ray has no public one
    return None if value is None else Card(**json.loads(value))


def claim(namespace: str, card: Card) -> Card:
    """Put `card` if there is none yet; give the one that stands there now."""
    internal_kv._internal_kv_put(_key(namespace), _text(card), overwrite=False, namespace=_KV_NAMESPACE)  # noqa: SLF001
    return read(namespace) or claim(namespace, card)


def replace(namespace: str, card: Card) -> None:
    """Put `card` whatever stands there."""
    internal_kv._internal_kv_put(_key(namespace), _text(card), overwrite=True, namespace=_KV_NAMESPACE)  # noqa: SLF001


def remove(namespace: str) -> None:
    """Forget the system of `namespace`."""
    internal_kv._internal_kv_del(_key(namespace), namespace=_KV_NAMESPACE)  # noqa: SLF001


def every() -> Iterator[tuple[str, Card]]:
    """Give each namespace with a system, and its card."""
    for key in internal_kv._internal_kv_list(_PREFIX.encode(), namespace=_KV_NAMESPACE):  # noqa: SLF001
        namespace = key.decode().removeprefix(_PREFIX)
        card = read(namespace)
        if card is not None:
            yield namespace, card


def _key(namespace: str) -> bytes:
    return f"{_PREFIX}{namespace}".encode()


def _text(card: Card) -> bytes:
    return json.dumps(asdict(card)).encode()

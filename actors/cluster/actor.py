"""What every actor does alike: it says who it is, and opens the store. At import it needs no database, as some have none."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from actors import replies
from actors.clock import boot_id
from actors.cluster import build

if TYPE_CHECKING:
    from actors.storage import Store


def hello(name: str, *, epoch: int = 0, boot: str | None = None, store: Store | None = None) -> replies.Hello:
    """Return the reply of an actor's `hello`, the same keys for all: who it is, what it speaks, and where it runs.

    Args:
        name: of the actor, as Ray knows it.
        epoch: that every commit of it must find; 0 for an actor that owns nothing, and before it has opened its store.
        boot: of the machine, by the actor's clock; that of this machine where it is left out.
        store: that the actor has open, to say what is wrong with its files.

    >>> hello("tuner", epoch=3)["epoch"]
    3
    """
    # 0.25 s and 20 MB of libraries, which an actor imports only when it is called.
    from actors import wire  # noqa: PLC0415
    from actors.storage.schema import SCHEMA_VERSION  # noqa: PLC0415

    ray = sys.modules.get("ray")  # where nobody has imported it there is no node to name
    reply: replies.Hello = {
        "actor": name,
        "build": build.BUILD,
        "epoch": epoch,
        "schema": SCHEMA_VERSION,
        "wire": wire.SCHEMA,
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else "",
        "boot_id": boot_id() if boot is None else boot,
    }
    problem = None if store is None else store.problem()
    if problem is not None:
        reply["store_problem"] = problem
    return reply


def open_store(storage: str) -> Store:
    """Open the store of the system that this actor belongs to; StoreError, SchemaError as `Store`.

    An actor on Ray makes none where there is none: the start has made it, so it was deleted, and an empty one would hide that.
    """
    from actors.storage import Store  # noqa: PLC0415  as above

    ray = sys.modules.get("ray")
    is_actor = ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None
    return Store(storage, makes=not is_actor)

"""Which Ray a process uses: the one it is connected to, one that is named, the laptop's own (`visutility up`), or a new one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict

import ray
from ray.exceptions import GetTimeoutError

from actors import failpoints
from actors.errors import NotConnectedError

logger = logging.getLogger(__name__)

# What to do without an address: start a private Ray, or look for one that runs on this machine.
Otherwise = Literal["private", "look"]

_KNOCK_S: Final = 5.0
_CLIENT_HELP: Final = (
    "a ray:// client is not supported: its calls run in a proxy on the head, which would break the order and the identity of "
    "what is logged. Run the script as a job on the cluster instead: `ray job submit -- python script.py`"
)


class NoOwnConnectionError(NotConnectedError):
    """This process cannot reach any Ray: to try again is in vain until it has connected."""


def attach(address: str | None, *, otherwise: Otherwise, dashboard: bool = False) -> bool:
    """Connect this process to Ray, and return whether a private one was started for it.

    Uses the Ray that this process is connected to, else `address`, else RAY_ADDRESS. Otherwise starts a private one, or looks
    for the one that `visutility up` started and then for any on this machine.

    Raises:
        ValueError: the address cannot be used.
        ConnectionError: nothing answers, or the process was forked from one that is connected.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    refuse_client(wanted)
    if ray.is_initialized():
        require_own("connect")
        _refuse_other(address)
        return False
    if wanted is not None and wanted != "local":
        _connect(wanted, f"no Ray answers at {wanted}")
        return False
    if otherwise == "private":
        ray.init(address="local", include_dashboard=dashboard, logging_level=logging.WARNING)
        return True
    known = remembered()
    if known is not None and alive(known["pid"]):
        attach_remembered(known)
        return False
    _connect(
        "auto",
        "no Ray runs on this machine: start one with `visutility up` (a laptop) or `ray start --head`, or give its address "
        "(--address, RAY_ADDRESS)",
    )
    return False


class Remembered(TypedDict):
    """What `visutility up` writes down of the Ray that it holds, for the other commands of this user."""

    address: str
    pid: int
    began: float | None
    auth: str | None
    namespace: str
    page: NotRequired[str | None]
    dashboard: str | None


def attach_remembered(known: Remembered) -> None:
    """Connect to the Ray that `visutility up` recorded."""
    # Ray sends its token to an explicit address only if the environment says so; this address is our own.
    if known.get("auth") == "token" and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # type: ignore[attr-defined]  # noqa: SLF001 Ray read the environment at its import
    _connect(known["address"], "the Ray of `visutility up` does not answer: end it with `visutility down`")


def refuse_client(address: str | None) -> None:
    """Raise ValueError for a way to reach Ray that cannot carry what we promise."""
    if address is not None and address.startswith("ray://"):
        raise ValueError(f"address must be HOST:PORT of the cluster, got {address!r}: {_CLIENT_HELP}")
    if address is not None and address.startswith(("http://", "https://")):
        raise ValueError(f"address must be HOST:PORT of the cluster (the dashboard is for `ray job submit`), got {address!r}")
    if ray.util.client.ray.is_connected():
        raise ValueError(f"this process is connected as a client: {_CLIENT_HELP}")


_inherited: object = None

# Ray holds it while it connects and while it shuts down: who holds it stays connected. Ray has no public one.
_lock: threading.RLock = getattr(ray._private.worker, "_connect_or_shutdown_lock", None) or threading.RLock()  # noqa: SLF001
# Who holds it asks Ray something short, or looks for an actor while Ray's head does not answer: then others go on without it.
_KEEP_S: Final = 2.0
# How soon a thread that waits for a reply notices that this process has left its cluster.
_LOOK_S: Final = 0.25


@contextlib.contextmanager
def kept() -> Iterator[bool]:
    """Keep this process connected for calls into Ray that do not wait; tell whether it is.

    A process that shuts Ray down between a thread's look at the connection and its call would have Ray start a cluster for
    that thread, or end the process. So a thread of ours calls Ray in here, and waits for the reply outside (`reply_to`).
    """
    if not is_own():  # in a fork the lock may be held by a thread that is not there
        yield False
        return
    held = _lock.acquire(timeout=_KEEP_S)
    try:
        own = is_own()
        failpoints.reach("connection.kept")
        yield own
    finally:
        if held:
            _lock.release()


def reply_to(reference: Any) -> Callable[[float], Any]:
    """Return the function that waits so many seconds for the reply to a call that was made in `kept`.

    It raises what the call raised, GetTimeoutError, and NotConnectedError where no reply can come any more.
    """
    if ray._private.worker.global_worker.mode == ray.WORKER_MODE:  # noqa: SLF001 Ray has no public one
        # A worker does not leave its cluster, and Ray lends its CPUs to others while it waits in here.
        return lambda timeout_s: ray.get(reference, timeout=timeout_s)
    reply: concurrent.futures.Future[Any] = reference.future()

    def wait(timeout_s: float) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not reply.done():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise GetTimeoutError
            require_own("the reply")
            concurrent.futures.wait([reply], min(left_s, _LOOK_S))
        return reply.result()

    return wait


def is_own() -> bool:
    """Return whether this process has a Ray connection of its own; one inherited through a fork cannot be used."""
    return ray.is_initialized() and worker() is not _inherited


def require_own(what: str) -> None:
    """Raise NotConnectedError at once where Ray would wait for ever (in a fork), or start a cluster of its own.

    Args:
        what: is asked for; the message begins with it.
    """
    if not is_own():
        raise NoOwnConnectionError(f"{what}: {lacking()}")


def lacking() -> str:
    """Return why a process that has no Ray connection of its own has none, and the way out."""
    if ray.is_initialized():
        return (
            "this process has no Ray connection of its own, since it was forked from one that is connected: start it by spawn "
            '(multiprocessing.get_context("spawn")), and call actors.connect() there first'
        )
    return (
        "this process has no Ray connection of its own (a spawned process starts without one): "
        "call actors.connect() or ray.init() here first"
    )


def worker() -> object:
    """Return the connection that this process holds, its own or its parent's, or None."""
    return getattr(ray._private.worker.global_worker, "core_worker", None)  # noqa: SLF001 Ray has no public one


_forks_with_lock = threading.local()


def _before_fork() -> None:
    """Take the lock along: held by another thread it would stay so in the child, which could then never connect."""
    _forks_with_lock.held = _lock.acquire(timeout=_KEEP_S)


def _in_parent() -> None:
    if _forks_with_lock.held:
        _lock.release()


def _in_child() -> None:
    global _inherited  # noqa: PLW0603  of the process, as Ray's own is
    _in_parent()
    _inherited = worker()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


def in_job_folder(path: Path) -> bool:
    """Return whether `path` is in a job's working directory, which Ray removes when the job ends."""
    return any(part in {"working_dir_files", "runtime_resources"} for part in path.parts)


def alive_nodes() -> list[str]:
    """Return the ids of the cluster's nodes that are alive."""
    return [str(node["NodeID"]) for node in ray.nodes() if node["Alive"]]


def is_this_node(node: str) -> bool:
    """Return whether this process runs on the node of that id."""
    return node == str(ray.get_runtime_context().get_node_id())


def remembered() -> Remembered | None:
    """Return what `visutility up` recorded of its Ray (`address`, `pid`, `folder`, ...), or None if there is none."""
    try:
        file = note()
        if file.stat().st_uid != os.getuid():  # in a folder that everybody shares, another user could have written it
            return None
        noted: Remembered = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError, json.JSONDecodeError):
        return None
    return noted


def note() -> Path:
    """Return the file in which `visutility up` records its Ray for the other commands of this user.

    Without a home that can be written (none, read-only, a user without an entry) it lies in a folder of this user's in the
    machine's folder for temporary files.
    """
    told = os.environ.get("XDG_STATE_HOME")
    folder = Path(told) if told else _home_state()
    if folder is None:
        return Path(tempfile.gettempdir()) / f"visutility-{os.getuid()}" / "up.json"
    return folder / "visutility" / "up.json"


def _home_state() -> Path | None:
    try:
        folder = Path.home() / ".local" / "state"
    except RuntimeError:  # neither HOME nor an entry for this user
        return None
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return folder if os.access(there, os.W_OK) else None


def alive(pid: int) -> bool:
    """Return whether a process of this machine exists; a zombie does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
        try:  # no /proc: a Mac
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return state != "Z"


def began(pid: int) -> int:
    """Return when a process started, in clock ticks since boot, or 0 if the system does not say. Identifies a reused pid."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return 0


def _connect(address: str, problem: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.WARNING)
    except (OSError, RuntimeError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise ConnectionError(problem) from None  # Ray's own message names options that we do not have
        hint = "" if "RAY_AUTH_MODE" in os.environ else "; if that Ray requires a token, set RAY_AUTH_MODE=token"
        raise ConnectionError(f"{problem} ({error}{hint})") from None


def listens(address: str) -> bool:
    """Return whether anything listens at `address`."""
    try:
        _knock(address)
    except OSError:
        return False
    return True


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at `address`: Ray itself tries for minutes (measured: more than 150 s)."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise OSError(f"an address is HOST:PORT, got {address!r}")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _refuse_other(address: str | None) -> None:
    if address in {None, "auto", "local"}:
        return
    connected = ray.get_runtime_context().gcs_address
    if address != connected:
        raise ValueError(f"address must be {connected!r}, to which this process is already connected, got {address!r}")

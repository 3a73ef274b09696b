"""The store-damage drill: files deleted, replaced, made read-only, and bytes in them flipped, while a producer logs.

What the system cannot keep it must not acknowledge, and it must say so within seconds; what is broken must not take the rest
along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

import actors
from actors import wire
from tests.chaos.stage import Figure, Stage, stage
from tests.speed import slow

MODELS: Final = ("damage/a", "damage/b")
_DOCUMENT: Final[dict[str, Any]] = {"detectors": {"max_processes": 4}, "defaults": {"cooldown": "1s"}}
_BEFORE: Final = 20
_AFTER_S: Final = 8.0
_NOTICED_S: Final = 6.0
# A commit that had begun when the file was deleted may still be acknowledged.
_UNDER_WAY_S: Final = 0.5
_GOES_ON_S: Final = 60.0
_CALL_S: Final = 20.0
# The time for the first events; a system that does not take so few is broken before the damage.
_BEGUN_S: Final = slow(60.0)


class Producer:
    """Logs one event a call to one model, and knows what was acknowledged."""

    def __init__(self, set_up: Stage, model: str) -> None:
        self._set_up = set_up
        self._model = model
        self.sequence = 0
        self.acked: list[tuple[int, float]] = []  # sequence, when the call began
        self.last: object = None  # the last reply, or the error in its place

    def send(self) -> bool:
        """Send the next event; return whether it was acknowledged."""
        columns = {"accuracy": np.full(1, 0.9), "id": np.full(1, float(self.sequence))}
        payload = wire.pack(wire.batch_of_columns(columns, version="1", timestamps=None, now_s=time.time()))
        began_s = time.monotonic()
        try:
            call = self._set_up.actor("broadcaster").ingest.remote(
                model=self._model, producer="drill", sequence=self.sequence, payload=payload
            )
            reply = self.last = ray.get(call, timeout=_CALL_S)
        except Exception as error:  # noqa: BLE001  whatever it is, it is no acknowledgement
            self.last = error
            return False
        if reply.get("status", "accepted") != "accepted" or not reply.get("accepted"):
            return False
        self.acked.append((self.sequence, began_s))
        self.sequence += 1
        return True

    def has_begun(self) -> bool:
        """Send until enough are acknowledged to begin with; return whether they are."""
        while self.sequence < _BEFORE and self.send():
            pass
        return self.sequence >= _BEFORE

    def send_for(self, seconds: float) -> None:
        """Send continuously."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if not self.send():
                time.sleep(0.1)


def drill(controls: Sequence[str] = ()) -> list[Figure]:
    """Run every part, or with `controls` those that must fail without them; return what was found."""
    figures: list[Figure] = []
    for part in [part for part in PARTS if not controls or PARTS[part] in controls]:
        with stage(_DOCUMENT, controls) as set_up:
            producer = Producer(set_up, MODELS[0])
            other = Producer(set_up, MODELS[1])
            for each in (producer, other):
                if not _until(each.has_begun, _BEGUN_S):
                    raise TimeoutError(f"{_BEFORE} events were not acknowledged within {_BEGUN_S:g} s: {each.last}")
            figures += part(set_up, producer, other)
    return figures


def deleted(set_up: Stage, producer: Producer, _other: Producer) -> list[Figure]:
    """Delete the file of the detector that the model lives in."""

    def harm(file: Path) -> None:
        for each in file.parent.glob(f"{file.name}*"):
            each.unlink()

    return _harmed("deleted", harm, set_up, producer)


def replaced(set_up: Stage, producer: Producer, _other: Producer) -> list[Figure]:
    """Put an older copy in the place of the file."""

    def harm(file: Path) -> None:
        copy = file.with_suffix(".copy")
        with contextlib.closing(sqlite3.connect(file)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        os.replace(copy, file)  # noqa: PTH105  at once, as a restore does

    return _harmed("replaced", harm, set_up, producer)


def read_only(set_up: Stage, producer: Producer, _other: Producer) -> list[Figure]:
    """Take away the right to write the file."""
    with _unwritable(_file_of(set_up, MODELS[0])) as done:
        if not done:
            return [Figure("the file is made read-only", "skipped: this user writes anyway, and chattr is refused", "-", True)]
        return _harmed("made read-only", lambda _file: None, set_up, producer)


def flipped(set_up: Stage, producer: Producer, other: Producer) -> list[Figure]:
    """Flip bytes of a row of the log while the system is stopped; then start it."""
    namespace, file = set_up.system.namespace, _file_of(set_up, MODELS[0])
    set_up.system.stop()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        ((rowid, payload),) = connection.execute(
            "SELECT rowid, payload FROM log WHERE model = ? ORDER BY rowid DESC LIMIT 1", (MODELS[0],)
        ).fetchall()
        broken = bytes(byte ^ 0xA5 for byte in payload)
        connection.execute("UPDATE log SET payload = ? WHERE rowid = ?", (broken, rowid))
    began_s = time.monotonic()
    try:
        actors.start(_DOCUMENT | {"storage": f"sqlite:///{set_up.store}"}, namespace=namespace)
    except Exception as error:  # noqa: BLE001  whatever it says is the finding
        return [
            Figure("bytes of a row are flipped: the system starts", f"{type(error).__name__}: {error}"[:90], "starts", False)
        ]
    goes_on = _until(producer.send) and _until(other.send)
    took_s = time.monotonic() - began_s
    told = set_up.system.status()
    damaged = told["models"].get(MODELS[0], {}).get("damaged")
    reported = damaged is not None or MODELS[0] in str(told.get("unreadable")) or "store_problem" in told
    return [
        Figure(
            "bytes of a row are flipped: the model and the others go on",
            f"after {took_s:.1f} s" if goes_on else "not at all",
            f"{_GOES_ON_S:g} s",
            goes_on,
            "no-row-skip",
        ),
        Figure("and status says so", "yes" if reported else "no", "yes", reported),
    ]


def broken_file(set_up: Stage, _producer: Producer, other: Producer) -> list[Figure]:
    """Overwrite most of a file while the system is stopped: it is named, and the others serve."""
    namespace, file = set_up.system.namespace, _file_of(set_up, MODELS[0])
    set_up.system.stop()
    for each in file.parent.glob(f"{file.name}-*"):
        each.unlink()
    _overwrite(file)
    name = "most of a file is overwritten: it is named, the others serve"
    try:
        actors.start(_DOCUMENT | {"storage": f"sqlite:///{set_up.store}"}, namespace=namespace)
    except Exception as error:  # noqa: BLE001  as above
        named = str(file) in str(error) and "visutility restore" in str(error)
        return [Figure(name, f"start refuses: {error}"[-90:], "named, with the way out", named, "no-damage-check")]
    serves = _until(other.send)
    named = file.stem in str(set_up.system.status())
    return [Figure(name, f"named: {named}, another model is served: {serves}", "both", named and serves)]


def broken_meanwhile(set_up: Stage, producer: Producer, other: Producer) -> list[Figure]:
    """Overwrite most of a file while the system runs: status names it, and another model is served all the time."""
    file = _file_of(set_up, MODELS[0])
    if _file_of(set_up, MODELS[1]) == file:
        raise LookupError(f"{MODELS} live in one file, {file}: nothing is shown")
    with contextlib.closing(sqlite3.connect(file)) as connection:  # what is only in the log of changes is not in the file yet
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _overwrite(file)
    before = len(other.acked)

    def both_send() -> None:
        producer.send()
        other.send_for(0.2)

    named_s = _named_within(set_up, both_send, file.name)
    served = len(other.acked) - before
    return [
        Figure(
            "most of a file is overwritten while it is used: status names it",
            "never" if named_s is None else f"after {named_s:.1f} s",
            f"{_NOTICED_S:g} s",
            named_s is not None and named_s <= _NOTICED_S,
            "no-damage-check",
        ),
        Figure("and another model is served meanwhile", f"{served} events", "some", served > 0),
    ]


Part = Callable[[Stage, Producer, Producer], list[Figure]]
PARTS: Final[dict[Part, str]] = {
    deleted: "no-file-check",
    replaced: "no-file-check",
    read_only: "no-file-check",
    flipped: "no-row-skip",
    broken_file: "no-damage-check",
    broken_meanwhile: "no-damage-check",
}


def _harmed(what: str, harm: Callable[[Path], None], set_up: Stage, producer: Producer) -> list[Figure]:
    """Damage the file while the producer sends; compare what it saw acknowledged with what status said."""
    harm(_file_of(set_up, MODELS[0]))
    harmed_s = time.monotonic()
    noticed_s = _named_within(set_up, lambda: producer.send_for(0.3), "")
    producer.send_for(1.0)
    after = [sequence for sequence, began_s in producer.acked if began_s > harmed_s + _UNDER_WAY_S]
    return [
        Figure(f"the file is {what}: events acknowledged afterwards", str(len(after)), "0", not after, "no-file-check"),
        Figure(
            f"the file is {what}: status names the problem",
            "never" if noticed_s is None else f"after {noticed_s:.1f} s",
            f"{_NOTICED_S:g} s",
            noticed_s is not None and noticed_s <= _NOTICED_S,
            "no-file-check",
        ),
    ]


def _named_within(set_up: Stage, meanwhile: Callable[[], object], name: str) -> float | None:
    """Return after how many seconds status had a problem of the store with `name` in it; None where it never had."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + _AFTER_S + _NOTICED_S:
        meanwhile()
        problem = set_up.system.status().get("store_problem")
        if problem is not None and name in problem:
            return time.monotonic() - began_s
    return None


def _file_of(set_up: Stage, model: str) -> Path:
    """Return the detector's file that has the model's log."""
    for file in sorted(set_up.store.glob("detector-*.db")):
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            if connection.execute("SELECT 1 FROM log WHERE model = ? LIMIT 1", (model,)).fetchone():
                return file
    raise LookupError(f"no file of the store has {model}")


def _overwrite(file: Path) -> None:
    """Leave the first 100 bytes, by which SQLite knows its files, and spoil the rest in place."""
    size = file.stat().st_size
    with file.open("r+b") as broken:
        broken.seek(100)
        broken.write(np.random.default_rng(1).bytes(size - 100))


def _until(act: Callable[[], bool], within_s: float = _GOES_ON_S) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if act():
            return True
        time.sleep(0.2)
    return False


@contextmanager
def _unwritable(file: Path) -> Iterator[bool]:
    """Make a file unwritable for its own user; False where nothing does (root writes whatever the mode says)."""
    if os.geteuid() != 0:
        mode = file.stat().st_mode
        file.chmod(0o400)
        try:
            yield True
        finally:
            file.chmod(mode)
        return
    chattr = shutil.which("chattr")
    done = chattr is not None and subprocess.run([chattr, "+i", str(file)], capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done and chattr is not None:
            subprocess.run([chattr, "-i", str(file)], capture_output=True, check=False)

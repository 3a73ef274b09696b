"""Bytes of the store that change under a detector process: the row is set aside and reported, its model goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from actors import status, wire
from actors.clock import Instant
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import commands, tables
from actors.detection.seal import seal, unseal
from actors.detection.state import DetectionState, Ingest
from actors.detection.tables import DETECTOR
from actors.storage import Store

NOW = 1_800_000_000.0


def at(seconds: float) -> Instant:
    return Instant(NOW + seconds, seconds, "boot")


def batch(level: float, n: int, seconds: float = 0.0) -> bytes:
    values = level + 0.01 * np.random.default_rng(n).standard_normal(n)
    columns = {"accuracy": np.clip(values, 0.0, 1.0)}
    return wire.pack(wire.batch_of_columns(columns, version="1", timestamps=None, now_s=NOW + seconds))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store with a model that has drifted, asks for an order, and has a baseline that was given."""
    opened = Store(f"sqlite:///{tmp_path}/store")
    watch = {"accuracy": {"direction": "down"}}
    store_settings(opened, parse({"defaults": {"watch": watch, "pinned_version": "1"}}, "test"), NOW)
    state = DetectionState(opened, "detector:m", 0, at(0))
    state.commit([commands.baseline("m", "1", {"accuracy": np.linspace(0.85, 0.95, 200)})], at(0))
    state.commit([Ingest("m", "p", 0, batch(0.9, 300))], at(1))
    state.commit([Ingest("m", "p", 300, batch(0.5, 50))], at(2))
    assert len(state.outbox) == 1
    assert state.model("m").book.open_episodes
    yield opened
    opened.close()


def flip(store: Store, table: str, column: str, *, last: bool = True, where: str = "") -> bytes:
    """Flip one bit of a column, in its last byte or in the middle, and return what it was."""
    part = store.part(DETECTOR, 0)
    with part.write() as connection:
        rowid, content = connection.exec_driver_sql(f"SELECT rowid, {column} FROM {table} {where}").first() or (0, b"")
        place = len(content) - 1 if last else len(content) // 2
        changed = content[:place] + bytes([content[place] ^ 0x01]) + content[place + 1 :]
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, rowid))
    return bytes(content)


def quarantined(store: Store) -> list[Any]:
    with store.part(DETECTOR, 0).read() as connection:
        return list(connection.execute(select(tables.quarantine)))


@pytest.mark.parametrize(
    ("table", "column"),
    [("episodes", "record"), ("outbox", "body"), ("states", "state"), ("samples", "sample"), ("log", "payload")],
)
def test_a_flipped_bit_costs_its_row_alone_and_is_reported(store: Store, table: str, column: str) -> None:
    before = flip(store, table, column, last=table != "log")
    state = DetectionState(store, "detector:m", 0, at(3))
    (reply,) = state.commit([Ingest("m", "p", 350, batch(0.5, 20))], at(4))
    assert (reply["status"], reply["accepted"]) == ("accepted", 20)
    (row,) = [row for row in quarantined(store) if row.producer == f"({table})"]
    assert len(row.payload) == len(before) != 0
    seen = status.read(store)["models"]["m"]
    assert (seen["events"], seen["damaged"]["rows"]) == (370, 1)
    assert seen["damaged"]["last"].startswith(f"{table} ")
    assert "its checksum does not match" in seen["damaged"]["last"]
    # What was set aside is not found again.
    again = DetectionState(store, "detector:m", 0, at(5))
    again.commit([Ingest("m", "p", 370, batch(0.5, 20))], at(6))
    assert status.read(store)["models"]["m"]["damaged"]["rows"] == 1


def test_a_silent_model_s_damage_is_set_aside_when_its_process_opens(store: Store) -> None:
    flip(store, "episodes", "record")
    DetectionState(store, "detector:m", 0, at(3))
    assert [row.producer for row in quarantined(store)] == ["(episodes)"]


def test_an_episode_whose_request_was_damaged_asks_again(store: Store) -> None:
    (episode,) = DetectionState(store, "detector:m", 0, at(3)).outbox
    flip(store, "outbox", "body")
    assert list(DetectionState(store, "detector:m", 0, at(4)).outbox) == [episode]
    with store.part(DETECTOR, 0).read() as connection:
        (call,) = tables.load_outbox(connection, "detector:m", []).values()
    assert (call.method, call.body["episode"]) == ("request", episode)


def test_rows_without_a_checksum_are_read_and_what_cannot_be_decoded_of_them_is_set_aside(store: Store) -> None:
    with store.part(DETECTOR, 0).write() as connection:
        for table, column in (("log", "payload"), ("states", "state"), ("samples", "sample"), ("outbox", "body")):
            for rowid, content in connection.exec_driver_sql(f"SELECT rowid, {column} FROM {table}").all():
                older = (unseal(content), rowid)
                connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", older)
        connection.exec_driver_sql("UPDATE episodes SET record = ?", (b"\x81\xa1a",))
    state = DetectionState(store, "detector:m", 0, at(3))
    state.commit([Ingest("m", "p", 350, batch(0.5, 20))], at(4))
    assert [row.producer for row in quarantined(store)] == ["(episodes)"]
    assert len(state.outbox) == 1
    assert state.model("m").monitor.pinned == "1"


def test_a_checksum_notices_every_single_flipped_bit() -> None:
    sealed = seal(b"\x82\xa1a\x01\xa1b\x02")
    for place in range(8, 8 * len(sealed)):  # of the mark itself, no bit makes it a msgpack that can be read
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="checksum"):
            unseal(bytes(changed))
    for bit in range(8):
        changed = bytearray(sealed)
        changed[0] ^= 1 << bit
        with pytest.raises(tables.UNREADABLE):
            tables.unpack(bytes(changed))

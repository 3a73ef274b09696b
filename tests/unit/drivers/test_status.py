"""`visutility status`: who reads the state."""

from __future__ import annotations

from typing import Any

import pytest

from actors import system
from actors.cluster import connection, peers
from actors.cluster.peers import PeerUnavailableError
from drivers import status

TOLD: dict[str, Any] = {"models": {}}


@pytest.mark.parametrize("problem", [PeerUnavailableError("frozen"), AttributeError("of an older build")])
def test_what_no_actor_reads_at_once_is_read_here(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(_peers: object, name: str, method: str, _arguments: object, *, timeout_s: float) -> Any:
        assert (name, method) == ("runner", "status")
        assert timeout_s <= 0.5
        raise problem

    monkeypatch.setattr(connection, "attach", lambda *_, **__: None)
    monkeypatch.setattr(peers.BlockingPeers, "call", call)
    monkeypatch.setattr(system.System, "status", lambda each: TOLD if each.namespace == "n" else None)
    assert status.read(None, "n") is TOLD
    monkeypatch.setattr(peers.BlockingPeers, "call", lambda *_, **__: {"from": "an actor"})
    assert status.read(None, None) == {"from": "an actor"}


def test_a_source_is_listed_with_its_place_and_what_it_lost_is_a_problem() -> None:
    source = {"kind": "sql", "state": "ok", "problem": None, "read": 10, "refused": 0, "rejected": 0, "waiting": 2}
    at = {"last_at": 1_795_000_000.0, "place": "watermark 7"}
    told = {
        "models": {},
        "retrains": {},
        "actors": {},
        "sources": {
            "fine": source | at,
            "down": source | at | {"state": "failing", "problem": "SourceError: HTTP 401"},
            "wide": source | at | {"refused": 990, "problem": "rows of more than 10 models (max_models) are refused"},
        },
    }
    assert next(status.source_rows(told)) == ("fine", "sql", "ok", "watermark 7", "2026-11-18 11:06:40Z", 10, 0, 0, 2)
    assert list(status.problems(told)) == [
        "source down: cannot be read: SourceError: HTTP 401",
        "source wide: 990 rows were not taken, the last: rows of more than 10 models (max_models) are refused",
    ]

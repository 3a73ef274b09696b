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

"""`visutility retrains`: the queue, the verdicts, and how a retrain ends."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from drivers import retrains

ROW: dict[str, Any] = {
    "id": "o-1",
    "model": "fraud",
    "version": "7",
    "cause": "shortfall",
    "state": "pending",
    "requested_at": 1e9,
    "dispatched_at": None,
    "finished_at": None,
    "attempts": 0,
    "new_version": None,
    "reason": "",
    "lost": 180.0,
    "price": 250.0,
    "verdict": None,
    "saved": None,
    "saved_error": None,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    judged_rows = [
        ROW | {"verdict": "paid", "saved": 400.0, "saved_error": 30.0},
        ROW | {"verdict": "did not pay", "saved": -20.0, "saved_error": 30.0},
    ]

    def done(*words: object, **more: object) -> dict[str, str]:
        asked.append((words, more))
        return {"status": "recorded", "reason": ""}

    orders = SimpleNamespace(
        history=lambda *_, judged=False, **__: judged_rows if judged else [ROW, ROW | {"id": "o-2", "state": "done"}],
        queue=lambda: [ROW | {"place": 1, "why": "2 of 2 retrains run"}],
        done=done,
    )
    monkeypatch.setattr(retrains, "joined", lambda *_: SimpleNamespace(retrains=orders))
    return asked


def test_an_order_that_waits_is_shown_with_its_place_and_why(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert retrains.main(["ls", "-o", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["place"], first["why"]) == (1, "2 of 2 retrains run")
    assert "place" not in second
    assert retrains.main(["ls"]) == 0
    assert "1\to-1\tfraud\t180\t250\t2 of 2 retrains run" in capsys.readouterr().out
    assert asked == []


def test_verdicts_are_summed_by_model(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert retrains.main(["ls", "--verdicts"]) == 0
    out = capsys.readouterr().out
    assert "400 +- 30\tpaid" in out
    assert out.splitlines()[-1] == "fraud: 1 of 2 retrains paid, 380 errors saved"
    assert retrains.main(["ls", "--verdicts", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == {"fraud": {"retrains": 2, "paid": 1, "saved": 380.0}}
    assert asked == []


def test_a_promise_is_told_with_its_rows_or_not_at_all(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert retrains.main(["done", "o-1", "--new-version", "8", "--promise", "0.87", "--promise-n", "2500"]) == 0
    assert retrains.main(["done", "o-1", "--promise", "0.87", "--promise-n", "2500", "--hold-out"]) == 0
    assert [(words, more["promise"], more["promise_n"], more["promise_source"]) for words, more in asked] == [
        (("o-1", "8"), 0.87, 2500.0, "cross_validation"),
        (("o-1", None), 0.87, 2500.0, "hold_out"),
    ]
    assert retrains.main(["done", "o-1", "--promise", "0.87"]) == 2
    assert "--promise and --promise-n must be given together" in capsys.readouterr().err

"""Runs every command once, with names that no plain terminal can show; writes the exit codes to a file.

Run by test_terminals.py in processes of its own, whose terminal or pipes are the test. Nothing here needs a Ray: the system is
pretended, or a store is read.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.cluster import card
from actors.tuning.study import Study
from drivers import ack, cli, retrains, silence, status, stop, tune, verdict, versions, watch

NAME = "modèle/日本\u202efr\u0430ud"
STATUS: dict[str, Any] = {
    "namespace": NAME,
    "build": "b",
    "storage": "sqlite:///s",
    "pinned_to": "0" * 40,
    "models": {
        NAME: {
            "state": "drifting",
            "events": 7,
            "duplicates": 0,
            "rejected": 0,
            "flagged": True,
            "open_episodes": [NAME],
            "versions": {"1.10 ü": {"metrics": {"accuracy é": {"state": "drifting", "baseline": {"mean": 0.9}}}}},
        }
    },
    "clients": {},
    "retrains": {"dead": 1},
    "tuner": {"studies": 1},
    "actors": {"runner": {"alive": False, "pid": 1, "node": None, "epoch": None}},
}
ORDER: dict[str, Any] = {
    "id": NAME,
    "model": NAME,
    "version": "1",
    "state": "dead",
    "requested_at": 1e9,
    "dispatched_at": None,
    "finished_at": None,
    "attempts": 1,
    "new_version": None,
    "reason": "ü \x1b[31m no",
    "explanation": {"é": 1.0},
    "attempt_log": [],
    "tuning": None,
    "status": "ok",
    "cause": "shortfall",
    "lost": 1.0,
    "price": None,
    "verdict": "paid",
    "saved": 9.0,
    "saved_error": 1.0,
}
ADMITTED = {"decision": "dispatched", "order": NAME, "reason": "ü"}
RECORDED = {"status": "recorded", "reason": "ü"}
SUMMARY: Any = {
    "study": "s",
    "name": NAME,
    "state": "DONE",
    "error": "é",
    "mode": "min",
    "seed": 1,
    "space": {},
    "trials": 1,
    "done": 1,
    "best": 0,
    "best_value": 1.0,
    "counts": {},
    "workers": 0,
}
TRIAL: Any = {
    "id": 0,
    "params": {"é": 1.0},
    "value": 1.0,
    "state": "COMPLETED",
    "attempts": 1,
    "error": "ü",
    "seconds": 1.0,
    "node": None,
    "finished_at": None,
}
STUDIES = [{"name": NAME, "state": "DONE", "created_at": 1e9, "error": "é"}]


def study(*_: Any, **__: Any) -> Study:
    return Study(lambda: copy(SUMMARY), lambda: [copy(TRIAL)])


SYSTEM: Any = SimpleNamespace(
    namespace=NAME,
    status=lambda: STATUS,
    stop=lambda: None,
    versions=SimpleNamespace(
        history=lambda *_: [{"version": NAME, "state": "live", "since": 1e9, "promise": {"values": {"é": 0.9}, "n": 5}}],
        promote=lambda *_, **__: {"status": "promoted"},
        rollback=lambda *_, **__: {"status": "ok", "version": NAME},
    ),
    retrains=SimpleNamespace(
        history=lambda *_, **__: [ORDER],
        show=lambda *_: ORDER,
        retry=lambda *_, **__: ADMITTED,
        trigger=lambda *_, **__: ADMITTED,
        done=lambda *_, **__: RECORDED,
        failed=lambda *_, **__: RECORDED,
        silence=lambda *_, **__: NAME,
        unsilence=lambda *_, **__: None,
        front=lambda *_, **__: None,
        dismiss=lambda *_, **__: None,
        queue=lambda: [{**ORDER, "place": 1, "why": "ü"}],
        silences=lambda *_, **__: [{"id": "q", "model": NAME, "remaining_s": 9.5, "comment": "ü", "label": "é=ü", "by": NAME}],
    ),
    tuner=SimpleNamespace(
        run=study,
        submit=study,
        wait=study,
        study=study,
        resume=study,
        stop=lambda *_, **__: None,
        delete=lambda *_: None,
        studies=lambda: STUDIES,
    ),
)


def lines(folder: Path) -> dict[str, list[str]]:
    """Return a command line for each command that there is, by its path."""
    events = folder / "events é.jsonl"
    events.write_text(json.dumps({"model": NAME, "accuracy": 0.9, "timestamp": 1e9}) + "\n" + '{"model": "é", "accuracy": 7}\n')
    config = folder / "visutility é.yaml"
    config.write_text("defaults: {cooldown: 7m}\n", encoding="utf-8")
    search = ["drivers.objectives:branin", "--space", '{"x": [0, 1]}', "--trials", "1"]
    return {
        "up": ["missing é.yaml"],
        "down": [],
        "start": ["missing é.yaml"],
        "stop": [],
        "reload": ["missing é.yaml"],
        "config check": [str(config), "--model", NAME],
        "status": [],
        "watch": ["--rounds", "2", "--every", "0.001"],
        "explain": [NAME, "--storage", f"sqlite:///{folder}/nowhere é"],
        "advise": [NAME, "--storage", f"sqlite:///{folder}/nowhere é"],
        "retrains ls": [],
        "retrains show": [NAME],
        "retrains retry": [NAME],
        "retrains trigger": [NAME, "--reason", "é"],
        "retrains done": [NAME],
        "backup": [str(folder / "é"), "--storage", "sqlite:////nowhere é"],
        "restore": [str(folder / "no é"), "--storage", "sqlite:////nowhere é"],
        "models ls": ["--silent"],
        "models show": [NAME],
        "models rm": [NAME, "--purge"],
        "versions ls": [NAME],
        "versions promote": [NAME, "8"],
        "versions rollback": [NAME],
        "retrains front": [NAME],
        "retrains dismiss": [NAME, "--reason", "é"],
        "retrains failed": [NAME, "--reason", "é"],
        "silence add": [NAME, "--duration", "2h"],
        "silence ls": [],
        "silence expire": [NAME],
        "notify ls": ["--storage", f"sqlite:///{folder}/nowhere é"],
        "notify test": [NAME, "--config", str(config)],
        "notify preview": [NAME, "--storage", f"sqlite:///{folder}/nowhere é"],
        "ack": [NAME],
        "verdict": [NAME, "false", "--by", NAME, "--comment", "é"],
        "replay": [str(events), "--dry-run", "--config", str(config)],
        "tune run": search,
        "tune submit": search,
        "tune watch": [NAME],
        "tune stop": [NAME],
        "tune ls": [],
        "tune resume": [NAME, "--wait"],
        "tune delete": [NAME],
        "tune show": [NAME],
        "tune export": [NAME, "--optuna", f"sqlite:///{folder}/optuna é.db"],
        "demo": ["--days", "0", "--out", str(folder / "é")],
        "reference": ["--seed", "é"],
        "plugins": [],
        "ui": ["--storage", f"sqlite:///{folder}/nowhere é"],  # on a store that is there it serves until it is ended
        "report": [NAME, "--storage", f"sqlite:///{folder}/nowhere é", "-o", str(folder / "é.html")],
        "completion": ["bash"],
    }


def main(report: Path, folder: Path) -> None:
    """Run each command as a person, for a program, and its help."""
    os.environ["XDG_STATE_HOME"] = str(folder)
    # Those that nothing here answers for look for a Ray: never for one that happens to run on this machine.
    os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
    for module in (retrains, silence, tune, stop, versions, watch):
        vars(module)["joined"] = lambda *_: SYSTEM
    vars(status)["read"] = lambda *_: STATUS
    for module in (ack, verdict):
        vars(module)["peers"] = lambda *_: SimpleNamespace(call=lambda *_, **__: {"status": "unavailable", "reason": "é"})
    vars(card)["read"] = lambda _namespace: None
    codes: dict[str, Any] = {}
    for path, arguments in lines(folder).items():
        for form in ([], ["-o", "json"], ["--help"]):
            words = [*path.split(), *arguments, *form]
            try:
                codes[" ".join([path, *form])] = cli.main(words)
            except BaseException:  # noqa: BLE001  the report is what the test reads
                codes[" ".join([path, *form])] = traceback.format_exc()
    report.write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

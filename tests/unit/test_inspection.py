"""What a launch would find in a configuration is found before it."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import config
from actors.inspection import inspect, quoted_placeholders, read_twice
from actors.retraining.handlers.ray_job import filled
from tests.speed import slow

TUNE = {"kind": "tune", "objective": "m:f", "space": {"lr": [1e-5, 1e-2, "log"]}}


def found(handler: dict[str, Any] | None = None, *, imports: bool = False, **document: Any) -> tuple[list[str], list[str]]:
    """Return the problems and the notes of a configuration."""
    said = document if handler is None else {"models": {"fraud-*": {"handler": handler}}, **document}
    seen = inspect(
        config.parse(said, "test"), {"HOOK": "https://example.com/x", "BAD": "ftp://x", "WORD": "w"}, imports=imports
    )
    return [str(each) for each in seen if each.problem], [str(each) for each in seen if not each.problem]


def test_the_defaults_and_a_whole_configuration_are_fine() -> None:
    assert found() == ([], [])
    then = {"kind": "webhook", "url": "${HOOK}"}
    tune = TUNE | {"strategy": "scipy:Sobol", "current": {"lr": 1e-3}, "then": then}
    assert found(tune, storage="sqlite:////var/lib/visutility") == ([], [])


def test_a_promotion_handler_that_waits_for_consumers_is_a_problem() -> None:
    assert found(models={"fraud-*": {"promotion": {"handler": {"kind": "channel"}}}})[0] == [
        "models.fraud-*.promotion.handler: must be a handler that launches something, got channel: consumers get no decisions"
    ]


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (TUNE | {"space": {"lr": [1, 0]}}, "models.fraud-*.handler: space"),
        (TUNE | {"space": {"lr": [0, 1, "log"]}}, "models.fraud-*.handler: space"),
        (TUNE | {"strategy": "optuna:NoSuchSampler"}, "models.fraud-*.handler: strategy"),
        (TUNE | {"strategy": "randm"}, "models.fraud-*.handler: strategy"),
        (TUNE | {"current": {"lr": 7.0}}, "models.fraud-*.handler.current: "),
        (TUNE | {"current": {"momentum": 0.1}}, "models.fraud-*.handler.current: "),
        (
            TUNE | {"then": {"kind": "webhook", "url": "http://"}},
            "models.fraud-*.handler.then.url: must be an http or https URL with",
        ),
        ({"kind": "webhook", "url": "https://x y/"}, "models.fraud-*.handler.url: must be an http or https URL without spaces"),
        ({"kind": "webhook", "url": "https://host:70000/"}, "models.fraud-*.handler.url: must be an http or https URL: Port"),
        ({"kind": "webhook", "url": "https://host:0/"}, "models.fraud-*.handler.url: must have a port from 1"),
        ({"kind": "webhook", "url": "${BAD}"}, "models.fraud-*.handler.url: must be an http or https URL with a host"),
        ({"kind": "webhook", "url": "https://me:secret@host/"}, "models.fraud-*.handler.url: must not contain a password"),
        ({"kind": "ray_job", "entrypoint": "t.py", "address": "https://me:x@host"}, "models.fraud-*.handler.address: must not"),
        ({"kind": "ray_job", "entrypoint": "train '{model}'"}, "models.fraud-*.handler.entrypoint: {model} must stand outside"),
        ({"kind": "ray_job", "entrypoint": "t", "resources": {"num_cpus": -1}}, "models.fraud-*.handler.resources: num_cpus"),
    ],
)
def test_a_handler_that_could_not_launch_is_a_problem_at_its_key(handler: dict[str, Any], problem: str) -> None:
    problems, _ = found(handler)
    assert len(problems) == 1
    assert problems[0].startswith(problem)
    assert "secret" not in problems[0]


def test_a_password_from_the_environment_is_fine() -> None:
    assert found({"kind": "webhook", "url": "https://me:${WORD}@host/"})[0] == []


def test_promotion_handlers_and_defaults_are_looked_at_too() -> None:
    bad = {"kind": "webhook", "url": "https://"}
    assert found(defaults={"promotion": {"handler": bad}})[0] == [
        "defaults.promotion.handler.url: must be an http or https URL with a host"
    ]


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "visutility-data"])
def test_a_storage_url_that_cannot_be_opened_is_a_problem(url: str) -> None:
    assert found(storage=url)[0][0].startswith("storage: storage must")


def test_a_path_that_is_no_store_is_a_problem_and_a_folder_of_other_files_a_note(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("something else", encoding="utf-8")
    (found,) = inspect(config.parse({"storage": f"sqlite:///{file}"}, "file"), {})
    assert (found.problem, str(found)) == (True, f"storage: must name the folder of a store, {file} is a file")
    (found,) = inspect(config.parse({"storage": f"sqlite:///{tmp_path}"}, "file"), {})
    assert (found.problem, "holds files and no store" in found.text) == (False, True)
    assert inspect(config.parse({"storage": f"sqlite:///{tmp_path}/new"}, "file"), {}) == []


def test_a_port_in_use_a_short_token_and_a_route_that_matches_nothing_are_found_before_a_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ui = {"enabled": True, "port": port, "tokens": {"reader": "${READER}"}}
        receivers = {"ops": {"kind": "webhook", "url": "https://ops.example/hook"}}
        notify = {"receivers": receivers, "routes": [{"receivers": ["ops"], "labels": "team=nobody"}]}
        found = inspect(config.parse({"ui": ui, "notify": notify}, "file"), {"READER": "short"})
    assert [(each.path, each.problem) for each in found] == [
        ("ui.tokens.reader", True),
        ("ui.port", False),
        ("notify.routes.0", False),
    ]


def test_what_the_environment_of_the_system_must_have_is_a_note() -> None:
    handler = {"kind": "webhook", "url": "https://${ABSENT}/", "secret_env": "SIGNING", "headers": {"X": "${ABSENT}"}}
    assert found(handler, storage="postgresql://u:${PASSWORD}@h/d") == (
        [],
        [
            "storage: the environment of the system must have PASSWORD, which is not set here",
            "models.fraud-*.handler: the environment of the system must have ABSENT, which is not set here",
            "models.fraud-*.handler.secret_env: the environment of the system must have SIGNING, which is not set here",
        ],
    )


def test_what_the_rule_shortfall_needs_is_a_note() -> None:
    _, notes = found(defaults={"retrain": {"price": "1%"}})
    assert notes == [
        "defaults.retrain: needs events with `n`, and a cross-validated promise of accuracy; without, alarms order retrains"
    ]


MODULE = """
class Handler:
    def __init__(self, queue): ...
    def on_retrain(self, event): ...
class Observer:
    def on_event(self, event): ...
class Strategy:
    def __init__(self, space, *, seed, depth=1): ...
    def next_params(self): return {}
def train(event): ...
LIMIT = 3
raise_on_use = property
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "of_users.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_users", raising=False)
    return "of_users"


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (
            {"kind": "task", "target": "of_users:trian"},
            "models.fraud-*.handler.target: of_users:trian cannot be imported here: Attr",
        ),
        (
            {"kind": "task", "target": "nowhere.at_all:f"},
            "models.fraud-*.handler.target: nowhere.at_all:f cannot be imported here",
        ),
        ({"kind": "task", "target": "of_users:LIMIT"}, "models.fraud-*.handler.target: must be a function or a class"),
        ({"kind": "of_users:Observer"}, "models.fraud-*.handler.kind: must be a class with a method on_retrain"),
        ({"kind": "of_users:Handler"}, "models.fraud-*.handler.kind: of_users:Handler cannot be made with options []"),
        (
            {"kind": "of_users:Handler", "options": {"que": 1}},
            "models.fraud-*.handler.kind: of_users:Handler cannot be made with",
        ),
        (TUNE, "models.fraud-*.handler.objective: m:f cannot be imported here"),
        (
            TUNE | {"objective": "of_users:train", "strategy": "of_users:Nope"},
            "models.fraud-*.handler: strategy 'of_users:Nope'",
        ),
    ],
)
def test_modules_are_looked_into_where_that_is_asked_for(handler: dict[str, Any], problem: str, module: str) -> None:
    assert found(handler) == ([], [])
    problems, _ = found(handler, imports=True)
    assert len(problems) == 1, module
    assert problems[0].startswith(problem)


def test_modules_that_are_as_they_should_be_are_fine(module: str) -> None:
    document = {
        "observers": {"o": f"{module}:Observer"},
        "defaults": {"handler": {"kind": "task", "target": f"{module}:train"}},
    }
    handler = {"kind": f"{module}:Handler", "options": {"queue": "q"}}
    assert found(handler, imports=True, **document) == ([], [])
    assert found(TUNE | {"objective": f"{module}:train", "strategy": f"{module}:Strategy"}, imports=True) == ([], [])
    assert found(observers={"o": f"{module}:Handler"}, imports=True)[0] == [
        "observers.o: must be a class with a method on_event, of_users:Handler has none"
    ]


@pytest.mark.parametrize(
    ("entrypoint", "quoted"),
    [
        ("train.py {m}", []),
        ("train.py '{m}' \"{m}\"", ["m", "m"]),
        ("train.py \\'{m}", []),
        ("train.py \\{m}", ["m"]),  # the backslash would take the opening quote of the name
        ("train.py \\{{m}} '{{m}}'", []),
        ("train.py 'it'\"'\"'s' {m}", []),
        ("train.py 'a\\' {m}", []),
    ],
)
def test_placeholders_in_quotes_are_found(entrypoint: str, quoted: list[str]) -> None:
    assert quoted_placeholders(entrypoint) == quoted


@given(st.text(alphabet=" ab'\"\\\\{}", max_size=20), st.text(alphabet=" ab'\"\\\\;$", min_size=1, max_size=8))
def test_what_is_let_through_reaches_the_program_as_one_word(around: str, model: str) -> None:
    """A name put into an entrypoint without quoted placeholders is read back by a shell as the name itself."""
    template = around.replace("{", "{{").replace("}", "}}") + " {m}"
    try:
        before = shlex.split(around)
    except ValueError:  # a quote is open, or a backslash takes the space
        return
    assert quoted_placeholders(template) == []
    assert shlex.split(filled(template, {"m": model})) == [*before, model]


# What a shell would run if it read the name again: it writes a file.
NASTY = "$(touch ran)", "; touch ran", "`touch ran`", "`; touch ran; `"


@pytest.mark.parametrize(
    "entrypoint",
    [
        "cat <<E\n{m}\nE",
        "cat <<-E\n{m}\nE",
        "echo `echo {m}`",
        "echo $(( {m} ))",
        "eval echo {m}",
        "sh -c echo\\ {m}",
        "bash -ec {m}",
        "/bin/bash -c echo{m}",
    ],
)
def test_a_name_that_a_shell_would_read_a_second_time_is_refused(entrypoint: str, tmp_path: Path) -> None:
    assert read_twice(entrypoint) is not None
    for name in NASTY:  # negative control: each of them is a way in
        command = ["bash", "-c", filled(entrypoint, {"m": name})]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=slow(10.0))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "entrypoint",
    [
        "train.py --model={m} {m}",
        "train.py $(basename {m})",
        "sh -c 'echo \"$1\"' sh {m}",
        "cat <<< {m}",
        "train.py '`' {m}",
        "cd /app && exec python -m train {m} # {m}",
        "A={m} train.py",
        "train.py {m} 2>> log",
    ],
)
def test_what_is_read_once_is_let_through_and_runs_nothing(entrypoint: str, tmp_path: Path) -> None:
    assert (read_twice(entrypoint), quoted_placeholders(entrypoint)) == (None, [])
    for name in NASTY:
        command = ["bash", "-c", filled(entrypoint, {"m": name})]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=slow(10.0))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["fraud\u200b", "fraud-*\u202e", "fraud-[", "fraud-[z-a]"])
def test_an_entry_of_models_that_holds_for_no_model_is_a_problem(name: str) -> None:
    (found,) = inspect(config.parse({"models": {name: {"cooldown": "1h"}}}, "file"), {})
    assert found.problem
    assert "so the entry holds for none" in found.text
    assert inspect(config.parse({"models": {"fraud-*": {}, "mod\u00e8le": {}}}, "file"), {}) == []

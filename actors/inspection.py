"""Finds the problems of a valid configuration that only a launch would find: `visutility config check`.

    found = inspect(config.load("visutility.yaml"), os.environ)

The schema checks each value alone. This checks how handlers, studies and the store use them, which needs several packages.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import inspect as inspection
import re
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from actors import config, plugins, wire
from actors.checks import shown
from actors.config import notify_checks
from actors.config.notify import RECEIVER_KINDS, AppriseSettings, CustomReceiverSettings, WebhookReceiverSettings
from actors.config.ui import SHORTEST_TOKEN, UiSettings, is_loopback
from actors.config.values import REFERENCE, expand
from actors.plain import Arguments
from actors.retraining.rules import gate
from actors.storage import StoreError, is_local
from actors.storage.store import folder_of
from actors.tuning.rules import plan

_METHODS: Final = {"handler": "on_retrain", "observer": "on_event", "notifier": "send"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing at one key. A problem fails a launch; what is none may be right where the system runs, and is a note."""

    path: str
    text: str
    problem: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


_PLACEHOLDER: Final = re.compile(r"(?<!\{)\{\w+\}")
_SINGLE_QUOTED: Final = re.compile(r"'[^']*'")
_READ_TWICE: Final = (
    (re.compile("`"), "an entrypoint with backquotes"),
    (re.compile(r"\$\(\(|\$\["), "an entrypoint with arithmetic"),
    (re.compile("(?<!<)<<(?!<)"), "an entrypoint with a here-document"),
)
_SHELL: Final = re.compile("(?:ba|da|k|z|a|c|tc|fi)?sh")
_COMMAND_OPTION: Final = re.compile("-[a-z]*c")


def inspect(settings: config.Settings, environment: Mapping[str, str], *, imports: bool = False) -> list[Finding]:
    """Return all that a launch would find, problems first.

    Args:
        settings: what the schema has accepted.
        environment: for `${NAME}`; a name that it lacks is a note, since the system's environment counts.
        imports: also import modules of the user's own, and look for what they should have.
    """
    look = _Look(environment, imports=imports)
    found = [*look.storage(settings.storage), *look.page(settings.ui), *look.notifications(settings)]
    found += [
        Finding(f"models.{shown(name)}", "no model can have such a name, so the entry holds for none")
        for name in settings.models
        if wire.text_rule(name) is not None or not gate.can_match(name)
    ]
    for name, target in settings.observers.items():
        found += look.target(f"observers.{name}", target, "observer")
    entries = {"defaults": settings.defaults, **{f"models.{name}": entry for name, entry in settings.models.items()}}
    for path, entry in entries.items():
        found += look.handler(f"{path}.handler", entry.handler)
        if isinstance(entry.handler, config.MlflowAliasHandlerSettings):
            found.append(Finding(f"{path}.handler", "mlflow_alias carries out promotions: name it under promotion.handler"))
        if entry.promotion.handler is not None:
            if isinstance(entry.promotion.handler, config.ChannelHandlerSettings):
                why = "must be a handler that launches something, got channel: consumers get no decisions"
                found.append(Finding(f"{path}.promotion.handler", why))
            found += look.handler(f"{path}.promotion.handler", entry.promotion.handler)
        rule = config.RetrainRule.of_layers([settings.defaults.retrain, entry.retrain])
        if rule.when == "shortfall":
            needed = f"needs events with `n`, and a cross-validated promise of {rule.metric}; without, alarms order retrains"
            found.append(Finding(f"{path}.retrain", needed, problem=False))
    return sorted(dict.fromkeys(found), key=lambda each: not each.problem)


def _in_use(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


class _Look:
    def __init__(self, environment: Mapping[str, str], *, imports: bool) -> None:
        self._environment = environment
        self._imports = imports

    def storage(self, url: str) -> Iterator[Finding]:
        missing = list(self._missing("storage", url))
        yield from missing
        if missing:
            return
        try:
            folder = folder_of(expand(url, self._environment))
        except StoreError as error:
            yield Finding("storage", str(error))
            return
        if folder is not None and folder.exists() and not folder.is_dir():
            yield Finding("storage", f"must name the folder of a store, {folder} is a file")
        elif folder is not None and folder.is_dir() and any(folder.iterdir()) and not (folder / "system.db").exists():
            yield Finding("storage", f"the folder {folder} holds files and no store: one is made among them", problem=False)
        if not is_local(url) and importlib.util.find_spec("psycopg") is None:
            yield Finding("storage", "needs a driver where the system runs: pip install 'visutility[postgres]'", problem=False)

    def page(self, ui: UiSettings) -> Iterator[Finding]:
        tokens = {"reader": ui.tokens.reader, "operator": ui.tokens.operator, "writer": ui.tokens.writer}
        for name, token in tokens.items():
            if token is None:
                continue
            missing = list(self._missing(f"ui.tokens.{name}", token))
            yield from missing
            if not missing and len(expand(token, self._environment)) < SHORTEST_TOKEN:
                yield Finding(f"ui.tokens.{name}", f"{token} must have at least {SHORTEST_TOKEN} characters")
        written = [token for token in tokens.values() if token is not None]
        if len(set(written)) < len(written):
            yield Finding("ui.tokens", "reader, operator and writer must differ, or everybody who reads could act")
        if not written and not ui.trusted_proxies and not is_loopback(ui.host):
            yield Finding("ui.host", f"must be a loopback address without ui.tokens and ui.trusted_proxies, got {ui.host!r}")
        if ui.enabled:
            absent = [name for name in ("starlette", "uvicorn", "jinja2") if importlib.util.find_spec(name) is None]
            if absent:
                yield Finding("ui.enabled", "needs where the system runs: pip install 'visutility[ui]'", problem=False)
            if _in_use(ui.host, ui.port):
                why = f"port {ui.port} of {ui.host} is in use here, which is fine if this system's page uses it"
                yield Finding("ui.port", why, problem=False)

    def notifications(self, settings: config.Settings) -> Iterator[Finding]:
        notify = settings.notify
        for name, receiver in notify.receivers.items():
            path = f"notify.receivers.{name}"
            yield from self._missing(path, receiver.model_dump())
            match receiver:
                case CustomReceiverSettings() if ":" in receiver.kind:
                    yield from self.target(path, receiver.kind, "notifier", receiver.options)
                case CustomReceiverSettings() if receiver.kind not in plugins.names("notifiers"):
                    known = ", ".join([*RECEIVER_KINDS, *plugins.names("notifiers")])
                    yield Finding(f"{path}.kind", f"must be one of {known} or module:Class, got {receiver.kind!r}")
                case WebhookReceiverSettings(secret_env=str(variable)) if variable not in self._environment:
                    yield _not_set(f"{path}.secret_env", variable)
                case AppriseSettings() if importlib.util.find_spec("apprise") is None:
                    yield Finding(path, "needs where the system runs: pip install 'visutility[notify]'", problem=False)
        for key, template in (("title", notify.title), ("text", notify.text)):
            if template is not None:
                try:
                    notify_checks.compiled(template)
                except ValueError as error:
                    yield Finding(f"notify.{key}", str(error))
        for path, why in notify_checks.idle(settings):
            yield Finding(path, why, problem=False)

    def handler(self, path: str, handler: config.HandlerSettings) -> Iterator[Finding]:
        yield from self._missing(path, handler.model_dump(exclude={"then"}))
        match handler:
            case config.WebhookHandlerSettings():
                yield from self._webhook(path, handler)
            case config.RayJobHandlerSettings():
                yield from self._ray_job(path, handler)
            case config.RemoteHandlerSettings():
                yield from self._url(f"{path}.url", handler.url)
            case config.TaskHandlerSettings():
                yield from _resources(f"{path}.resources", handler.resources)
                yield from self.target(f"{path}.target", handler.target, None)
            case config.TuneHandlerSettings():
                yield from self._study(path, handler)
                yield from self.handler(f"{path}.then", handler.then)
            case config.CustomHandlerSettings():
                yield from self.target(f"{path}.kind", handler.kind, "handler", handler.options)
            case config.ChannelHandlerSettings():
                pass

    def target(self, path: str, target: str, kind: str | None, options: Mapping[str, Any] | None = None) -> Iterator[Finding]:
        """Look for `module:name`: whether it can be imported, and is what it should be."""
        if not self._imports:
            return
        module, _, name = target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:  # noqa: BLE001  a module of the user's own may raise anything
            yield Finding(path, f"{target} cannot be imported here: {type(error).__name__}: {error}")
            return
        if not callable(found):
            yield Finding(path, f"must be a function or a class, {target} is {type(found).__name__}")
            return
        method = _METHODS.get(kind or "")
        if method is not None and not callable(getattr(found, method, None)):
            yield Finding(path, f"must be a class with a method {method}, {target} has none")
        if options is not None:
            try:
                inspection.signature(found).bind(**options)
            except TypeError as error:
                yield Finding(path, f"{target} cannot be made with options {sorted(options)}: {error}")
            except ValueError:
                pass  # a class of C code without a signature

    def _webhook(self, path: str, handler: config.WebhookHandlerSettings) -> Iterator[Finding]:
        yield from self._url(f"{path}.url", handler.url)
        if handler.secret_env is not None and not self._environment.get(handler.secret_env):
            yield _not_set(f"{path}.secret_env", handler.secret_env)

    def _ray_job(self, path: str, handler: config.RayJobHandlerSettings) -> Iterator[Finding]:
        yield from _resources(f"{path}.resources", handler.resources)
        if handler.address is not None:
            yield from self._url(f"{path}.address", handler.address)
        for name in quoted_placeholders(handler.entrypoint):
            yield Finding(
                f"{path}.entrypoint",
                f"{{{name}}} must stand outside quotes: it is quoted already, and inside other quotes a name like '; rm -rf ~' "
                "would run",
            )
        where = read_twice(handler.entrypoint)
        if where is not None:
            yield Finding(
                f"{path}.entrypoint",
                f"placeholders must not stand in {where}: a shell evaluates that part again, or without quotes, so a name "
                "like '$(rm -rf ~)' would run; pass them to a script as arguments",
            )

    def _url(self, path: str, written: str) -> Iterator[Finding]:
        url = written if self._missing_names(written) else expand(written, self._environment)
        problem = _url_problem(url)
        if problem is not None and not self._missing_names(written):
            yield Finding(path, problem)
        elif "@" in urlsplit(written).netloc and not REFERENCE.search(urlsplit(written).netloc.rpartition("@")[0]):
            yield Finding(
                path,
                "must not contain a password, because the store keeps the configuration: write ${NAME}, from the environment",
            )

    def _study(self, path: str, handler: config.TuneHandlerSettings) -> Iterator[Finding]:
        yield from self.target(f"{path}.objective", handler.objective, None)
        of_user = ":" in handler.strategy and not handler.strategy.startswith(("optuna:", "scipy:"))
        asked: Arguments = {
            "name": "check",
            "space": handler.space,
            "trials": handler.trials,
            "seed": handler.seed or 0,
            "mode": handler.mode,
            "strategy": "random" if of_user and not self._imports else handler.strategy,
            "retries": handler.retries,
            "max_concurrent": handler.max_concurrent,
            "timeout_s": handler.timeout_s,
        }
        try:
            plan.check(asked)
        except ValueError as error:
            yield Finding(path, str(error))
            return
        if handler.current is None:
            return
        try:
            plan.check(asked | {"first": [handler.current]})
        except ValueError as error:
            yield Finding(f"{path}.current", str(error).removeprefix("first[0] ").removeprefix("first "))

    def _missing(self, path: str, value: object) -> Iterator[Finding]:
        for name in self._missing_names(value):
            yield _not_set(path, name)

    def _missing_names(self, value: object) -> list[str]:
        names = dict.fromkeys(_references(value))
        return [name for name in names if name not in self._environment]


def quoted_placeholders(entrypoint: str) -> list[str]:
    r"""Return the placeholders `{name}` that stand inside quotes of a shell's command, or after a backslash.

    >>> quoted_placeholders("train.py --model {model} --note 'of {version}' \\\'{metric}")
    ['version']
    """
    found: list[str] = []
    quote, at = "", 0
    while at < len(entrypoint):
        here, both = entrypoint[at], entrypoint[at : at + 2]
        if both in {"{{", "}}"}:
            at += 1
        elif here == "{":
            name = entrypoint[at + 1 :].partition("}")[0]
            if quote:
                found.append(name)
            at += len(name)
        elif here == "\\" and quote != "'":
            # The next character is literal, except a placeholder: the backslash would take its quotes.
            after = entrypoint[at + 1 : at + 3]
            if after.startswith("{") and after != "{{":
                name = entrypoint[at + 2 :].partition("}")[0]
                found.append(name)
                at += 1 + len(name)
            elif after not in {"{{", "}}"}:
                at += 1
        elif here == quote:
            quote = ""
        elif here in "'\"" and not quote:
            quote = here
        at += 1
    return found


def read_twice(entrypoint: str) -> str | None:
    """Say where in an entrypoint a placeholder stands whose quotes are of no use, None where none does.

    >>> read_twice("ssh gpu1 train.py {model}")
    'what ssh is given'
    >>> read_twice("sh -c 'exec train.py $1' sh {model}")
    """
    if _PLACEHOLDER.search(entrypoint) is None:
        return None
    bare = _SINGLE_QUOTED.sub("", entrypoint)
    found = next((where for written, where in _READ_TWICE if written.search(bare)), None)
    if found is not None:
        return found
    try:
        words = shlex.split(entrypoint)
    except ValueError:  # an open quote, or one that a here-document holds
        return None
    for at, word in enumerate(words):
        program = word.rpartition("/")[2]
        if program in {"eval", "ssh", "su", "watch"} and any(map(_PLACEHOLDER.search, words[at + 1 :])):
            return f"what {program} is given"
        of_a_shell = any(_SHELL.fullmatch(before.rpartition("/")[2]) for before in words[:at])
        if of_a_shell and _COMMAND_OPTION.fullmatch(word) and any(map(_PLACEHOLDER.search, words[at + 1 : at + 2])):
            return f"the command of {word}"
    return None


def _not_set(path: str, name: str) -> Finding:
    return Finding(path, f"the environment of the system must have {name}, which is not set here", problem=False)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"must be an http or https URL: {error}"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "must be an http or https URL without spaces"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http or https URL with a host"
    return "must have a port from 1 to 65535" if port == 0 else None


def _resources(path: str, resources: Mapping[str, float]) -> Iterator[Finding]:
    for name, amount in resources.items():
        if amount < 0:
            yield Finding(path, f"{name} must be 0 or more, got {amount}")

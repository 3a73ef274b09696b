"""Makes a receiver of its settings; each kind imports what it needs where it is made."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from actors import plugins
from actors.config.notify import (
    RECEIVER_KINDS,
    AlertmanagerSettings,
    AppriseSettings,
    CustomReceiverSettings,
    ReceiverSettings,
    WebhookReceiverSettings,
)
from actors.notify.notification import Notifier, ReceiverError


def make(settings: ReceiverSettings, environment: Mapping[str, str] | None = None) -> Notifier:
    """Return the receiver that `settings` describe, with `${NAME}` taken from the environment of this process.

    Raises:
        ReceiverError: it cannot be made, say because a package is missing.
        ValueError: a variable of the environment is missing.

    Example:
        make(WebhookReceiverSettings(kind="webhook", url="https://example.org/hook")).send(notification)
    """
    known = os.environ if environment is None else environment
    said = settings.expanded(known)
    match said:
        case AlertmanagerSettings():
            from actors.notify.receivers.alertmanager import Alertmanager  # each kind is imported by those who use it

            return Alertmanager(said)
        case AppriseSettings():
            from actors.notify.receivers.apprise import Apprise  # as above

            return Apprise(said)
        case WebhookReceiverSettings():
            from actors.notify.receivers.webhook import Webhook  # as above

            return Webhook(said, _secret(said, known))
        case CustomReceiverSettings():
            notifier: Notifier = _class(said.kind)(**said.options)
            return notifier


def _secret(settings: WebhookReceiverSettings, environment: Mapping[str, str]) -> str | None:
    if settings.secret_env is None:
        return None
    secret = environment.get(settings.secret_env)
    if not secret:
        raise ValueError(f"secret_env: the environment of this process has no {settings.secret_env}")
    return secret


def _class(kind: str) -> Any:
    if ":" not in kind:
        try:
            return plugins.load("notifiers", kind)
        except KeyError:
            known = ", ".join([*RECEIVER_KINDS, *plugins.names("notifiers")])
            raise ReceiverError(f"kind must be one of {known} or module:Class, got {kind!r}") from None
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ReceiverError(f"kind {kind!r} cannot be imported: {error}") from None

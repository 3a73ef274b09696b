"""The ways to launch a retrain, one a file; `create` makes one from its settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from actors import config
from actors.retraining.handlers.airflow import AirflowHandler
from actors.retraining.handlers.custom import CustomHandler
from actors.retraining.handlers.interface import Handler, Surroundings, event_fields, event_of
from actors.retraining.handlers.kubernetes import KubernetesHandler
from actors.retraining.handlers.mlflow_alias import MlflowAliasHandler
from actors.retraining.handlers.prefect import PrefectHandler
from actors.retraining.handlers.ray_job import RayJobHandler
from actors.retraining.handlers.task import TaskHandler
from actors.retraining.handlers.tune import TuneHandler
from actors.retraining.handlers.webhook import WebhookHandler
from actors.retraining.rules.delivery import Outcome
from actors.retraining.rules.orders import Order

__all__ = ["Handler", "Surroundings", "create", "event_fields", "event_of", "settings_of", "without_secrets"]

_REFERENCE: Final = re.compile(r"\$\{(\w+)\}|\"secret_env\": \"(\w+)\"")
_MAX_REASON_CHARACTERS: Final = 1000

_MAKERS: Final[Mapping[type, Callable[[Any, Surroundings], Handler]]] = {
    config.TaskHandlerSettings: TaskHandler,
    config.RayJobHandlerSettings: RayJobHandler,
    config.WebhookHandlerSettings: WebhookHandler,
    config.AirflowHandlerSettings: AirflowHandler,
    config.PrefectHandlerSettings: PrefectHandler,
    config.KubernetesHandlerSettings: KubernetesHandler,
    config.TuneHandlerSettings: TuneHandler,
    config.MlflowAliasHandlerSettings: MlflowAliasHandler,
    config.CustomHandlerSettings: CustomHandler,
}


def create(settings: config.HandlerSettings, surroundings: Surroundings) -> Handler:
    """Make the handler that `settings` describe. ValueError for `channel`: its orders wait for consumers."""
    made = _MAKERS.get(type(settings))
    if made is None:
        raise ValueError(f"handler must be one that the dispatcher launches, got {settings.kind!r}")
    return made(settings, surroundings)


def settings_of(order: Order) -> config.HandlerSettings:
    """Return the settings that stand with an order: it is launched and followed by them, also after a reload."""
    said: Any = order.handler_settings
    if "defaults" in said:  # recorded by a build before 0.2, as a whole configuration
        said = said["defaults"]["handler"]
    return config.read_handler(said)


def without_secrets(outcome: Outcome, order: Order, environment: Mapping[str, str]) -> Outcome:
    """Return the outcome with a reason that may go on record: short, and without what the settings took from the environment.

    A handler's errors may quote a header or an option, and a job's message ends with the job's own output.
    """
    reason = getattr(outcome, "reason", "")
    if not reason:
        return outcome
    names = {first or second for first, second in _REFERENCE.findall(json.dumps(order.handler_settings))}
    for value in sorted({environment.get(name, "") for name in names}, key=len, reverse=True):
        for secret in {value, value.strip(), repr(value)[1:-1]} - {""}:
            reason = reason.replace(secret, "***")
    return replace(outcome, reason=reason[:_MAX_REASON_CHARACTERS])  # type: ignore[arg-type]  # HandOn has none

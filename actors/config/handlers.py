"""The configuration of handlers: one class for each kind, and their union `HandlerSettings`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter

from actors import plugins
from actors.config.fields import Count, OptionalSeconds, PositiveSeconds, Target, checked_target
from actors.config.handler_base import HandlerBase, checked_url
from actors.config.remote import AirflowHandlerSettings, KubernetesHandlerSettings, PrefectHandlerSettings
from actors.plain import Json

_PLACEHOLDER: Final = re.compile(r"(?<![${])\{([A-Za-z_]\w*)\}(?!\})")


def _template(value: str) -> str:
    for name in _PLACEHOLDER.findall(value):
        if name not in RayJobHandlerSettings.PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in RayJobHandlerSettings.PLACEHOLDERS)
            raise ValueError(f"may hold {known} (a literal brace is doubled), got {{{name}}}")
    return value


def _target_or_name(value: str) -> str:
    return checked_target(value) if ":" in value else value


class ChannelHandlerSettings(HandlerBase):
    """Keeps the order until a consumer of `system.retrains.stream()` takes it."""

    kind: Literal["channel"] = "channel"
    lease_s: PositiveSeconds = Field(default=60.0, alias="lease")
    """How long an order stays with a consumer that does not renew it."""


class TaskHandlerSettings(HandlerBase):
    """Runs `module:function` as a Ray task. `resources`: num_cpus, num_gpus, memory (bytes), and custom ones by name."""

    kind: Literal["task"]
    target: Target
    """The function; it gets the RetrainEvent and may return `{"new_version": ...}`."""
    resources: dict[str, float] = Field(default_factory=dict)
    """The resources of the task: `num_cpus`, `num_gpus`, `memory` in bytes, and custom resources by name."""


class RayJobHandlerSettings(HandlerBase):
    """Submits a Ray job; its submission id is the order's id."""

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ("model", "version", "order", "metric")

    kind: Literal["ray_job"]
    entrypoint: Annotated[str, Field(min_length=1), AfterValidator(_template)]
    """The command, with `{model}`, `{version}`, `{order}`, `{metric}` (quoted for the shell); double a literal brace."""
    runtime_env: Json = Field(default_factory=dict)
    """Ray's runtime environment of the job."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Strings that the dashboard shows with the job."""
    resources: dict[str, float] = Field(default_factory=dict)
    """The resources of the entrypoint, as for `task`."""
    address: str | None = None
    """The address of the dashboard, `http://...`. `null`: the cluster's own."""


class WebhookHandlerSettings(HandlerBase):
    """Posts a CloudEvent. `secret_env` names the variable of the environment that holds the signing secret."""

    kind: Literal["webhook"]
    url: Annotated[str, AfterValidator(checked_url)]
    """The URL that gets the order; redirects are not followed."""
    secret_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The variable of the environment that holds the signing secret. `null`: the body is not signed."""
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")
    """How long to wait for the answer."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers."""


class TuneHandlerSettings(HandlerBase):
    """Runs a study, then passes the best parameters to the handler under `then`."""

    kind: Literal["tune"]
    objective: Target
    """The objective; the event is its `trial.context`."""
    space: Json = Field(min_length=1)
    """The search space, as for `visutility tune`."""
    trials: Count = 20
    """How many."""
    strategy: str = "random"
    """The strategy that proposes parameters."""
    mode: Literal["min", "max"] = "min"
    """Whether to minimize or maximize the objective."""
    seed: int | None = None
    """The seed of the parameters. `null`: a new one for each order."""
    max_concurrent: Count | None = None
    """Trials at once. `null`: what the cluster's CPUs allow."""
    timeout_s: OptionalSeconds = Field(default=None, alias="timeout")
    """The hard limit of one trial."""
    retries: Annotated[int, Field(ge=0)] = 0
    """Further attempts after a trial raised."""
    current: Json | None = None
    """The current parameters until a study has found better ones; trial 0 of every study uses the current ones."""
    min_improvement: Annotated[float, Field(ge=0)] | None = None
    """How much the best parameters must improve on the current ones to be used. `null`: always use them."""
    then: HandlerSettings = Field(default_factory=ChannelHandlerSettings)
    """The handler that gets the best parameters."""


class MlflowAliasHandlerSettings(HandlerBase):
    """Moves an alias of a registered model of MLflow to the version that went live: for `promotion.handler` only.

    `registry.mlflow` adds it by itself.
    """

    kind: Literal["mlflow_alias"]
    url: Annotated[str, AfterValidator(checked_url)]
    """The URL of the server."""
    name: Annotated[str, Field(min_length=1)]
    """The name of the registered model."""
    alias: Annotated[str, Field(min_length=1)] = "champion"
    """The alias."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""


class CustomHandlerSettings(HandlerBase):
    """The user's own RetrainHandler, `module:Class`, created with `options` as keyword arguments."""

    kind: Annotated[str, AfterValidator(_target_or_name)]
    """The class, or its name under the entry point `visutility.handlers`."""
    options: Json = Field(default_factory=dict)
    """Its keyword arguments."""


KINDS: Final = ("channel", "task", "ray_job", "webhook", "airflow", "prefect", "kubernetes", "tune", "mlflow_alias")


def kind_of(value: Any) -> str:
    """Return the kind of a handler as written; `module:Class` for every class of the user."""
    kind = value.get("kind", "channel") if isinstance(value, Mapping) else getattr(value, "kind", "")
    is_custom = isinstance(kind, str) and (":" in kind or (kind not in KINDS and kind in plugins.names("handlers")))
    return "module:Class" if is_custom else str(kind)


HandlerSettings = Annotated[
    Annotated[ChannelHandlerSettings, Tag("channel")]
    | Annotated[TaskHandlerSettings, Tag("task")]
    | Annotated[RayJobHandlerSettings, Tag("ray_job")]
    | Annotated[WebhookHandlerSettings, Tag("webhook")]
    | Annotated[AirflowHandlerSettings, Tag("airflow")]
    | Annotated[PrefectHandlerSettings, Tag("prefect")]
    | Annotated[KubernetesHandlerSettings, Tag("kubernetes")]
    | Annotated[TuneHandlerSettings, Tag("tune")]
    | Annotated[MlflowAliasHandlerSettings, Tag("mlflow_alias")]
    | Annotated[CustomHandlerSettings, Tag("module:Class")],
    Discriminator(kind_of),
]
TAGS: Final = frozenset({*KINDS, "module:Class"})
_ANY_HANDLER: Final[TypeAdapter[HandlerSettings]] = TypeAdapter(HandlerSettings)


def handler_document(handler: HandlerSettings) -> dict[str, object]:
    """Return a handler's settings as plain JSON values, to store with an order; `${NAME}` stays a reference."""
    said: dict[str, object] = json.loads(json.dumps(handler.model_dump(exclude_unset=True, by_alias=True)))
    return {"kind": handler.kind, **said}


def read_handler(document: Mapping[str, object]) -> HandlerSettings:
    """Return the settings that `handler_document` has written. ValueError where another build wrote what this one refuses."""
    return _ANY_HANDLER.validate_python(document)

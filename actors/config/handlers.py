"""What the configuration says of handlers: one class for each kind, and their union `HandlerSettings`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter

from actors.checks import shown
from actors.config.fields import Count, OptionalSeconds, PositiveSeconds, Section, Target
from actors.config.values import REFERENCE, expand

_PLACEHOLDER: Final = re.compile(r"(?<![${])\{([A-Za-z_]\w*)\}(?!\})")


def _url(value: str) -> str:
    if not (value.startswith(("http://", "https://")) or REFERENCE.match(value)):
        raise ValueError(f"must be an http or https URL, got {shown(value)}")
    return value


def _template(value: str) -> str:
    for name in _PLACEHOLDER.findall(value):
        if name not in RayJobHandlerSettings.PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in RayJobHandlerSettings.PLACEHOLDERS)
            raise ValueError(f"may hold {known} (a literal brace is doubled), got {{{name}}}")
    return value


class _Handler(Section):
    """What every handler can do."""

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded; only to be held as long as the launch takes."""
        return self.model_copy(
            update={name: expand(getattr(self, name), environment) for name in type(self).model_fields if name != "then"}
        )


class ChannelHandlerSettings(_Handler):
    """Keeps the order until a consumer of `system.retrains.stream()` takes it."""

    kind: Literal["channel"] = "channel"
    lease_s: PositiveSeconds = Field(default=60.0, alias="lease")


class TaskHandlerSettings(_Handler):
    """Runs `module:function` as a Ray task. `resources`: num_cpus, num_gpus, memory (bytes), and custom ones by name."""

    kind: Literal["task"]
    target: Target
    resources: dict[str, float] = Field(default_factory=dict)


class RayJobHandlerSettings(_Handler):
    """Submits a Ray job; its submission id is the order's id."""

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ("model", "version", "order", "metric")

    kind: Literal["ray_job"]
    entrypoint: Annotated[str, Field(min_length=1), AfterValidator(_template)]
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, float] = Field(default_factory=dict)
    address: str | None = None  # of the dashboard, http://...; the cluster's own where it is left out


class WebhookHandlerSettings(_Handler):
    """Posts a CloudEvent. `secret_env` names the variable of the environment that holds the signing secret."""

    kind: Literal["webhook"]
    url: Annotated[str, AfterValidator(_url)]
    secret_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")
    headers: dict[str, str] = Field(default_factory=dict)


class TuneHandlerSettings(_Handler):
    """Runs a study, then hands the best parameters to the handler under `then`."""

    kind: Literal["tune"]
    objective: Target
    space: dict[str, Any] = Field(min_length=1)
    trials: Count = 20
    strategy: str = "random"
    mode: Literal["min", "max"] = "min"
    seed: int | None = None
    max_concurrent: Count | None = None
    timeout_s: OptionalSeconds = Field(default=None, alias="timeout")  # of one trial
    retries: Annotated[int, Field(ge=0)] = 0
    # The parameters in force until a study has found better ones; those in force are trial 0 of every study.
    current: dict[str, Any] | None = None
    min_improvement: Annotated[float, Field(ge=0)] | None = None  # over the parameters in force; None: always hand on
    then: HandlerSettings = Field(default_factory=ChannelHandlerSettings)


class CustomHandlerSettings(_Handler):
    """A RetrainHandler of the user's own, `module:Class`, made with `options` as keyword arguments."""

    kind: Target
    options: dict[str, Any] = Field(default_factory=dict)


KINDS: Final = ("channel", "task", "ray_job", "webhook", "tune")


def kind_of(value: Any) -> str:
    """Return the kind that a handler is written with; `module:Class` for every class of the user's own."""
    kind = value.get("kind", "channel") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return "module:Class" if isinstance(kind, str) and ":" in kind else str(kind)


HandlerSettings = Annotated[
    Annotated[ChannelHandlerSettings, Tag("channel")]
    | Annotated[TaskHandlerSettings, Tag("task")]
    | Annotated[RayJobHandlerSettings, Tag("ray_job")]
    | Annotated[WebhookHandlerSettings, Tag("webhook")]
    | Annotated[TuneHandlerSettings, Tag("tune")]
    | Annotated[CustomHandlerSettings, Tag("module:Class")],
    Discriminator(kind_of),
]
TAGS: Final = frozenset({*KINDS, "module:Class"})
_ANY_HANDLER: Final[TypeAdapter[HandlerSettings]] = TypeAdapter(HandlerSettings)


def handler_document(handler: HandlerSettings) -> dict[str, object]:
    """Return a handler's settings as plain JSON values, to stand with an order; `${NAME}` stays a reference."""
    said: dict[str, object] = json.loads(json.dumps(handler.model_dump(exclude_unset=True, by_alias=True)))
    return {"kind": handler.kind, **said}


def read_handler(document: Mapping[str, object]) -> HandlerSettings:
    """Return the settings that `handler_document` has written. ValueError where another build wrote what this one refuses."""
    return _ANY_HANDLER.validate_python(document)

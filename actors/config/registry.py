"""The configuration of a model registry: its versions become versions here, and an alias names the live one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from actors.checks import shown
from actors.config.fields import Name, PositiveSeconds, Section
from actors.config.handler_base import checked_url
from actors.config.handlers import MlflowAliasHandlerSettings
from actors.config.remote import Reference
from actors.config.values import expand


def _one_to_one(value: dict[str, str]) -> dict[str, str]:
    twice = sorted({here for here in value.values() if list(value.values()).count(here) > 1})
    if twice:
        raise ValueError(f"two registered models must not be one model here, got {shown(twice[0])} twice")
    return value


class MlflowRegistrySettings(Section):
    """MLflow's model registry."""

    url: Annotated[str, AfterValidator(checked_url)]
    """The URL of the server."""
    models: Annotated[dict[Name, Name], Field(min_length=1), AfterValidator(_one_to_one)]
    """The registered models, each with the name of the model here."""
    alias: Name = "champion"
    """The alias of the live version: when it moves, its version becomes live here; a promotion or rollback here moves it."""
    promise: Name | None = None
    """A tag of the version, else a metric of its run, to record as the hold-out promise of the version's accuracy."""
    promise_n: Name = "n"
    """The tag, metric or parameter with the number of rows behind the promise."""
    every_s: PositiveSeconds = Field(default=30.0, alias="every")
    """The time between two polls of the registry."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as `Authorization: Bearer ${TOKEN}`."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""

    webhook_secret: Reference | None = None
    """The secret of MLflow's webhook, as `${NAME}`: a call of `/api/v1/hooks/mlflow` on the page polls at once."""

    @property
    def kind(self) -> str:
        """Return its name in `status`."""
        return "mlflow_registry"

    @property
    def max_models(self) -> int:
        """Return the largest number of models, as for a source."""
        return len(self.models)

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded that a poll needs: the secret of the webhook is the page's."""
        needed = type(self).model_fields.keys() - {"webhook_secret"}
        return self.model_copy(update={name: expand(getattr(self, name), environment) for name in needed})

    def sets_alias(self, model: str) -> MlflowAliasHandlerSettings | None:
        """Return the handler of decisions about `model` in the registry; None if the registry does not hold the model."""
        there = next((name for name, here in self.models.items() if here == model), None)
        if there is None:
            return None
        said = {"url": self.url, "headers": self.headers, "timeout": f"{self.timeout_s:g}s"}
        return MlflowAliasHandlerSettings.model_validate({"kind": "mlflow_alias", "name": there, "alias": self.alias, **said})


class RegistrySettings(Section):
    """The model registries."""

    mlflow: MlflowRegistrySettings | None = None
    """MLflow's model registry. `null`: none."""

    def sets_alias(self, model: str) -> MlflowAliasHandlerSettings | None:
        """Return the handler of decisions about `model` in a registry; None if no registry holds it."""
        return None if self.mlflow is None else self.mlflow.sets_alias(model)

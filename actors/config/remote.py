"""What the configuration says of handlers that run a retrain in another tool: Airflow, Prefect, Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from actors.checks import shown
from actors.config.fields import PositiveSeconds
from actors.config.handler_base import HandlerBase, checked_url
from actors.config.values import REFERENCE

_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


def _reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        # Not shown: it may be the secret itself.
        raise ValueError("must be a reference like ${NAME} to the environment, since the configuration is kept in the store")
    return value


def _deployment(value: str) -> str:
    flow, slash, name = value.partition("/")
    if not (flow and slash and name) or "/" in name:
        raise ValueError(f"must be 'flow/deployment', got {shown(value)}")
    return value


def _template(value: dict[str, Any]) -> dict[str, Any]:
    spec = _mapping(value, "spec")
    pod = _mapping(_mapping(spec, "template"), "spec")
    containers = pod.get("containers")
    if not isinstance(containers, list) or not containers or not all(isinstance(each, Mapping) for each in containers):
        raise ValueError("must be a Job with spec.template.spec.containers, got none")
    _mapping(value, "metadata")
    for name, kind in (("apiVersion", "batch/v1"), ("kind", "Job")):
        if value.get(name, kind) != kind:
            raise ValueError(f"{name} must be {kind}, got {shown(value[name])}")
    if pod.get("restartPolicy") not in {"Never", "OnFailure"}:
        raise ValueError(f"restartPolicy of the pod must be Never or OnFailure, got {shown(pod.get('restartPolicy'))}")
    kept_s = spec.get("ttlSecondsAfterFinished", _KEPT_S)
    if isinstance(kept_s, bool) or not isinstance(kept_s, int) or kept_s < _KEPT_S:
        rule = f"must be {_KEPT_S} or more, or left out: the end of a Job must be seen before it is deleted"
        raise ValueError(f"ttlSecondsAfterFinished {rule}, got {shown(kept_s)}")
    return value


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name, {})
    if isinstance(found, Mapping):
        return found
    raise ValueError(f"{name} must be a mapping, got {shown(found)}")


# A dispatcher that is down for a day still sees how the Job ended.
_KEPT_S: Final = 86_400
Reference = Annotated[str, AfterValidator(_reference)]


class RemoteHandlerSettings(HandlerBase):
    """What handlers of tools with an HTTP API have in common."""

    url: Annotated[str, AfterValidator(checked_url)]
    """The server."""
    token: Reference | None = None
    """The bearer token, as `${NAME}`."""
    user: str | None = None
    """The user, instead of a token."""
    password: Reference | None = None
    """The password of `user`, as `${NAME}`."""
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")
    """How long to wait for each answer."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.token is not None and self.user is not None:
            raise ValueError("must have token or user, not both")
        if (self.user is None) != (self.password is None):
            raise ValueError("must have user and password together")
        return self


class AirflowHandlerSettings(RemoteHandlerSettings):
    """Triggers a DAG of Airflow 3; the id of the DAG run is the order's id."""

    kind: Literal["airflow"]
    dag_id: str = Field(min_length=1, max_length=250)
    """The DAG; it finds the order's event in `dag_run.conf["event"]`."""
    result_task: str | None = Field(default=None, min_length=1)
    """The task that returns `{"new_version": ...}`. `null`: the order is done without a version."""
    conf: dict[str, Any] = Field(default_factory=dict)
    """Further values of `dag_run.conf`."""


class PrefectHandlerSettings(RemoteHandlerSettings):
    """Creates a flow run of a Prefect deployment; its idempotency key is the order's id."""

    kind: Literal["prefect"]
    deployment: Annotated[str, AfterValidator(_deployment)]
    """`flow/deployment`; the flow takes the order's event as its parameter `event`."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the flow."""


class KubernetesHandlerSettings(RemoteHandlerSettings):
    """Creates a Kubernetes Job; its name is the order's id."""

    kind: Literal["kubernetes"]
    template: Annotated[dict[str, Any], AfterValidator(_template)]
    """The Job, as `kubectl` takes it; its name and the order's environment variables are put in."""
    url: Annotated[str, AfterValidator(checked_url)] = "https://kubernetes.default.svc"
    """The API server; by default that of the cluster that the dispatcher runs in."""
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """The namespace of the Job."""
    token_file: str | None = f"{_ACCOUNT}/token"
    """The file with the token, read for each request; by default that of the pod's service account."""
    ca_file: str | None = f"{_ACCOUNT}/ca.crt"
    """The certificates of the API server. `null`: those of the machine."""

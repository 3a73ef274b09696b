"""The configuration of notifications: receivers, which happenings each gets, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from actors import labels
from actors.checks import shown
from actors.config.fields import Name, OptionalSeconds, PositiveSeconds, Seconds, Section
from actors.config.handler_base import checked_url
from actors.config.seasons import check_zone
from actors.config.values import REFERENCE, expand
from actors.plain import Json
from actors.replies import HappeningKind, Severity

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
# Never more than `info`: a route that asks for these and for more matches nothing.
ALWAYS_INFO: Final[frozenset[HappeningKind]] = frozenset(
    {"order_launched", "order_done", "promoted", "acknowledged", "judged", "silenced", "triggered", "retried", "dismissed"}
)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FIELDS: Final = ("model", "version", "metric", "kind", "severity")
RECEIVER_KINDS: Final = ("alertmanager", "apprise", "webhook")

_HttpUrl = Annotated[str, AfterValidator(checked_url)]


def _time(value: str) -> str:
    try:
        datetime.strptime(value, "%H:%M")  # noqa: DTZ007  a time of the day
    except ValueError:
        raise ValueError(f"must be a time of the day like 22:00, got {shown(value)}") from None
    return value


def _zone(value: str) -> str:
    check_zone(value)
    return value


def _with_reference(value: str) -> str:
    if not REFERENCE.search(value):
        raise ValueError("must hold a reference like ${NAME} to the environment, since such a URL holds a secret")
    return value


def _kind(value: HappeningKind) -> HappeningKind:
    if value == "recovered":
        raise ValueError("recovered goes wherever its alarm went: leave it out (`resolved: false` holds it back)")
    return value


def _selector(value: str) -> str:
    labels.parse(value, "labels")
    return value


class QuietHours(Section):
    """The quiet hours, in which happenings wait."""

    start: Annotated[str, AfterValidator(_time)] = Field(alias="from")
    """The start of the quiet hours, like `22:00`."""
    end: Annotated[str, AfterValidator(_time)] = Field(alias="to")
    """The end. A time before `from` is on the next day; the same time means a whole day."""
    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)] = Field(
        default_factory=lambda: list(DAYS)  # type: ignore[arg-type]  # texts, not literals
    )
    """The days on which the quiet hours start."""
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """The time zone, like `Europe/Berlin`."""
    passes: Severity = "critical"
    """Happenings of at least this severity do not wait."""

    def hold(self, severity: Severity, at_s: float) -> bool:
        """Return whether news of this severity waits at `at_s`, in seconds since the epoch.

        >>> night = QuietHours.model_validate({"from": "22:00", "to": "07:00", "zone": "Europe/Berlin"})
        >>> [night.hold("warning", 1_784_930_400.0), night.hold("critical", 1_784_930_400.0)]  # midnight in Berlin
        [True, False]
        """
        if SEVERITIES.index(severity) >= SEVERITIES.index(self.passes):
            return False
        local = datetime.fromtimestamp(at_s, UTC).astimezone(ZoneInfo(self.zone))
        clock = local.strftime("%H:%M")
        today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        return (today in self.days and clock >= self.start) or (yesterday in self.days and clock < self.end)


class Route(Section):
    """Which happenings go to which receivers. A receiver gets a happening through the first route that matches and names it."""

    receivers: Annotated[list[Name], Field(min_length=1)]
    """The names of the receivers."""
    models: Name = "*"
    """The models, by name or pattern. Happenings of the system itself have no model, and match only `*`."""
    labels: Annotated[str, AfterValidator(_selector)] | None = None
    """The labels of the models, a selector like `team=risk,tier!=2`."""
    kinds: list[Annotated[HappeningKind, AfterValidator(_kind)]] | None = None
    """The kinds of happenings. `null`: all."""
    severity: Severity | None = None
    """The lowest severity. `null`: `info` if `kinds` are given, else `warning`."""
    group_by: list[Name] = Field(default_factory=list)
    """The fields that split happenings into separate messages: `model`, `version`, `metric`, `kind`, `severity`, or the name of
    a label. Default: one group per route.
    """
    group_wait_s: Seconds = Field(default=30.0, alias="group_wait")
    """How long the first happening of a group waits for others."""
    group_interval_s: Seconds = Field(default=300.0, alias="group_interval")
    """The time between two messages of one group."""
    repeat_every_s: OptionalSeconds = Field(default=86_400.0, alias="repeat_every")
    """The time after which an unresolved alarm that nobody has acknowledged is sent again. `null`: never."""
    resolved: bool = True
    """Whether to send a message when an alarm is resolved."""
    quiet: QuietHours | None = None
    """The quiet hours, in which happenings wait."""
    silences: Literal["hold", "ignore"] = "hold"
    """Whether happenings of silenced models wait until the silence ends."""

    @property
    def least(self) -> Severity:
        """Return the lowest severity of this route."""
        return self.severity or ("warning" if self.kinds is None else "info")


class _Receiver(Section):
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")
    """How long to wait for an answer."""

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded."""
        return self.model_copy(update={name: expand(getattr(self, name), environment) for name in type(self).model_fields})


class AlertmanagerSettings(_Receiver):
    """Prometheus' Alertmanager, by its API v2. It groups and repeats by its own configuration, so a route's are not used."""

    kind: Literal["alertmanager"]
    url: _HttpUrl
    """The URL of Alertmanager, without `/api/v2`."""
    resend_s: PositiveSeconds = Field(default=60.0, alias="resend")
    """How often a lasting alarm is sent again. Without a resend, Alertmanager resolves it after four times as long, and after
    five minutes at least.
    """
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as `Authorization: Bearer ${TOKEN}`."""


class AppriseSettings(_Receiver):
    """Slack, Teams, e-mail, PagerDuty and a hundred others, each by one URL of the package Apprise (extra `notify`)."""

    kind: Literal["apprise"]
    url: Annotated[str, AfterValidator(_with_reference)]
    """Apprise's URL, as `${NAME}` or with references in it: `mailtos://me:${PASSWORD}@example.org`."""


class WebhookReceiverSettings(_Receiver):
    """A POST of JSON, signed by Standard Webhooks."""

    kind: Literal["webhook"]
    url: _HttpUrl
    """The URL that gets the message; redirects are not followed."""
    secret_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The variable of the environment that holds the signing secret. `null`: no signature."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers."""


class CustomReceiverSettings(_Receiver):
    """The user's own Notifier: `module:Class`, or a name under the entry point `visutility.notifiers`."""

    kind: Annotated[str, Field(min_length=1)]
    """The class."""
    options: Json = Field(default_factory=dict)
    """Its keyword arguments."""


def receiver_kind_of(value: Any) -> str:
    """Return the kind of a receiver as written, as the tag of its class."""
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return f"receiver {kind if kind in RECEIVER_KINDS else 'custom'}"


ReceiverSettings = Annotated[
    Annotated[AlertmanagerSettings, Tag("receiver alertmanager")]
    | Annotated[AppriseSettings, Tag("receiver apprise")]
    | Annotated[WebhookReceiverSettings, Tag("receiver webhook")]
    | Annotated[CustomReceiverSettings, Tag("receiver custom")],
    Discriminator(receiver_kind_of),
]


class NotifySettings(Section):
    """Who gets which notifications."""

    receivers: dict[Name, ReceiverSettings] = Field(default_factory=dict)
    """The receivers, by a name of your choice."""
    routes: list[Route] = Field(default_factory=list)
    """Which receiver gets what. Without routes, every receiver gets all warnings."""
    title: Annotated[str, Field(max_length=10_000)] | None = None
    """The title of a message, a Jinja template. `null`: the default."""
    text: Annotated[str, Field(max_length=10_000)] | None = None
    """The text of a message, a Jinja template. `null`: the default."""

    @model_validator(mode="after")
    def _names_receivers(self) -> Self:
        for index, route in enumerate(self.routes):
            for name in route.receivers:
                if name not in self.receivers:
                    known = ", ".join(self.receivers) or "there is none"
                    raise ValueError(
                        f"routes.{index}: receivers must be among those of this section ({known}), got {shown(name)}"
                    )
        return self

    def in_order(self) -> list[Route]:
        """Return the routes; by default one that sends all warnings to every receiver."""
        return self.routes or ([Route(receivers=list(self.receivers))] if self.receivers else [])


NOTIFY_SECTIONS: Final[Mapping[object, type[Section]]] = {
    "notify": NotifySettings,
    "routes": Route,
    "quiet": QuietHours,
    "receiver alertmanager": AlertmanagerSettings,
    "receiver apprise": AppriseSettings,
    "receiver webhook": WebhookReceiverSettings,
    "receiver custom": CustomReceiverSettings,
}

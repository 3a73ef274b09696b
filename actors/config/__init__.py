"""The configuration: one document, checked once, and the settings of each model. Only `stored` reads the store."""

from actors.config.handlers import (
    ChannelHandlerSettings,
    CustomHandlerSettings,
    HandlerSettings,
    MlflowAliasHandlerSettings,
    RayJobHandlerSettings,
    TaskHandlerSettings,
    TuneHandlerSettings,
    WebhookHandlerSettings,
    handler_document,
    read_handler,
)
from actors.config.notify import (
    AlertmanagerSettings,
    AppriseSettings,
    CustomReceiverSettings,
    NotifySettings,
    QuietHours,
    ReceiverSettings,
    Route,
    WebhookReceiverSettings,
)
from actors.config.reading import anchored, differences, document, is_relative, load, needs_jobs, parse
from actors.config.registry import RegistrySettings
from actors.config.remote import (
    AirflowHandlerSettings,
    KubernetesHandlerSettings,
    PrefectHandlerSettings,
    RemoteHandlerSettings,
)
from actors.config.retrain import OrderLimits, Promotion, RetrainRule
from actors.config.seasons import Season
from actors.config.settings import Delivery, Detectors, Direction, ModelEntry, ModelSettings, Retention, Settings, WatchSettings
from actors.config.sources import (
    CustomSourceSettings,
    FilesSettings,
    MlflowSettings,
    PrometheusSettings,
    SourceSettings,
    SqlSettings,
)
from actors.config.ui import UiSettings
from actors.config.values import Budget, Duration, Price, expand, format_duration, parse_duration
from actors.config.yaml import read_yaml

__all__ = [
    "AirflowHandlerSettings",
    "AlertmanagerSettings",
    "AppriseSettings",
    "Budget",
    "ChannelHandlerSettings",
    "CustomHandlerSettings",
    "CustomReceiverSettings",
    "CustomSourceSettings",
    "Delivery",
    "Detectors",
    "Direction",
    "Duration",
    "FilesSettings",
    "HandlerSettings",
    "KubernetesHandlerSettings",
    "MlflowAliasHandlerSettings",
    "MlflowSettings",
    "ModelEntry",
    "ModelSettings",
    "NotifySettings",
    "OrderLimits",
    "PrefectHandlerSettings",
    "Price",
    "PrometheusSettings",
    "Promotion",
    "QuietHours",
    "RayJobHandlerSettings",
    "ReceiverSettings",
    "RegistrySettings",
    "RemoteHandlerSettings",
    "Retention",
    "RetrainRule",
    "Route",
    "Season",
    "Settings",
    "SourceSettings",
    "SqlSettings",
    "TaskHandlerSettings",
    "TuneHandlerSettings",
    "UiSettings",
    "WatchSettings",
    "WebhookHandlerSettings",
    "WebhookReceiverSettings",
    "anchored",
    "differences",
    "document",
    "expand",
    "format_duration",
    "handler_document",
    "is_relative",
    "load",
    "needs_jobs",
    "parse",
    "parse_duration",
    "read_handler",
    "read_yaml",
]

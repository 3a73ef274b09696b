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
from actors.config.reading import anchored, differences, document, is_relative, load, needs_jobs, parse
from actors.config.retrain import OrderLimits, Promotion, RetrainRule
from actors.config.seasons import Season
from actors.config.settings import Direction, ModelEntry, ModelSettings, Retention, Settings, WatchSettings
from actors.config.values import Budget, Duration, Price, expand, format_duration, parse_duration
from actors.config.yaml import read_yaml

__all__ = [
    "Budget",
    "ChannelHandlerSettings",
    "CustomHandlerSettings",
    "Direction",
    "Duration",
    "HandlerSettings",
    "MlflowAliasHandlerSettings",
    "ModelEntry",
    "ModelSettings",
    "OrderLimits",
    "Price",
    "Promotion",
    "RayJobHandlerSettings",
    "Retention",
    "RetrainRule",
    "Season",
    "Settings",
    "TaskHandlerSettings",
    "TuneHandlerSettings",
    "WatchSettings",
    "WebhookHandlerSettings",
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

"""The configuration of sources: other systems that hold metrics, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag

from actors.checks import shown
from actors.config.fields import Count, Name, PositiveSeconds, Seconds, Section
from actors.config.handler_base import checked_url
from actors.config.values import expand
from actors.plain import Json


def _absolute(value: str) -> str:
    if not (value.startswith(("/", "${")) or "://" in value):
        raise ValueError(f"must be an absolute path or a URL, because an actor reads it, got {shown(value)}")
    return value


_HttpUrl = Annotated[str, AfterValidator(checked_url)]


class _Source(Section):
    """The keys of every source."""

    every_s: PositiveSeconds = Field(default=60.0, alias="every")
    """The time between two polls."""
    max_models: Count = 100
    """The largest number of models; rows of further models are refused, because most likely a column or a label is wrong."""

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded."""
        return self.model_copy(update={name: expand(getattr(self, name), environment) for name in type(self).model_fields})


class Columns(Section):
    """The columns of a row."""

    model: Name = "model"
    """The column with the model's name."""
    version: Name = "version"
    """The column with the version; without it, the version is `unversioned`."""
    time: Name = "time"
    """The column with the event's own time: seconds since the epoch, or a date with a time zone (default: UTC)."""
    n: Name = "n"
    """The column with the number of predictions behind the row."""


class _Table(_Source):
    """The keys of a source of rows."""

    model: Name | None = None
    """The model of all rows, if no column holds it."""
    columns: Columns = Field(default_factory=Columns)
    """The names of the columns other than metrics."""
    metrics: dict[Name, Name] = Field(default_factory=dict)
    """The columns with metrics, each with the metric's name. Default: every other column that holds a number."""


class PrometheusSettings(_Source):
    """A PromQL query, evaluated at every step since the last answer."""

    kind: Literal["prometheus"]
    url: _HttpUrl
    """The URL of Prometheus, without `/api/v1`."""
    query: Annotated[str, Field(min_length=1)]
    """A query that returns an instant vector; the labels of each series name its model and version."""
    metric: Name = "accuracy"
    """The metric of the query's values."""
    n: str | None = None
    """A second query with the same labels, for the number of predictions behind each value."""
    model: Name | None = None
    """The model of all series, if no label names it."""
    model_label: Name = "model"
    """The label that names the model."""
    version_label: Name = "version"
    """The label that names the version; without it, the version is `unversioned`."""
    step_s: PositiveSeconds = Field(default=60.0, alias="step")
    """The time between two values."""
    delay_s: Seconds = Field(default=0.0, alias="delay")
    """How long a value may still change; values are read after this delay."""
    backfill_s: Seconds = Field(default=0.0, alias="backfill")
    """How far back the first query reaches."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as `Authorization: Bearer ${TOKEN}`."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""


class SqlSettings(_Table):
    """A database query, read incrementally by a column that only grows."""

    kind: Literal["sql"]
    url: Annotated[str, Field(min_length=1)]
    """The SQLAlchemy URL; put the password into the environment: `postgresql+psycopg://reader:${PASSWORD}@host/db`."""
    query: Annotated[str, Field(min_length=1)]
    """A SELECT, without ORDER BY and LIMIT."""
    watermark: Name
    """A column of the query that never decreases, such as a serial number or the time of insertion. Ties are handled."""
    look_back_s: Seconds = Field(default=0.0, alias="look_back")
    """How far behind the newest watermark a row may still arrive: seconds, or numbers of a serial number. Rows further behind
    are not read.
    """


class FilesSettings(_Table):
    """Files that arrive in a folder and may grow: JSONL, CSV or Parquet."""

    kind: Literal["files"]
    path: Annotated[str, AfterValidator(_absolute)]
    """A folder, a pattern like `/data/*.jsonl`, or an fsspec URL like `s3://bucket/metrics/*.csv`."""
    format: Literal["jsonl", "csv", "parquet"] | None = None
    """The format. `null`: by the file's extension; other files are ignored."""


class MlflowSettings(_Source):
    """The metrics of the runs of experiments, by MLflow's REST API."""

    kind: Literal["mlflow"]
    url: _HttpUrl
    """The URL of the tracking server."""
    experiments: Annotated[list[Name], Field(min_length=1)]
    """The names of the experiments."""
    model: Name | None = None
    """The model of all runs. `null`: the tag `model` of a run, else the name of its experiment."""
    version: Literal["run_id", "run_name", "registered"] = "run_id"
    """The version. `registered`: the version under which the run's model is registered, else the run's id."""
    metrics: dict[Name, Name] = Field(default_factory=dict)
    """The metrics of the runs to read, each with its name here. Default: all, under their own names."""
    promise: Name | None = None
    """A metric of the runs to record, at the end of a run, as the hold-out promise of the version's accuracy."""
    promise_n: Name = "n"
    """The metric or parameter of the run with the number of rows behind the promise."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as `Authorization: Bearer ${TOKEN}`."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""


class CustomSourceSettings(_Source):
    """The user's own source: `module:Class`, or a name under the entry point `visutility.sources`."""

    kind: Annotated[str, Field(min_length=1)]
    """The class."""
    options: Json = Field(default_factory=dict)
    """Its keyword arguments."""


SOURCE_KINDS: Final = ("prometheus", "sql", "files", "mlflow")


def source_kind_of(value: Any) -> str:
    """Return the kind of a source as written; `custom` for every class of the user."""
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return str(kind) if kind in SOURCE_KINDS else "custom"


SourceSettings = Annotated[
    Annotated[PrometheusSettings, Tag("prometheus")]
    | Annotated[SqlSettings, Tag("sql")]
    | Annotated[FilesSettings, Tag("files")]
    | Annotated[MlflowSettings, Tag("mlflow")]
    | Annotated[CustomSourceSettings, Tag("custom")],
    Discriminator(source_kind_of),
]
SOURCE_TAGS: Final = frozenset({*SOURCE_KINDS, "custom"})

__all__ = [
    "SOURCE_KINDS",
    "SOURCE_TAGS",
    "Columns",
    "CustomSourceSettings",
    "FilesSettings",
    "MlflowSettings",
    "PrometheusSettings",
    "SourceSettings",
    "SqlSettings",
]

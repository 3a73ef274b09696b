"""What the configuration says of sources: where metrics already are, and how they are read from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag

from actors.checks import shown
from actors.config.fields import Count, Name, PositiveSeconds, Seconds, Section
from actors.config.handlers import checked_url
from actors.config.values import expand


def _absolute(value: str) -> str:
    if not (value.startswith(("/", "${")) or "://" in value):
        raise ValueError(f"must be an absolute path or a URL, because an actor reads it, got {shown(value)}")
    return value


_HttpUrl = Annotated[str, AfterValidator(checked_url)]


class _Source(Section):
    """What every source has."""

    every_s: PositiveSeconds = Field(default=60.0, alias="every")
    """How often it is asked."""
    max_models: Count = 100
    """Rows of further models are refused: most likely a column or a label is the wrong one."""

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded."""
        return self.model_copy(update={name: expand(getattr(self, name), environment) for name in type(self).model_fields})


class Columns(Section):
    """Which column of a row holds what."""

    model: Name = "model"
    """The model's name."""
    version: Name = "version"
    """The version; a source without this column is of version `unversioned`."""
    time: Name = "time"
    """The event's own time: seconds since the epoch, or a date with a time zone (without one it is UTC)."""
    n: Name = "n"
    """The number of predictions behind the row."""


class _Table(_Source):
    """What a source of rows has."""

    model: Name | None = None
    """The model of all rows, where no column says it."""
    columns: Columns = Field(default_factory=Columns)
    """The names of the columns that are no metrics."""
    metrics: dict[Name, Name] = Field(default_factory=dict)
    """Columns that are metrics, each with the name of the metric. Unless given: every other column that holds a number."""


class PrometheusSettings(_Source):
    """A PromQL query, asked for every step since the last answer."""

    kind: Literal["prometheus"]
    url: _HttpUrl
    """Where Prometheus is, without `/api/v1`."""
    query: Annotated[str, Field(min_length=1)]
    """An instant vector; each of its series is a model and a version by its labels."""
    metric: Name = "accuracy"
    """What its values are."""
    n: str | None = None
    """A second query, by the same labels: the number of predictions behind each value."""
    model: Name | None = None
    """The model of all series, where no label says it."""
    model_label: Name = "model"
    """The label that names the model."""
    version_label: Name = "version"
    """The label that names the version; a series without it is of version `unversioned`."""
    step_s: PositiveSeconds = Field(default=60.0, alias="step")
    """The time between two values."""
    delay_s: Seconds = Field(default=0.0, alias="delay")
    """How long a value may still change: the newest values are read so much later."""
    backfill_s: Seconds = Field(default=0.0, alias="backfill")
    """How far back the first query reaches."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, say `Authorization: Bearer ${TOKEN}`."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""


class SqlSettings(_Table):
    """A query of a database, read on by a column that only grows."""

    kind: Literal["sql"]
    url: Annotated[str, Field(min_length=1)]
    """Of SQLAlchemy; put the password into the environment: `postgresql+psycopg://reader:${PASSWORD}@host/db`."""
    query: Annotated[str, Field(min_length=1)]
    """A SELECT, without ORDER BY and LIMIT."""
    watermark: Name
    """A column of it that never goes back, say a serial number or the time of insertion. Ties are handled."""


class FilesSettings(_Table):
    """Files that arrive in a folder and may grow: JSONL, CSV or Parquet."""

    kind: Literal["files"]
    path: Annotated[str, AfterValidator(_absolute)]
    """A folder or a pattern like `/data/*.jsonl`; also a URL that fsspec knows, like `s3://bucket/metrics/*.csv`."""
    format: Literal["jsonl", "csv", "parquet"] | None = None
    """`null`: by the end of the file's name; others are left alone."""


class MlflowSettings(_Source):
    """The metrics of the runs of experiments, by MLflow's REST API."""

    kind: Literal["mlflow"]
    url: _HttpUrl
    """Where the tracking server is."""
    experiments: Annotated[list[Name], Field(min_length=1)]
    """The names of the experiments."""
    model: Name | None = None
    """The model of all runs. `null`: the tag `model` of a run, else the name of its experiment."""
    version: Literal["run_id", "run_name", "registered"] = "run_id"
    """What a version is. `registered`: the version under which the run's model is registered, else the run's id."""
    metrics: dict[Name, Name] = Field(default_factory=dict)
    """The runs' metrics that are read, each with its name here. Unless given: all, under their own names."""
    promise: Name | None = None
    """A metric of the runs that is recorded, at the end of a run, as the hold-out promise of the version's accuracy."""
    promise_n: Name = "n"
    """The metric or parameter of the run that holds the number of rows behind the promise."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, say `Authorization: Bearer ${TOKEN}`."""
    timeout_s: PositiveSeconds = Field(default=30.0, alias="timeout")
    """How long to wait for an answer."""


class CustomSourceSettings(_Source):
    """A source of the user's own: `module:Class`, or the name that a package gives it under `visutility.sources`."""

    kind: Annotated[str, Field(min_length=1)]
    """The class."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its keyword arguments."""


SOURCE_KINDS: Final = ("prometheus", "sql", "files", "mlflow")


def source_kind_of(value: Any) -> str:
    """Return the kind that a source is written with; `custom` for every class of others."""
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

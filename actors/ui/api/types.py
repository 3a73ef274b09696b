"""What the API takes and answers, apart from the records of `actors.replies`: checked, and written in its document, by these.

Requests are pydantic models, which refuse what they do not know; answers are TypedDicts, as everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from actors.replies import ActorStatus, Json, ModelStatus, NumberedHappening, SilenceRow
from actors.storage.sources import SourceShown

# As the rules of names have it: no control, format or surrogate character; of a model none of `* ? [` either.
_PLAIN: Final = r"^[\u0020-\u007e]*$"
_TEXT: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"

Name = Annotated[str, Field(min_length=1, max_length=200)]
Comment = Annotated[str, Field(min_length=1, max_length=1000, pattern=_TEXT)]
Person = Annotated[str, Field(min_length=1, max_length=200, pattern=_TEXT)]
Limit = Annotated[int, Field(ge=1, le=1000)]


def _no_text(value: object) -> object:
    """Refuse what pydantic would read as a number; 3.0 is a whole one, as JSON has it."""
    if isinstance(value, (str, bytes, bool)):
        raise ValueError("must be a whole number")
    return value


class Request(BaseModel):
    """The arguments of a request; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- queries


class FleetQuery(Request):
    """Which models, in which order."""

    text: Annotated[str, Field(max_length=200, description="A part of the model's name.")] = ""
    state: Annotated[str, Field(max_length=40, description="drifting, error, warning, no_data, learning or stable.")] = ""
    label: Annotated[str, Field(max_length=1000, description="A selector like `team=risk,tier!=2`.")] = ""
    sort: Literal["state", "model", "events", "last", "lost", "episodes", "version"] = "state"
    order: Literal["up", "down"] = "up"
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class EpisodesQuery(Request):
    """Which episodes, the newest first."""

    model: Name | None = None
    limit: Limit = 100


class OrdersQuery(EpisodesQuery):
    """Which orders, the newest first."""

    state: Literal["pending", "running", "done", "failed", "dead", "expired", "skipped", "dry_run"] | None = None


class HappeningsQuery(Request):
    """Where to go on."""

    after: Annotated[str, Field(max_length=10_000, description="The `cursor` of the answer before; empty: the beginning.")] = ""
    limit: Limit = 100


class SeriesQuery(Request):
    """How far back."""

    batches: Annotated[int, Field(ge=1, le=2000, description="The newest batches of the log.")] = 500


class TrialsQuery(Request):
    """How many trials."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 2000


class SequenceQuery(Request):
    """Whose sequence."""

    producer: Name
    model: Name


# --- acts


class _Signed(Request):
    """Who does it: the name that a proxy or a sign-in gives goes before `by`."""

    by: Person | None = None
    comment: Comment | None = None


class EpisodeAct(_Signed):
    """An act on an episode."""

    episode: Name


class VerdictAct(EpisodeAct):
    """Whether the alarm was a true or a false one."""

    verdict: Literal["true", "false"]


class SilenceAct(_Signed):
    """Hold back the orders of a model, or of a pattern like `fraud-*`, for a time like 30m, 2h or 7d."""

    model: Name
    duration: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}(s|m|h|d)$")]
    label: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class UnsilenceAct(_Signed):
    """End a silence."""

    silence: Name


class ModelAct(_Signed):
    """An act on a model."""

    model: Name


class VersionAct(ModelAct):
    """An act on a version of a model."""

    version: Name


class OrderAct(_Signed):
    """An act on an order."""

    order: Name


class StudyAct(_Signed):
    """An act on a study."""

    study: Name


# --- events


class Event(TypedDict):
    """One event, as `broadcast` takes it; one number at least among the metrics and extras."""

    model_name: str
    model_version: NotRequired[str]
    timestamp: NotRequired[float | None]
    accuracy: NotRequired[float | None]
    precision: NotRequired[float | None]
    recall: NotRequired[float | None]
    n: NotRequired[float | None]
    extras: NotRequired[dict[str, Any] | None]


class Events(Request):
    """Events, and what makes sending them again safe: the producer's id and the number of the first event.

    Each event is checked by itself, and a bad one is rejected alone.
    """

    events: Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"$ref": "#/components/schemas/Event"}})]
    producer: Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)] | None = None
    sequence: Annotated[int, Field(ge=0, lt=2**62), BeforeValidator(_no_text)] | None = None


# --- answers


class StatusShown(TypedDict):
    """The system without its models: how many are in each state, and everything else that `status` says."""

    store: str
    read_only: bool
    models: int
    states: dict[str, int]
    retrains: dict[str, int]
    tuner: dict[str, int]
    sources: dict[str, SourceShown]
    clients: dict[str, Json]
    refused: Json
    actors: dict[str, ActorStatus]
    store_problem: NotRequired[str]


class ModelRow(TypedDict):
    """What the fleet says of one model."""

    model: str
    state: str
    events: int
    late: int
    rejected: int
    last_at: float
    version: str
    lost: float | None
    price: float | None
    open_episodes: list[str]
    metric: str
    recent: float | None
    baseline: float | None
    flagged: bool
    gave_up: int
    labels: dict[str, str]


class ModelPage(TypedDict):
    """One page of the models that match; `states` counts all that match apart from their state."""

    models: list[ModelRow]
    total: int
    page: int
    pages: int
    states: dict[str, int]


class OriginShown(TypedDict):
    """One value of a model's configuration, and the entry that it comes from."""

    setting: str
    value: str
    entry: str


class ModelShown(TypedDict):
    """One model: its status, the silences that cover it, and its configuration."""

    model: str
    labels: dict[str, str]
    status: ModelStatus
    silences: list[SilenceRow]
    configuration: list[OriginShown]


class HappeningPage(TypedDict):
    """The rows after a cursor, in order of writing; `cursor` is the next position."""

    happenings: list[NumberedHappening]
    cursor: str


class SequenceShown(TypedDict):
    """The number that the producer's next event of the model has."""

    high_water: int


class ActDone(TypedDict):
    """What was done as a sentence, and what came back of it."""

    text: str
    result: Json

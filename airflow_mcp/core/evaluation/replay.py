"""The request and the result of a replay of logged requests, as the two planes exchange them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRoles
from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.diagnostics import Count, Histogram
from airflow_mcp.core.evaluation.evidence import ModelType, ModelUnderTest

REPLAY_SCHEMA: Literal["airflow_mcp/replay/1"] = "airflow_mcp/replay/1"
MAX_EXAMPLES = 100
MAX_LAST = 10_000_000


class ReplayRequest(Document):
    """The request of the step ``replay``."""

    identity: str
    run_id: str
    """MLflow run of the candidate, which the result is logged to."""
    candidate: ModelUnderTest
    champion: ModelUnderTest
    source: Annotated[str, Field(min_length=1)]
    """File, folder or glob with logged requests in Parquet or JSON Lines; a path or an fsspec URL."""
    model_type: ModelType
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] = 10_000
    """Number of newest requests to replay."""
    log: Literal["", "serving"] = ""
    """``serving``: the source is the prediction log of the model server, which names its columns by itself."""
    roles: LogRoles = CHAMPION_ROLES
    """Roles whose rows of such a log are replayed."""
    timestamp_column: str = ""
    """Column with the time of each request; empty orders by file name and row."""
    request_id_column: str = ""
    """Column with the id of each request, for the examples; empty uses its number."""
    prediction_column: str = ""
    """Column with the answer in production; empty does not compare with it."""
    value_column: str = ""
    """Column with the value of each request, for example an amount of money; empty does not sum values."""
    segments: tuple[str, ...] = ()
    """Columns by whose values the counts are repeated."""
    positive_label: str | int | float | bool | None = None
    """The class of two whose probability is compared; None takes the greater one."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Of a regression: a change up to this, in units of the prediction, is not a flip."""
    relative_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Of a regression: a change up to this share of the champion's prediction is not a flip."""
    examples: Annotated[int, Field(ge=0, le=MAX_EXAMPLES)] = 20

    @model_validator(mode="after")
    def _say_what_a_flip_is(self) -> Self:
        tolerates = bool(self.tolerance or self.relative_tolerance)
        if tolerates is not (self.model_type == "regressor"):
            raise ValueError("a regressor needs tolerance or relative_tolerance, a classifier takes neither")
        return self


class Reason(Document):
    """A reason why a model gave no answer, and the number of requests."""

    reason: str
    requests: Count


class ModelTroubles(Document):
    """Requests that one model did not answer."""

    unfit: Count = 0
    """Requests that do not fit the signature."""
    failed: Count = 0
    """Requests on which the model failed or returned no finite value."""
    reasons: tuple[Reason, ...] = ()
    """Most frequent reasons."""


class Transition(Document):
    """Requests whose class changes from one class to another."""

    champion: str
    candidate: str
    requests: Count
    value: float | None = None
    """Sum of the values of the requests; None without a value column."""


class Deltas(Document):
    """Differences, candidate minus champion, of predictions or of the probability of one class."""

    of: Literal["prediction", "probability"]
    mean: float
    total: float
    mean_absolute: float
    p95_absolute: float
    """95th percentile of the absolute differences."""
    histogram: Histogram


class ReplaySegment(Document):
    """Requests in which ``column`` has ``value``."""

    column: str
    value: str
    compared: Count
    flips: Count
    candidate_only_missing: Count = 0
    """Requests that the champion answers and the candidate does not."""
    value_flipped: float | None = None

    @property
    def judged(self) -> int:
        """Usable requests, counted as for the whole replay."""
        return self.compared + self.candidate_only_missing

    @property
    def changed(self) -> int:
        """Requests that would be answered differently, or no longer."""
        return self.flips + self.candidate_only_missing


class Recorded(Document):
    """The answers in production compared with the answers of the champion now."""

    requests: Count
    different: Count


class ValueAtStake(Document):
    """Sums of request values."""

    compared: float
    flipped: float
    missing: Count = 0
    """Compared requests without a usable value."""


class FlipExample(Document):
    """One request that flips, without its inputs."""

    request: str
    timestamp: str = ""
    champion: str
    candidate: str
    delta: float | None = None


class ReplayEvidence(Document):
    """Result of a replay, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_REPLAY`."""

    schema_: Literal["airflow_mcp/replay/1"] = Field(default=REPLAY_SCHEMA, alias="schema")
    identity: str
    run_id: str
    candidate: ModelUnderTest
    champion: ModelUnderTest
    model_type: ModelType
    source: str
    """Location of the log, without credentials."""
    files: Count
    available: Count
    """Requests in the log."""
    requests: Count
    """Number of requests replayed: the newest ones."""
    first: str = ""
    """Time of the oldest replayed request; empty without a timestamp column."""
    last: str = ""
    undated: Count = 0
    """Requests of the log without a readable time, including unreadable lines: they may be among the newest."""
    unreadable: Count = 0
    """Replayed lines that are not JSON objects; with a timestamp column such lines count as undated."""
    compared: Count
    """Requests that both models answered."""
    flips: Count
    """Compared requests with another class, or with a number that changed by more than the tolerance."""
    candidate_only_missing: Count
    """Requests that the champion answers and the candidate does not."""
    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    candidate_troubles: ModelTroubles
    champion_troubles: ModelTroubles
    transitions: tuple[Transition, ...] = ()
    """Most frequent changes of class."""
    deltas: Deltas | None
    """None when a model returns no probabilities, or nothing was compared."""
    segments: tuple[ReplaySegment, ...] = ()
    recorded: Recorded | None = None
    value: ValueAtStake | None = None
    examples: tuple[FlipExample, ...] = ()
    created_at: str
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lose_nothing(self) -> Self:
        if self.flips > self.compared or self.judged + self.unreadable > self.requests:
            raise ValueError("flips, compared and requests do not fit together")
        return self

    @property
    def judged(self) -> int:
        """Usable requests: both models answered, or only the champion."""
        return self.compared + self.candidate_only_missing

    @property
    def changed(self) -> int:
        """Requests that would be answered differently, or no longer."""
        return self.flips + self.candidate_only_missing

    @property
    def left_out(self) -> int:
        """Unusable requests: unreadable, undated, or not answered by the champion."""
        return self.requests - self.judged + self.undated

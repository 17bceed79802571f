"""Replays of logged requests: the JSON request and result, as the two planes exchange them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.diagnostics import Count, Histogram
from airflow_mcp.core.evaluation.evidence import ModelUnderTest, Problem

REPLAY_SCHEMA: Literal["airflow_mcp/replay/1"] = "airflow_mcp/replay/1"
MAX_EXAMPLES = 100
MAX_LAST = 10_000_000


class ReplayRequest(Document):
    """What ``python -m airflow_mcp.work replay`` is asked to do."""

    identity: str
    run_id: str
    """Candidate's MLflow run: everything is logged there."""
    candidate: ModelUnderTest
    champion: ModelUnderTest
    source: Annotated[str, Field(min_length=1)]
    """File, folder or glob of logged requests, Parquet or JSON Lines; a path or a URL of fsspec."""
    problem: Problem
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] = 10_000
    """How many of the newest requests are replayed."""
    timestamp_column: str = ""
    """Time of each request; empty: files by name and rows as they stand are the order."""
    request_id_column: str = ""
    """Name of each request, for the examples; empty: its number."""
    prediction_column: str = ""
    """What production answered; empty: not compared."""
    value_column: str = ""
    """What each request is worth, for example an amount of money; empty: not summed."""
    segments: tuple[str, ...] = ()
    """Columns by whose values everything is counted again."""
    positive_label: str | int | float | bool | None = None
    """Of two classes, the one whose probability is compared; None means the greater one."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Of a regression: a change up to this, in units of the prediction, is no flip."""
    relative_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Of a regression: a change up to this share of the champion's prediction is no flip."""
    examples: Annotated[int, Field(ge=0, le=MAX_EXAMPLES)] = 20

    @model_validator(mode="after")
    def _say_what_a_flip_is(self) -> Self:
        tolerates = bool(self.tolerance or self.relative_tolerance)
        if tolerates is not (self.problem == "regression"):
            raise ValueError("a regression needs tolerance or relative_tolerance, a classification takes neither")
        return self


class Reason(Document):
    """Why a model gave no answer, and to how many requests."""

    reason: str
    requests: Count


class ModelTroubles(Document):
    """Requests that one model did not answer."""

    unfit: Count = 0
    """They do not fit its signature."""
    failed: Count = 0
    """It broke on them, or gave no finite value."""
    reasons: tuple[Reason, ...] = ()
    """The most frequent ones."""


class Transition(Document):
    """Requests whose class changes from one to another."""

    champion: str
    candidate: str
    requests: Count
    value: float | None = None
    """Sum of their values; None without a value column."""


class Deltas(Document):
    """Candidate minus champion: of predictions, or of the probability of one class."""

    of: Literal["prediction", "probability"]
    mean: float
    total: float
    mean_absolute: float
    p95_absolute: float
    """95th percentile of the absolute value."""
    histogram: Histogram


class ReplaySegment(Document):
    """Requests where ``column`` has ``value``."""

    column: str
    value: str
    compared: Count
    flips: Count
    candidate_only_missing: Count = 0
    """Requests that the champion answers and the candidate does not."""
    value_flipped: float | None = None

    @property
    def judged(self) -> int:
        """Requests that say something, as those of the whole replay do."""
        return self.compared + self.candidate_only_missing

    @property
    def changed(self) -> int:
        """Requests that would be answered differently, or no longer."""
        return self.flips + self.candidate_only_missing


class Recorded(Document):
    """What production answered then, next to what the champion answers now."""

    requests: Count
    different: Count


class ValueAtStake(Document):
    """Values of requests, summed."""

    compared: float
    flipped: float
    missing: Count = 0
    """Compared requests without a usable value."""


class FlipExample(Document):
    """One request that flips; its inputs stay in the log."""

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
    problem: Problem
    source: str
    """Without credentials."""
    files: Count
    available: Count
    """Requests in the log."""
    requests: Count
    """Requests taken: the newest ones."""
    first: str = ""
    """Time of the oldest one taken; empty without a timestamp column."""
    last: str = ""
    undated: Count = 0
    """Requests of the log without a readable time, lines that are not readable at all among them: nobody knows whether
    they are among the newest."""
    unreadable: Count = 0
    """Lines among those taken that are not JSON objects; with a timestamp column such lines are undated."""
    compared: Count
    """Requests that both models answered."""
    flips: Count
    """Of those compared: another class, or a number that changed by more than the tolerance."""
    candidate_only_missing: Count
    """Requests that the champion answers and the candidate does not."""
    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    candidate_troubles: ModelTroubles
    champion_troubles: ModelTroubles
    transitions: tuple[Transition, ...] = ()
    """The most frequent changes of class."""
    deltas: Deltas | None
    """None when a model gives no probabilities, or nothing was compared."""
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
        """Requests that say something: both answered, or the champion only."""
        return self.compared + self.candidate_only_missing

    @property
    def changed(self) -> int:
        """Requests that would be answered differently, or no longer."""
        return self.flips + self.candidate_only_missing

    @property
    def left_out(self) -> int:
        """Requests that say nothing: unreadable, undated, or not answered by the champion either."""
        return self.requests - self.judged + self.undated

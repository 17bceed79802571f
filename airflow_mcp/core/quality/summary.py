"""The request and the summary of a quality check, as the two planes exchange them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from airflow_mcp.core.argument import problems_of
from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRoles
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import CheckRequest, Document
from airflow_mcp.core.evaluation.evidence import METRICS, MetricInterval, ModelType
from airflow_mcp.core.quality.policy import QualityPolicy
from airflow_mcp.exceptions import InvalidArgumentError

QUALITY_SCHEMA: Literal["airflow_mcp/quality/1"] = "airflow_mcp/quality/1"
QualityVerdict = Literal["degraded", "not_degraded", "inconclusive"]
LimitVerdict = Literal["kept", "broken", "unknown"]
ProbabilityOf = Literal["", "positive", "predicted"]
"""What the column ``probability`` of the log holds: the probability of the positive or of the predicted class; empty
when that is not known, and the column is then not used."""
Count = Annotated[int, Field(ge=0)]


class Baseline(Document):
    """What the evaluation of the champion measured."""

    version: str
    metrics: dict[str, float] = Field(default_factory=dict)
    calibration_error: float | None = None
    """Expected calibration error of the probability of the positive class; None when it was not measured."""
    profile: str = ""
    """Stored profile of the training data: ``runs:/<run id>/<artifact>``; empty when there is none."""


class QualityRequest(CheckRequest):
    """The request of the step ``quality``."""

    model_name: str = ""
    requests: Annotated[str, Field(min_length=1)]
    """Prediction log of the model server: file, folder, glob or URL."""
    roles: LogRoles = CHAMPION_ROLES
    labels: Annotated[tuple[DatasetPin, ...], Field(min_length=1)]
    """Tables of labels, read as one."""
    keys: tuple[str, ...] = ()
    """Columns that name the entity in both tables; empty joins by the request ID."""
    label_column: Annotated[str, Field(min_length=1)] = "label"
    label_time_column: str = ""
    """Column of the labels with the time at which each became known; empty when there is none."""
    model_type: ModelType
    positive_label: str | int | float | bool | None = None
    probability: ProbabilityOf = ""
    segments: tuple[str, ...] = ()
    """Columns of the log; metrics are repeated, and labels checked for bias, for each of their values."""
    as_of: AwareDatetime
    """Time of the check. Labels that became known later are left out."""
    policy: QualityPolicy
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keys and not self.label_time_column:
            raise ValueError("keys need label_time_column: a label of an entity belongs to the predictions before it")
        known = METRICS[self.model_type]
        wrong = [limit.metric for limit in self.policy.limits if limit.metric not in known]
        if wrong:
            raise ValueError(f"limits must name metrics of {', '.join(known)}; got {', '.join(wrong)}")
        return self


class LimitResult(Document):
    """One limit in one window."""

    metric: str
    needs_at_least: bool
    """Whether the metric must be at least the bound; otherwise at most."""
    bound: float | None
    value: float | None
    low: float | None = None
    high: float | None = None
    """Interval of the value."""
    verdict: LimitVerdict
    note: str = ""


class LabelGroup(Document):
    """How many predictions of one group have a label."""

    value: str
    rows: Count
    labelled: Count


class LabelGroups(Document):
    """Whether labels arrive for some predictions more than for others."""

    column: str
    """``prediction``, or the segment column."""
    groups: tuple[LabelGroup, ...]
    p_value: float | None
    """Of the chi-squared test that the labelled share is the same in every group; None when it cannot be tested."""
    gap: float
    """Largest difference between the labelled share of a group and that of the window."""
    worst: str = ""
    """The group with that difference."""
    is_biased: bool = False


class QualitySlice(Document):
    """Metrics of the labelled predictions where a segment column has one value."""

    column: str
    value: str
    rows: Count
    metrics: dict[str, float]
    intervals: dict[str, MetricInterval] = Field(default_factory=dict)


class QualityWindow(Document):
    """One window of prediction time."""

    name: str
    """The same in every check of this window."""
    start: AwareDatetime
    end: AwareDatetime
    is_due: bool
    """Whether the label delay has passed; a window that still waits has no verdict."""
    verdict: QualityVerdict | None
    reason: str
    rows: Count
    """Logged predictions."""
    labelled: Count
    versions: dict[str, Count] = Field(default_factory=dict)
    """Predictions by the version that answered."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Measured on the labelled predictions."""
    undefined: dict[str, str] = Field(default_factory=dict)
    intervals: dict[str, MetricInterval] = Field(default_factory=dict)
    limits: tuple[LimitResult, ...] = ()
    label_groups: tuple[LabelGroups, ...] = ()
    slices: tuple[QualitySlice, ...] = ()
    estimated: dict[str, float] = Field(default_factory=dict)
    """ESTIMATED from the probabilities of all predictions, without labels; never part of the verdict."""
    outlier_rows: Count | None = None
    """Rows with a value outside of the training data's ranges and categories; None without a profile."""

    @property
    def labelled_share(self) -> float:
        """Share of the predictions that have a label; 0 without predictions."""
        return self.labelled / self.rows if self.rows else 0.0

    def is_mostly_of(self, version: str) -> bool:
        """Return whether a version has made more than half of the predictions.

        :param version: number of the version.
        """
        return self.versions.get(version, 0) * 2 > self.rows


class QualityVerdictGiven(Document):
    """What a quality check passes on about one judged window, to a decision about retraining."""

    name: Annotated[str, Field(min_length=1)]
    verdict: QualityVerdict
    end: AwareDatetime


class JoinCounts(Document):
    """What was read, and what could not be used."""

    predictions: Count
    """Rows of the log in all windows, each request and row once."""
    repeated: Count = 0
    """Further rows with the same request ID and row number; the last one counts."""
    labels: Count = 0
    """Rows of the labels."""
    empty: Count = 0
    """Labels without a value or a key."""
    later: Count = 0
    """Labels that became known after the time of the check, or at an unreadable time."""
    conflicting: Count = 0
    """Keys with different labels and no time that says which is newer; they count as not labelled."""
    ambiguous: Count = 0
    """Predictions of requests with several rows, while the labels do not say which row they are about."""


class TrafficWindow(Document):
    """Requests that arrived within one short window."""

    start: AwareDatetime
    end: AwareDatetime
    requests: Count
    failed: Count
    p50: float | None
    """Seconds, as the upper edge of the counted class; None beyond the last edge."""
    p95: float | None
    p99: float | None
    exceeded: bool = False


class Traffic(Document):
    """Latency and errors of all logged requests of the check's windows."""

    requests: Count
    failed: Count
    windows: Count
    """Short windows with requests."""
    exceeded: Count
    refused: Count = 0
    """Requests that were answered with a status of 4xx; they are in none of the windows."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Failed and refused requests by the code of the error, the most frequent first."""
    worst: tuple[TrafficWindow, ...] = ()
    """The worst of them: exceeded first, then by share of errors and by latency."""
    note: str = ""


class EstimateBasis(Document):
    """Whether quality may be estimated without labels, and why."""

    is_allowed: bool
    reason: str


class QualitySummary(Document):
    """Result of a quality check, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_QUALITY_SUMMARY`."""

    schema_: Literal["airflow_mcp/quality/1"] = Field(default=QUALITY_SCHEMA, alias="schema")
    identity: str
    run_id: str
    model_name: str = ""
    model_type: ModelType
    verdict: QualityVerdict
    """That of the newest window whose label delay has passed."""
    reason: str
    as_of: AwareDatetime
    policy: QualityPolicy
    requests: str
    """The log, without credentials."""
    labels: tuple[DatasetPin, ...]
    baseline: Baseline | None
    windows: tuple[QualityWindow, ...]
    """Oldest first."""
    join: JoinCounts
    traffic: Traffic
    estimate: EstimateBasis
    created_at: str
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)

    @property
    def judged(self) -> tuple[QualityWindow, ...]:
        """The windows whose label delay has passed, oldest first."""
        return tuple(window for window in self.windows if window.is_due)


def read_quality_request(policy: QualityPolicy | Mapping[str, Any], **fields: Any) -> QualityRequest:
    """Return the request of a check.

    :param policy: the policy, or a mapping of its fields.
    :param fields: the other fields of the request.
    :raises InvalidArgumentError: when a field is wrong; every problem is listed.
    """
    try:
        read = policy if isinstance(policy, QualityPolicy) else QualityPolicy(**policy)
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, "the quality policy", QualityPolicy)) from None
    try:
        return QualityRequest(policy=read, **fields)
    except ValidationError as error:
        problems = problems_of(error, "arguments", QualityRequest, then="Nothing was judged")
        raise InvalidArgumentError(problems) from None


def describe(summary: QualitySummary) -> Iterator[str]:
    """Describe a check as text: the verdict, every window, then requests and the estimate.

    :return: the lines.
    """
    yield f"{summary.verdict}: {summary.reason}"
    for window in summary.windows:
        counts = f"{window.labelled} of {window.rows} labelled"
        yield f"  {window.start:%Y-%m-%d %H:%M} {window.verdict or 'waits':<12} {counts}: {window.reason}"
    traffic = summary.traffic
    yield f"{traffic.requests} requests, {traffic.failed} failed; {traffic.exceeded} short windows exceed a limit"
    if not summary.estimate.is_allowed:
        yield f"quality was not estimated without labels: {summary.estimate.reason}"
    elif summary.judged[-1].estimated:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in summary.judged[-1].estimated.items())
        yield f"estimated without labels, not measured: {numbers}"

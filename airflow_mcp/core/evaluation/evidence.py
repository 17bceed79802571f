"""The request and the result of an evaluation, as the two planes exchange them.

Requests travel as a file (:data:`~airflow_mcp.core.contract.ENV_REQUEST_PATH`), results as artifacts of an MLflow
run. Both are read strictly: an unknown key or a wrong type is refused, with every problem listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.diagnostics import Calibration, ConfusionMatrix, Histogram, LatencyEvidence

EvidenceSchema = Literal[
    "airflow_mcp/evaluation/1", "airflow_mcp/evaluation/2", "airflow_mcp/evaluation/3", "airflow_mcp/evaluation/4"
]
EVIDENCE_SCHEMA: EvidenceSchema = "airflow_mcp/evaluation/4"
"""The version that is written. All versions can be read: 1 had no self-reported evidence, 2 no comparisons and no
intervals of slices, 3 no intervals of whole models and no diagnostics."""

ModelType = Literal["classifier", "regressor"]
ComparisonMethod = Literal["bootstrap", "mcnemar", "delong"]
MethodChoice = Literal["auto", "bootstrap", "mcnemar", "delong"]
METRICS: Mapping[ModelType, tuple[str, ...]] = {
    "classifier": ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss"),
    "regressor": ("mae", "rmse", "r2"),
}
"""Metrics that an evaluation measures, besides latency."""
Confidence = Annotated[float, Field(gt=0, lt=1)]
SLICE_CONFIDENCE = 0.95
"""Confidence of the intervals in the evidence; a gate computes other ones from the standard errors."""


class ModelUnderTest(Document):
    """The candidate or the champion."""

    model_uri: str
    """``models:/<model id>``, ``models:/<name>/<version>`` or ``runs:/<run id>/<path>``."""
    run_id: str = ""
    version: str = ""
    """Version in the registry; empty for a candidate that is not registered."""


class ComparisonRequest(Document):
    """A comparison of candidate and champion by one metric on the same rows."""

    metric: Annotated[str, Field(min_length=1)]
    method: MethodChoice = "auto"
    """``auto``: McNemar for accuracy, DeLong for ROC AUC of two classes, otherwise the bootstrap."""
    confidence: Confidence = 0.95
    """Confidence level of the interval, two-sided."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Number of bootstrap samples."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the bootstrap; the same seed gives the same interval."""

    @model_validator(mode="after")
    def _fit_method(self) -> Self:
        only = {"mcnemar": "accuracy", "delong": "roc_auc"}.get(self.method, self.metric)
        if self.metric != only:
            raise ValueError(f"method {self.method} compares {only}, not {self.metric}")
        return self


class EvaluationRequest(Document):
    """The request of the step ``evaluate``."""

    identity: str
    run_id: str
    """MLflow run of the candidate, which the result is logged to."""
    candidate: ModelUnderTest
    champion: ModelUnderTest | None
    """The model to compare with; None when the alias was not set at the start of the step."""
    dataset: DatasetPin | None = None
    """None measures latency only; the metrics are those that the training script logged."""
    target: str = ""
    """Name of the label column; needed with a dataset."""
    model_type: ModelType | None = None
    """Needed with a dataset."""
    positive_label: str | int | float | bool | None = None
    """The positive class; None takes the greater of two classes."""
    slices: tuple[str, ...] = ()
    """Columns by whose values the metrics are repeated."""
    comparisons: tuple[ComparisonRequest, ...] = ()
    """Ignored when there is no champion."""
    latency_calls: Annotated[int, Field(ge=1)] = 200
    latency_warmup: Annotated[int, Field(ge=0)] = 20
    importance_rows: Annotated[int, Field(ge=0)] = 0
    """Rows used to measure the feature importance of the candidate; 0 does not measure it."""

    @model_validator(mode="after")
    def _say_what_to_measure(self) -> Self:
        if self.dataset is not None and not (self.target and self.model_type):
            raise ValueError("a dataset needs target and model_type")
        needing = (self.target, self.model_type, self.slices, self.comparisons, self.importance_rows)
        if self.dataset is None and any(needing):
            raise ValueError("target, model_type, slices, comparisons and importance_rows need a dataset")
        known = METRICS[self.model_type] if self.model_type else ()
        wrong = [asked.metric for asked in self.comparisons if asked.metric not in known]
        if wrong:
            raise ValueError(f"comparisons must name metrics of {', '.join(known)}; got {', '.join(wrong)}")
        return self


class MetricInterval(Document):
    """The interval of a metric on one slice or on all rows."""

    method: Literal["wilson", "bootstrap"]
    low: float
    high: float
    confidence: Confidence
    standard_error: float
    successes: int | None = None
    """Number of successes, for a metric that is a proportion; None for other metrics."""
    trials: int | None = None


class ModelEvidence(Document):
    """Measurements of one model on the pinned data."""

    model_uri: str
    run_id: str = ""
    version: str = ""
    metrics: dict[str, float]
    """Finite numbers only. Latency is in milliseconds; ``latency_ms`` is the 95th percentile."""
    undefined: dict[str, str] = Field(default_factory=dict)
    """Reasons by metric, for metrics that could not be computed."""
    intervals: dict[str, MetricInterval] = Field(default_factory=dict)
    """Intervals of the candidate's metrics on all rows; unknown ones are absent."""
    confusion: ConfusionMatrix | None = None
    """Classifiers only."""
    calibration: Calibration | None = None
    """Classifiers with probabilities only."""
    residuals: Histogram | None = None
    """Regressors only: label minus prediction, in units of the label."""
    latency: LatencyEvidence | None = None
    """None when latency was not measured."""


class MetricComparison(Document):
    """Candidate and champion compared by one metric on the same rows."""

    metric: str
    method: ComparisonMethod
    difference: float | None
    """Candidate minus champion. None, like the other numbers, when it could not be computed; see ``note``."""
    low: float | None
    """Lower end of the interval of the difference."""
    high: float | None
    confidence: Confidence
    p_value: float | None
    """Two-sided p-value of no difference; None for the bootstrap, which has an interval only."""
    standard_error: float | None
    rows: int
    resamples: int
    """0 for methods without resampling."""
    seed: int
    note: str = ""


class SliceEvidence(Document):
    """Measurements on the rows where ``column`` has ``value``."""

    column: str
    value: str
    rows: int
    candidate: dict[str, float]
    champion: dict[str, float] | None = None
    intervals: dict[str, MetricInterval] = Field(default_factory=dict)
    """Intervals of the candidate's metrics; unknown ones are absent."""


class EvaluationEvidence(Document):
    """The result of an evaluation, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_EVIDENCE`."""

    schema_: EvidenceSchema = Field(default=EVIDENCE_SCHEMA, alias="schema")
    identity: str
    run_id: str
    self_reported: bool = False
    """Whether the metrics are those that the training script logged and only latency was measured."""
    model_type: ModelType | None = None
    """None when self-reported."""
    target: str = ""
    dataset: DatasetPin | None = None
    """The data as used, with its hash. None when self-reported."""
    rows: Annotated[int, Field(ge=0)]
    """Number of rows; 0 when self-reported."""
    candidate: ModelEvidence
    champion: ModelEvidence | None
    """None without a champion; has no metrics when self-reported."""
    slices: tuple[SliceEvidence, ...] = ()
    comparisons: tuple[MetricComparison, ...] = ()
    """In the requested order; empty without a champion."""
    created_at: str
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries used."""

    @model_validator(mode="after")
    def _say_who_measured(self) -> Self:
        measured = self.dataset is not None and self.model_type is not None and self.rows > 0
        claimed = self.dataset is None and self.model_type is None and self.rows == 0
        if not (claimed if self.self_reported else measured):
            raise ValueError(
                "dataset, model_type and rows are needed, unless self_reported is true: then none is allowed"
            )
        if self.self_reported and self.champion and self.champion.metrics:
            raise ValueError("self-reported evidence cannot hold metrics of the champion")
        return self

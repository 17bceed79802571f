"""The JSON requests and results of the built-in steps, as the two planes exchange them.

Requests travel as a file (:data:`~airflow_mcp.core.contract.ENV_REQUEST_PATH`), results as artifacts of an MLflow
run. Both are strict: an unknown key or a wrong type is refused with every problem listed.
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
"""What is written; version 1 knew no self-reported evidence, version 2 no comparisons and intervals of slices,
version 3 no intervals of whole models and no diagnostics; all of them are read."""

Problem = Literal["classification", "regression"]
ComparisonMethod = Literal["bootstrap", "mcnemar", "delong"]
MethodChoice = Literal["auto", "bootstrap", "mcnemar", "delong"]
METRICS: Mapping[Problem, tuple[str, ...]] = {
    "classification": ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}
"""What an evaluation measures, besides latency."""
Confidence = Annotated[float, Field(gt=0, lt=1)]
SLICE_CONFIDENCE = 0.95
"""Confidence of the intervals of metrics in the evidence; a gate computes those it needs from their errors."""


class ModelUnderTest(Document):
    """The candidate or the champion."""

    model_uri: str
    """``models:/<model id>``, ``models:/<name>/<version>`` or ``runs:/<run id>/<path>``."""
    run_id: str = ""
    version: str = ""
    """Version in the registry; empty for a candidate that is not registered."""


class ComparisonRequest(Document):
    """One metric in which candidate and champion are compared on the same rows."""

    metric: Annotated[str, Field(min_length=1)]
    method: MethodChoice = "auto"
    """``auto``: McNemar for accuracy, DeLong for ROC AUC of two classes, otherwise the bootstrap."""
    confidence: Confidence = 0.95
    """Confidence level of the interval, two-sided."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """For the bootstrap: how many times the rows are drawn again."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the bootstrap: the same seed gives the same interval."""

    @model_validator(mode="after")
    def _fit_method(self) -> Self:
        only = {"mcnemar": "accuracy", "delong": "roc_auc"}.get(self.method, self.metric)
        if self.metric != only:
            raise ValueError(f"method {self.method} compares {only}, not {self.metric}")
        return self


class EvaluationRequest(Document):
    """What ``python -m airflow_mcp.work evaluate`` is asked to do."""

    identity: str
    run_id: str
    """Candidate's MLflow run: everything is logged there."""
    candidate: ModelUnderTest
    champion: ModelUnderTest | None
    """The model to compare with; None means that the alias was not set when the step started."""
    dataset: DatasetPin | None = None
    """None: nothing is measured but latency; the metrics are those that the training script logged."""
    target: str = ""
    """Name of the label column; needed with a dataset."""
    problem: Problem | None = None
    """Needed with a dataset."""
    positive_label: str | int | float | bool | None = None
    """Which class is the positive one; None means the greater of two classes."""
    slices: tuple[str, ...] = ()
    """Columns by whose values the metrics are repeated."""
    comparisons: tuple[ComparisonRequest, ...] = ()
    """Left out when there is no champion."""
    latency_calls: Annotated[int, Field(ge=1)] = 200
    latency_warmup: Annotated[int, Field(ge=0)] = 20
    importance_rows: Annotated[int, Field(ge=0)] = 0
    """Rows by which the importance of the candidate's features is measured; 0: it is not."""

    @model_validator(mode="after")
    def _say_what_to_measure(self) -> Self:
        if self.dataset is not None and not (self.target and self.problem):
            raise ValueError("target and problem are needed with a dataset")
        needing = (self.target, self.problem, self.slices, self.comparisons, self.importance_rows)
        if self.dataset is None and any(needing):
            raise ValueError("target, problem, slices, comparisons and importance_rows need a dataset")
        known = METRICS[self.problem] if self.problem else ()
        wrong = [asked.metric for asked in self.comparisons if asked.metric not in known]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be compared; allowed: {', '.join(known)}")
        return self


class MetricInterval(Document):
    """How sure a metric is, of one slice or of all rows."""

    method: Literal["wilson", "bootstrap"]
    low: float
    high: float
    confidence: Confidence
    standard_error: float
    successes: int | None = None
    """Of a proportion: how many of ``trials`` count; None for other metrics."""
    trials: int | None = None


class ModelEvidence(Document):
    """Measurements of one model on the pinned data."""

    model_uri: str
    run_id: str = ""
    version: str = ""
    metrics: dict[str, float]
    """Only finite numbers. Latency is in milliseconds (``latency_ms`` is the 95th percentile)."""
    undefined: dict[str, str] = Field(default_factory=dict)
    """Metrics that could not be computed, with the reason."""
    intervals: dict[str, MetricInterval] = Field(default_factory=dict)
    """Of the candidate's metrics on all rows; a metric whose interval is not known is absent."""
    confusion: ConfusionMatrix | None = None
    """Of a classifier."""
    calibration: Calibration | None = None
    """Of a classifier with probabilities."""
    residuals: Histogram | None = None
    """Of a regression: label minus prediction, in units of the label."""
    latency: LatencyEvidence | None = None
    """None when latency was not measured."""


class MetricComparison(Document):
    """Candidate against champion in one metric, measured on the same rows."""

    metric: str
    method: ComparisonMethod
    difference: float | None
    """Candidate minus champion; None, like the other numbers, when it could not be computed: see the note."""
    low: float | None
    """Lower end of the interval of the difference."""
    high: float | None
    confidence: Confidence
    p_value: float | None
    """Two-sided, of no difference; None for the bootstrap, which gives an interval only."""
    standard_error: float | None
    rows: int
    resamples: int
    """0 when the method draws none."""
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
    """Of the candidate's metrics; a metric whose interval is not known is absent."""


class EvaluationEvidence(Document):
    """Result of an evaluation, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_EVIDENCE`."""

    schema_: EvidenceSchema = Field(default=EVIDENCE_SCHEMA, alias="schema")
    identity: str
    run_id: str
    self_reported: bool = False
    """Whether the metrics are those that the training script logged, and only latency was measured."""
    problem: Problem | None = None
    """None when self-reported."""
    target: str = ""
    dataset: DatasetPin | None = None
    """As used: its hash is always set. None when self-reported."""
    rows: Annotated[int, Field(ge=0)]
    """Rows measured on; 0 when self-reported."""
    candidate: ModelEvidence
    champion: ModelEvidence | None
    """None when there was no champion; without metrics when self-reported."""
    slices: tuple[SliceEvidence, ...] = ()
    comparisons: tuple[MetricComparison, ...] = ()
    """In the order in which they were asked for; empty without a champion."""
    created_at: str
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of python and of the libraries that measured."""

    @model_validator(mode="after")
    def _say_who_measured(self) -> Self:
        measured = self.dataset is not None and self.problem is not None and self.rows > 0
        claimed = self.dataset is None and self.problem is None and self.rows == 0
        if not (claimed if self.self_reported else measured):
            raise ValueError("dataset, problem and rows are needed, unless self_reported is true: then none is allowed")
        if self.self_reported and self.champion and self.champion.metrics:
            raise ValueError("self-reported evidence cannot hold metrics of the champion")
        return self

"""The rules of the stage ``gate``, of every kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from airflow_mcp.core.evaluation.evidence import MethodChoice
from airflow_mcp.core.gate.rules.findings import Subject
from airflow_mcp.core.gate.rules.slices import Correction
from airflow_mcp.core.gate.rules.thresholds import parse_threshold
from airflow_mcp.core.pipeline.file.fields import (
    ConnectionId,
    Duration,
    ExpandableText,
    Flag,
    MetricName,
    Number,
    RelativePath,
    SpecModel,
    StageName,
    Text,
    Whole,
)

Mode = Literal["enforce", "warn", "dryRun"]
Share = Annotated[Number, Field(ge=0, le=1)]
Certainty = Annotated[Number, Field(gt=0, lt=1)]
Count = Annotated[Whole, Field(ge=0)]
Rows = Annotated[Whole, Field(ge=1)]
_MODE = "What happens when the rule fails: enforce, warn or dryRun."


def _threshold(text: str) -> str:
    rule = parse_threshold(text)
    return text if rule.metric in text else str(rule)


ThresholdText = Annotated[Text, AfterValidator(_threshold)]
"""A rule of the gate; its metric becomes the name in MLflow."""


def short_metric(value: Any) -> Any:
    """Expand a rule that is written as the name of a metric alone."""
    return {"metric": value} if isinstance(value, str) else value


def _short_path(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


class Significance(SpecModel):
    """An improvement over the champion that must be statistically significant."""

    metric: MetricName = Field(description="Metric; the evaluation compares it without being told to.")
    min_effect: Number = Field(
        0.0, description="Smallest improvement, in units of the metric and in its better direction."
    )
    confidence: Certainty = Field(0.95, description="Confidence of the interval, between 0 and 1.")
    min_rows: Rows = Field(100, description="With fewer rows the rule is inconclusive.")
    method: MethodChoice = Field("auto", description="How candidate and champion are compared.")
    mode: Mode = Field("enforce", description=_MODE)


class SliceRules(SpecModel):
    """What must hold in every slice and between slices."""

    floors: tuple[ThresholdText, ...] = Field(
        default=(), description="Thresholds that every slice must meet, with numbers only."
    )
    max_gap: dict[MetricName, Annotated[Number, Field(ge=0)]] = Field(
        default={}, description="Largest difference of a metric between two slices of a column, by metric."
    )
    by: tuple[Text, ...] = Field(
        default=(),
        description="Columns to judge; the evaluation measures them without being told to. Default: its slices.",
    )
    min_rows: Rows = Field(30, description="In a slice with fewer rows the metric is inconclusive.")
    confidence: Certainty = Field(0.95, description="Confidence of the intervals, between 0 and 1.")
    correction: Correction = Field("holm", description="Correction of p-values for testing several slices.")
    mode: Mode = Field("enforce", description=_MODE)


class Benchmark(SpecModel):
    """What a web service must return."""

    url: ExpandableText = Field(description="Address, requested with GET; without credentials.")
    path: Text = Field(description="Field of the JSON response, for example regression or results[0].score.")
    expect: StrictBool | StrictInt | StrictFloat | Text | None = Field(
        None, description="Value that the field must have."
    )
    threshold: Text | None = Field(None, description='Bound for a number, in place of expect, for example "<= 0.05".')
    conn_id: ConnectionId | None = Field(None, description="Airflow connection with the credentials.")
    timeout: Duration = Field("10s", description="Time limit of one request.")
    retries: Annotated[Whole, Field(ge=0, le=10)] = Field(2, description="Retries while the service does not respond.")
    mode: Mode = Field("enforce", description=_MODE)


class ReportPlace(SpecModel):
    """Where a report is: a file that a step of this pipeline keeps, or a URI."""

    stage: StageName | None = Field(None, description="Step that writes the report; list it among the step's reports.")
    path: RelativePath | None = Field(None, description="Path in the folder of that step.")
    uri: ExpandableText | None = Field(
        None, description="Path on the worker or URI of an object, in place of stage and path."
    )
    conn_id: ConnectionId | None = Field(None, description="Airflow connection with access to the object.")

    @model_validator(mode="after")
    def _be_somewhere(self) -> ReportPlace:
        if (self.uri is None) == (self.stage is None) or (self.stage is None) != (self.path is None):
            raise ValueError("name the report by stage and path, or by uri")
        if self.uri is not None and not (self.uri.startswith("/") or "://" in self.uri or "${" in self.uri):
            raise ValueError(
                f"uri must be an absolute path, or a URI such as s3://bucket/coverage.xml; got {self.uri!r}"
            )
        return self


ReportSpec = Annotated[ReportPlace, BeforeValidator(_short_path, json_schema_input_type=ExpandableText | ReportPlace)]
"""Where a report is, or its URI alone."""


class CoverageLimits(SpecModel):
    """What a coverage report (Cobertura XML) must show."""

    report: ReportSpec = Field(description="Where the report is.")
    min_line_rate: Share | None = Field(None, description="Smallest share of lines that ran, from 0 to 1.")
    min_branch_rate: Share | None = Field(None, description="Smallest share of branches that were taken.")
    min_new_line_rate: Share | None = Field(None, description="Smallest share of new lines that ran.")
    max_line_rate_drop: Share | None = Field(None, description="Largest drop of line coverage from the baseline.")
    baseline: ReportSpec | None = Field(None, description="Report from before the change.")
    changed_lines: ReportSpec | None = Field(None, description="Unified diff of the change.")
    omit: tuple[Text, ...] = Field(default=(), description="Patterns of changed files to leave out.")
    same_commit: Flag = Field(True, description="Whether the report must be about the candidate's commit.")
    mode: Mode = Field("enforce", description=_MODE)


class FindingsLimits(SpecModel):
    """How many findings a report (SARIF) may have."""

    report: ReportSpec = Field(description="Where the report is.")
    max: dict[Subject, Count] = Field(
        default={}, description="Most findings per level: error, warning, note, none and total."
    )
    max_new: dict[Subject, Count] = Field(default={}, description="Most new findings per level.")
    max_by_rule: dict[Text, Count] = Field(default={}, description="Most findings per rule of the tool.")
    baseline: ReportSpec | None = Field(None, description="Report from before the change.")
    tools: tuple[Text, ...] = Field(default=(), description="Tools that must have run; only their findings count.")
    same_commit: Flag = Field(True, description="Whether the report must be about the candidate's commit.")
    mode: Mode = Field("enforce", description=_MODE)

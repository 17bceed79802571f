"""The stage that judges, and its rules of every kind."""

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
_MODE = "What it means when it does not hold: enforce, warn or dryRun."


def _threshold(text: str) -> str:
    parse_threshold(text)
    return text


ThresholdText = Annotated[Text, AfterValidator(_threshold)]
"""A rule of the gate."""


def short_metric(value: Any) -> Any:
    """Take a metric alone for a rule about it."""
    return {"metric": value} if isinstance(value, str) else value


def _short_path(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


class Significance(SpecModel):
    """An improvement over the champion that must be certain."""

    metric: MetricName = Field(description="Metric; the evaluation compares it by itself.")
    min_effect: Number = Field(
        0.0, description="Smallest improvement, in units of the metric and its better direction."
    )
    confidence: Certainty = Field(0.95, description="Confidence of the interval, between 0 and 1.")
    min_rows: Rows = Field(100, description="With fewer rows it is inconclusive.")
    method: MethodChoice = Field("auto", description="How candidate and champion are compared.")
    mode: Mode = Field("enforce", description=_MODE)


class SliceRules(SpecModel):
    """What must hold in every slice, and between slices."""

    floors: tuple[ThresholdText, ...] = Field(default=(), description="Rules with a number that every slice must keep.")
    max_gap: dict[MetricName, Annotated[Number, Field(ge=0)]] = Field(
        default={}, description="Metric to the largest difference allowed between two slices of one column."
    )
    by: tuple[Text, ...] = Field(
        default=(), description="Columns that are judged; the evaluation measures them by itself. Default: its slices."
    )
    min_rows: Rows = Field(30, description="A metric that rests on fewer rows of a slice is inconclusive there.")
    confidence: Certainty = Field(0.95, description="Of a certainty, between 0 and 1.")
    correction: Correction = Field("holm", description="Of p-values, for there being several slices.")
    mode: Mode = Field("enforce", description=_MODE)


class Benchmark(SpecModel):
    """What a web service must answer."""

    url: ExpandableText = Field(description="Address that is asked with GET, without credentials.")
    path: Text = Field(description="Field of the JSON answer, for example regression or results[0].score.")
    expect: StrictBool | StrictInt | StrictFloat | Text | None = Field(None, description="Value that it must have.")
    threshold: Text | None = Field(None, description='Instead: a bound for a number, for example "<= 0.05".')
    connection: ConnectionId | None = Field(None, description="Airflow connection with the credentials.")
    timeout: Duration = Field("10s", description="Time for one try.")
    retries: Annotated[Whole, Field(ge=0, le=10)] = Field(2, description="Further tries while nobody answers.")
    mode: Mode = Field("enforce", description=_MODE)


class ReportPlace(SpecModel):
    """Where a report is: kept by a step of this pipeline, or at an address."""

    stage: StageName | None = Field(None, description="Step that leaves it; it is one of the step's reports.")
    path: RelativePath | None = Field(None, description="Its path in the folder of that step.")
    uri: ExpandableText | None = Field(None, description="Instead: path on the worker, or URI of an object.")
    connection: ConnectionId | None = Field(None, description="Airflow connection that opens the object.")

    @model_validator(mode="after")
    def _be_somewhere(self) -> ReportPlace:
        if (self.uri is None) == (self.stage is None) or (self.stage is None) != (self.path is None):
            raise ValueError("give stage and path of a step's report, or the uri of another one")
        if self.uri is not None and not (self.uri.startswith("/") or "://" in self.uri or "${" in self.uri):
            raise ValueError(
                f"uri is {self.uri!r}; allowed: an absolute path, or a URI such as s3://bucket/coverage.xml"
            )
        return self


ReportSpec = Annotated[ReportPlace, BeforeValidator(_short_path, json_schema_input_type=ExpandableText | ReportPlace)]
"""Where a report is, or its URI alone."""


class CoverageLimits(SpecModel):
    """What a coverage report (Cobertura XML) must show."""

    report: ReportSpec = Field(description="Where the report is.")
    min_line_rate: Share | None = Field(None, description="Smallest share of lines that ran, 0 to 1.")
    min_branch_rate: Share | None = Field(None, description="Smallest share of branches that were taken.")
    min_new_line_rate: Share | None = Field(None, description="Smallest share of lines that ran, of new code.")
    max_line_rate_drop: Share | None = Field(None, description="Largest loss of line coverage against the baseline.")
    baseline: ReportSpec | None = Field(None, description="Report of before the change.")
    changed_lines: ReportSpec | None = Field(None, description="Unified diff of the change.")
    omit: tuple[Text, ...] = Field(default=(), description="Patterns of changed files that need no coverage.")
    same_commit: Flag = Field(True, description="Whether it must be about the candidate's commit.")
    mode: Mode = Field("enforce", description=_MODE)


class FindingsLimits(SpecModel):
    """How many findings a report (SARIF) may hold."""

    report: ReportSpec = Field(description="Where the report is.")
    max: dict[Subject, Count] = Field(default={}, description="Most findings by error, warning, note, none and total.")
    max_new: dict[Subject, Count] = Field(default={}, description="The same of findings that are new.")
    max_by_rule: dict[Text, Count] = Field(default={}, description="Most findings by the tool's name of a rule.")
    baseline: ReportSpec | None = Field(None, description="Report of before the change.")
    tools: tuple[Text, ...] = Field(default=(), description="Tools that must have run; only theirs count.")
    same_commit: Flag = Field(True, description="Whether it must be about the candidate's commit.")
    mode: Mode = Field("enforce", description=_MODE)

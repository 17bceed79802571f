"""The stages of a pipeline, and several candidates for its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from airflow_mcp.core.metrics import Direction
from airflow_mcp.core.pipeline.file.fields import (
    Bound,
    ConfigValues,
    Duration,
    ExpandableText,
    Flag,
    MetricName,
    Quantity,
    RelativePath,
    SecretVariables,
    SpecModel,
    StageName,
    Text,
    VariableName,
    Whole,
)
from airflow_mcp.core.pipeline.file.gate import (
    Benchmark,
    CoverageLimits,
    FindingsLimits,
    ReportPlace,
    Significance,
    SliceRules,
    ThresholdText,
    short_metric,
)

STAGES = ("build", "train", "evaluate", "gate", "register", "promote")
"""The built-in stages in their order."""
RESERVED = ("approval", "deploy", "rollback", "trafficPolicy")
"""Names kept for later versions: fields of spec, fields of a stage, and stages."""
TASK_NAMES = ("begin", "pin_data", "select", "replay", "approve", "record_approval", "load_check", "outcome")
"""Tasks that every pipeline may have: no step is called so."""


class WorkloadResources(SpecModel):
    """What a step may use. Kubernetes enforces it; the local runtime records it only."""

    cpu: Quantity | None = Field(None, description='CPUs as a Kubernetes quantity, for example "2" or "500m".')
    memory: Quantity | None = Field(None, description='Memory as a Kubernetes quantity, for example "4Gi".')
    gpu: Annotated[Whole, Field(ge=0)] = Field(0, description="Whole GPUs.")


class _Stage(SpecModel):
    needs: tuple[StageName, ...] = Field(
        default=(), description="Further stages that must have ended well before. The built-in order always holds."
    )


class BuildStage(_Stage):
    """Prove that the image can run the source: compile the script, or run a command such as pytest."""

    name: Literal["build"] = Field(description="build")
    image: ExpandableText | None = Field(
        None, description="Container image; training uses it too unless it names its own. Default: spec.image."
    )
    command: tuple[Text, ...] | None = Field(
        None, min_length=1, description="Command to run in the source. Default: compile the training script."
    )
    reports: tuple[RelativePath, ...] = Field(
        default=(), description="Files, or patterns, that the command leaves and that are kept in its MLflow run."
    )
    resources: WorkloadResources | None = Field(None, description="What it may use. Default: spec.resources.")
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of this stage: name to "<connection>.<field>".'
    )


class TrainStage(_Stage):
    """Train a model."""

    name: Literal["train"] = Field(description="train")
    image: ExpandableText | None = Field(None, description="Container image. Default: that of build, then spec.image.")
    resources: WorkloadResources | None = Field(None, description="What it may use. Default: spec.resources.")
    checkpoints: ExpandableText | None = Field(
        None, description="Folder or URI below which the training keeps checkpoints for its retries."
    )
    on_unchanged: Literal["train", "reuse"] = Field(
        "reuse", description="reuse: skip a training whose code, config, data and image have been concluded on before."
    )
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of this stage: name to "<connection>.<field>".'
    )


class EvaluateStage(_Stage):
    """Measure the model."""

    name: Literal["evaluate"] = Field(description="evaluate")
    metrics_threshold: dict[MetricName, Bound] = Field(
        default={}, description='Bounds by metric: a number, or a direction and a number such as ">= 0.92".'
    )
    image: ExpandableText | None = Field(None, description="Container image with airflow_mcp. Default: the project's.")
    resources: WorkloadResources | None = Field(None, description="What it may use. Default: spec.resources.")
    slices: tuple[Text, ...] = Field(default=(), description="Columns by whose values the metrics are repeated.")
    latency_calls: Annotated[Whole, Field(ge=1, le=100_000)] = Field(
        200, description="How many single rows are predicted one by one to measure latency."
    )
    importance_rows: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="By how many rows the importance of features is measured, for drift checks. Default: not at all.",
    )
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of this stage: name to "<connection>.<field>".'
    )


class GateStage(_Stage):
    """Judge the model, and the code it comes from."""

    name: Literal["gate"] = Field(description="gate")
    thresholds: tuple[ThresholdText, ...] = Field(
        default=(), description='Rules, for example "accuracy >= 0.92", "f1 >= champion - 0.01" or "warn: mae <= 3".'
    )
    significance: tuple[
        Annotated[
            Significance,
            BeforeValidator(short_metric, json_schema_input_type=MetricName | Significance),
        ],
        ...,
    ] = Field(default=(), description="Improvements over the champion that must be certain.")
    slices: SliceRules | None = Field(None, description="What must hold in every slice.")
    benchmarks: tuple[Benchmark, ...] = Field(default=(), description="What web services must answer.")
    coverage: tuple[CoverageLimits, ...] = Field(default=(), description="What coverage reports must show.")
    findings: tuple[FindingsLimits, ...] = Field(default=(), description="How many findings reports may hold.")
    mode: Literal["enforce", "warn"] = Field(
        "enforce", description="enforce, or warn: register a model that fails as well, with a mark."
    )
    dry_run: Flag = Field(False, description="Whether the gate only reports. Needs stopAfter: gate.")
    on_failed: Literal["fail", "skip"] = Field("fail", description="fail the run, or skip what comes after.")
    on_inconclusive: Literal["fail", "skip"] | None = Field(
        None, description="The same when the gate cannot decide. Default: as onFailed says."
    )
    escalation: Literal["ask"] | None = Field(
        None, description="ask: when the gate cannot decide, a person does, under Required actions; it is recorded."
    )

    @property
    def report_places(self) -> tuple[ReportPlace, ...]:
        """Every report that is judged."""
        of_coverage = [place for rule in self.coverage for place in (rule.report, rule.baseline, rule.changed_lines)]
        of_findings = [place for rule in self.findings for place in (rule.report, rule.baseline)]
        return tuple(place for place in (*of_coverage, *of_findings) if place is not None)

    @property
    def report_stages(self) -> tuple[str, ...]:
        """Steps whose reports are judged."""
        return tuple(dict.fromkeys(place.stage for place in self.report_places if place.stage is not None))


class RegisterStage(_Stage):
    """Register the model, and check that the version loads and answers."""

    name: Literal["register"] = Field(description="register")
    require_example: bool = Field(
        True, description="false: a model without an input example passes the load check, though it was asked nothing."
    )
    image: ExpandableText | None = Field(
        None,
        description="Container image of the load check, with airflow_mcp and what the model needs. Default: the "
        "project's.",
    )
    resources: WorkloadResources | None = Field(
        None, description="What the load check may use. Default: spec.resources."
    )
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of the load check: name to "<connection>.<field>".'
    )


class PromoteStage(_Stage):
    """Make the model the champion."""

    name: Literal["promote"] = Field(description="promote")


class CustomStage(_Stage):
    """A step of your own."""

    name: StageName = Field(
        description="Any other name; it becomes the task id.",
        json_schema_extra={"not": {"enum": [*STAGES, *TASK_NAMES, *RESERVED]}},
    )
    command: tuple[Text, ...] = Field(min_length=1, description="Command to run in the source.")
    reports: tuple[RelativePath, ...] = Field(
        default=(), description="Files, or patterns, that the command leaves and that are kept in its MLflow run."
    )
    image: ExpandableText | None = Field(None, description="Container image. Default: spec.image.")
    env: dict[VariableName, str] = Field(default={}, description="Environment variables; no credentials.")
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of this stage: name to "<connection>.<field>".'
    )
    resources: WorkloadResources | None = Field(None, description="What it may use. Default: spec.resources.")


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) and name in STAGES else "custom"


Stage = Annotated[
    Annotated[BuildStage, Tag("build")]
    | Annotated[TrainStage, Tag("train")]
    | Annotated[EvaluateStage, Tag("evaluate")]
    | Annotated[GateStage, Tag("gate")]
    | Annotated[RegisterStage, Tag("register")]
    | Annotated[PromoteStage, Tag("promote")]
    | Annotated[CustomStage, Tag("custom")],
    Discriminator(_kind),
]
"""One stage, told apart by its name."""


class CandidateSpec(SpecModel):
    """One of several trainings of which the best goes on."""

    name: StageName = Field(description="Name of the candidate; its tasks are train_<name> and evaluate_<name>.")
    config: ConfigValues = Field(default={}, description="Values that are merged over spec.config.")
    training_script: RelativePath | None = Field(None, description="Script. Default: spec.trainingScript.")
    arguments: tuple[Text, ...] | None = Field(None, description="Arguments. Default: spec.arguments.")
    image: ExpandableText | None = Field(None, description="Container image. Default: that of the train stage.")
    resources: WorkloadResources | None = Field(None, description="What it may use. Default: that of the train stage.")


class SelectionSpec(SpecModel):
    """How the best candidate is picked."""

    metric: MetricName = Field(description="Metric of the evaluation.")
    direction: Direction | None = Field(
        None, description="maximize or minimize. Default: the known direction of the metric."
    )


class Timeouts(SpecModel):
    """Times after which a step is stopped and fails."""

    build: Duration | None = Field(None, description="Limit of build. Default: none.")
    train: Duration | None = Field(None, description="Limit of each training. Default: none.")
    evaluate: Duration | None = Field(None, description="Limit of each evaluation. Default: none.")
    load_check: Duration | None = Field(None, description="Limit of the load check. Default: none.")
    step: Duration | None = Field(None, description="Limit of each step of your own. Default: none.")
    run: Duration | None = Field(None, description="Limit of the whole run. Default: none.")


class Retries(SpecModel):
    """How a failed task is tried again."""

    attempts: Annotated[Whole, Field(ge=0, le=20)] = Field(2, description="Further tries of a task after the first.")
    delay: Duration = Field("30s", description="Time before the first of them; each further one waits twice as long.")
    max_delay: Duration = Field("10m", description="Longest time between two tries.")

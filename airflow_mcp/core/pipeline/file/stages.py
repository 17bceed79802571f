"""The stages of a pipeline, and the candidates for its training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from airflow_mcp.core.metrics import Direction
from airflow_mcp.core.pipeline.file.deploy import DeployAnalysis, DeployStep, ServerSpec, ShadowTraffic
from airflow_mcp.core.pipeline.file.fields import (
    Bound,
    ConfigValues,
    ConnectionId,
    Duration,
    ExpandableText,
    Flag,
    Image,
    MetricName,
    PodSettings,
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

STAGES = ("build", "train", "evaluate", "gate", "register", "approval", "deploy", "promote")
"""The built-in stages in their order; a pipeline with ``deploy`` has no ``promote``, see :func:`built_in_stages`."""
TASK_NAMES = (
    *("begin", "pin_data", "select", "replay", "approve", "record_approval", "load_check", "deploy_server", "rollout"),
    *("ask_release", "request_release", "outcome"),
)
"""Tasks that any pipeline may have: no step may have such a name."""


class WorkloadResources(SpecModel):
    """CPU, memory and GPUs of a step. Kubernetes enforces them; the local runtime only records them."""

    cpu: Quantity | None = Field(None, description='CPUs as a Kubernetes quantity, for example "2" or "500m".')
    memory: Quantity | None = Field(None, description='Memory as a Kubernetes quantity, for example "4Gi".')
    gpu: Annotated[Whole, Field(ge=0)] = Field(0, description="Whole GPUs.")


class _Stage(SpecModel):
    needs: tuple[StageName, ...] = Field(
        default=(), description="Stages that must succeed first, in addition to the built-in order."
    )


class BuildStage(_Stage):
    """A check that the image can run the source: compiles the script, or runs a command such as pytest."""

    name: Literal["build"] = Field(description="build")
    image: Image | None = Field(
        None, description="Container image; the training uses it too, unless it names its own. Default: spec.image."
    )
    command: tuple[Text, ...] | None = Field(
        None, min_length=1, description="Command to run in the source. Default: compile the training script."
    )
    reports: tuple[RelativePath, ...] = Field(
        default=(), description="Files or patterns that the command writes; they are stored in its MLflow run."
    )
    resources: WorkloadResources | None = Field(None, description="CPU, memory and GPUs. Default: spec.resources.")
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of this stage: name to "<connection>.<field>".'
    )


class TrainStage(_Stage):
    """The training."""

    name: Literal["train"] = Field(description="train")
    image: Image | None = Field(None, description="Container image. Default: the one of build, then spec.image.")
    resources: WorkloadResources | None = Field(None, description="CPU, memory and GPUs. Default: spec.resources.")
    checkpoints: ExpandableText | None = Field(
        None, description="Folder or URI for checkpoints, so that a retry can resume."
    )
    kubernetes: PodSettings = Field(
        default={},
        description="Pod options of the training, merged over spec.kubernetes, such as replicas and target.",
    )
    on_unchanged: Literal["train", "reuse"] = Field(
        "reuse",
        description="If code, config, data and image are those of a finished training: reuse its model, or train.",
    )
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of this stage: name to "<connection>.<field>".'
    )


class EvaluateStage(_Stage):
    """The evaluation: measures the model."""

    name: Literal["evaluate"] = Field(description="evaluate")
    metrics_threshold: dict[MetricName, Bound] = Field(
        default={}, description='Bounds by metric: a number, or a comparison and a number such as ">= 0.92".'
    )
    image: Image | None = Field(None, description="Container image with airflow_mcp. Default: the project's.")
    resources: WorkloadResources | None = Field(None, description="CPU, memory and GPUs. Default: spec.resources.")
    slices: tuple[Text, ...] = Field(
        default=(), description="Columns; the metrics are measured for each of their values as well."
    )
    latency_calls: Annotated[Whole, Field(ge=1, le=100_000)] = Field(
        200, description="How many rows to predict one by one for the latency."
    )
    importance_rows: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="How many rows to measure feature importance on, for drift checks. Default: not measured.",
    )
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of this stage: name to "<connection>.<field>".'
    )


class GateStage(_Stage):
    """The gate: judges the model and the code that made it."""

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
    ] = Field(default=(), description="Improvements over the champion that must be statistically significant.")
    slices: SliceRules | None = Field(None, description="What must hold in every slice of the data.")
    benchmarks: tuple[Benchmark, ...] = Field(default=(), description="What web services must return.")
    coverage: tuple[CoverageLimits, ...] = Field(default=(), description="What coverage reports must show.")
    findings: tuple[FindingsLimits, ...] = Field(default=(), description="How many findings SARIF reports may have.")
    mode: Literal["enforce", "warn"] = Field(
        "enforce", description="enforce; warn registers a failed model as well, marked as warned."
    )
    dry_run: Flag = Field(False, description="Whether the gate only reports. Requires stopAfter: gate.")
    on_failed: Literal["fail", "skip"] = Field(
        "fail", description="When the gate fails: fail the run, or skip everything downstream."
    )
    on_inconclusive: Literal["fail", "skip"] | None = Field(
        None, description="When the gate is inconclusive: fail or skip. Default: onFailed."
    )
    escalation: Literal["ask"] | None = Field(
        None, description="ask: when the gate is inconclusive, a person decides under Required Actions."
    )

    @property
    def report_places(self) -> tuple[ReportPlace, ...]:
        """Every report that the gate judges."""
        of_coverage = [place for rule in self.coverage for place in (rule.report, rule.baseline, rule.changed_lines)]
        of_findings = [place for rule in self.findings for place in (rule.report, rule.baseline)]
        return tuple(place for place in (*of_coverage, *of_findings) if place is not None)

    @property
    def report_stages(self) -> tuple[str, ...]:
        """Steps whose reports the gate judges."""
        return tuple(dict.fromkeys(place.stage for place in self.report_places if place.stage is not None))


class RegisterStage(_Stage):
    """The registration, and the check that the version loads and predicts."""

    name: Literal["register"] = Field(description="register")
    require_example: bool = Field(
        True, description="Whether the load check requires an input example. false: without one, loading is enough."
    )
    image: Image | None = Field(
        None,
        description="Container image of the load check, with airflow_mcp and what the model needs. Default: the "
        "project's.",
    )
    resources: WorkloadResources | None = Field(
        None, description="CPU, memory and GPUs of the load check. Default: spec.resources."
    )
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of the load check: name to "<connection>.<field>".'
    )


class ApprovalStage(_Stage):
    """The approval: people of the governance policy are asked before the version is promoted or rolled out."""

    name: Literal["approval"] = Field(description="approval")
    environments: tuple[Literal["dev", "test", "prod"], ...] = Field(
        ("prod",), min_length=1, description="Environments in which people are asked; in the others the gate decides."
    )
    seats: Annotated[Whole, Field(ge=1, le=20)] = Field(
        5, description="Most approvals that a chain of the policy needs: each is a task, and unneeded ones ask nobody."
    )


class PromoteStage(_Stage):
    """The promotion: makes the version the champion."""

    name: Literal["promote"] = Field(description="promote")


class DeployStage(_Stage):
    """The rollout: moves the requests of the model servers to the version step by step, then makes it the champion."""

    name: Literal["deploy"] = Field(description="deploy")
    strategy: Literal["canary", "blueGreen"] = Field(
        "canary", description="Steps when none are given: canary, or blueGreen, which moves every request at once."
    )
    steps: tuple[DeployStep, ...] | None = Field(
        None, min_length=1, description="Steps in order. Default: those of strategy."
    )
    analysis: DeployAnalysis = Field(DeployAnalysis(), description="What must hold.")
    sticky: Text | None = Field(None, description="Header whose value keeps a caller on one side. Default: none.")
    shadow: ShadowTraffic | None = Field(None, description="Copies of requests before the first step. Default: none.")
    bake: Duration | None = Field(
        None, description="How long the new champion is watched; needs spec.rollback. Default: not watched."
    )
    on_lost: Literal["hold", "stable"] = Field(
        "hold", description="While Airflow does not look after it: hold the split, or stable: the champion answers."
    )
    max_duration: Duration | None = Field(None, description="Longest time of the rollout. Default: no limit.")
    poll_interval: Duration | None = Field(None, description="Time between two looks at the replicas. Default: 15s.")
    conn_id: ConnectionId = Field(
        "model_server_default", description="Airflow connection of type model_server: the replicas to measure."
    )
    prometheus_conn_id: ConnectionId | None = Field(
        None, description="Airflow connection of type prometheus, for queries and metricsSource. Default: none."
    )
    metrics_source: Literal["replicas", "prometheus"] = Field(
        "replicas", description="Where the metrics of the replicas are read: from them, or from prometheusConnId."
    )
    prometheus_selector: Text | None = Field(
        None, description='Matchers of the replicas in Prometheus, such as namespace="ml". Default: the model alone.'
    )
    router: ConfigValues | None = Field(
        None, description="What moves the requests: kind and its fields, see docs/rollouts.md. Default: the servers."
    )
    server: ServerSpec | None = Field(
        None, description="Model server to deploy before the rollout. Default: it runs already."
    )


class CustomStage(_Stage):
    """A step of your own."""

    name: StageName = Field(
        description="Name of the step, different from every built-in stage and task; it becomes the task id.",
        json_schema_extra={"not": {"enum": [*STAGES, *TASK_NAMES]}},
    )
    command: tuple[Text, ...] = Field(min_length=1, description="Command to run in the source.")
    reports: tuple[RelativePath, ...] = Field(
        default=(), description="Files or patterns that the command writes; they are stored in its MLflow run."
    )
    image: Image | None = Field(None, description="Container image. Default: spec.image.")
    env: dict[VariableName, str] = Field(default={}, description="Environment variables; no credentials.")
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of this stage: name to "<connection>.<field>".'
    )
    resources: WorkloadResources | None = Field(None, description="CPU, memory and GPUs. Default: spec.resources.")


STAGE_MODELS: Mapping[str, type[SpecModel]] = {
    "build": BuildStage,
    "train": TrainStage,
    "evaluate": EvaluateStage,
    "gate": GateStage,
    "register": RegisterStage,
    "approval": ApprovalStage,
    "deploy": DeployStage,
    "promote": PromoteStage,
}
"""The model of each built-in stage, by its name."""


def approval_in(stages: Iterable[SpecModel], environment: str) -> ApprovalStage | None:
    """Return the stage that asks people before a release to an environment; None when nobody is asked there.

    :param stages: the stages of the file.
    :param environment: dev, test or prod.
    """
    return next(
        (stage for stage in stages if isinstance(stage, ApprovalStage) and environment in stage.environments), None
    )


def built_in_stages(named: Collection[str], stop_after: str, *, asks: bool = False) -> tuple[str, ...]:
    """Return the built-in stages of a pipeline in their order.

    ``build`` and ``deploy`` are part of it only when the file asks for them. The promotion is the last step of
    ``deploy``, which therefore takes the place of ``promote``.

    :param named: names of the stages in the file.
    :param stop_after: last built-in stage that runs.
    :param asks: whether people are asked before the release, see :func:`approval_in`.
    """
    has_rollout = "deploy" in named or stop_after == "deploy"
    left_out = {"promote" if has_rollout else "deploy"}
    left_out |= {name for name, is_there in (("build", "build" in named), ("approval", asks)) if not is_there}
    return tuple(name for name in STAGES[: STAGES.index(stop_after) + 1] if name not in left_out)


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) and name in STAGES else "custom"


Stage = Annotated[
    Annotated[BuildStage, Tag("build")]
    | Annotated[TrainStage, Tag("train")]
    | Annotated[EvaluateStage, Tag("evaluate")]
    | Annotated[GateStage, Tag("gate")]
    | Annotated[RegisterStage, Tag("register")]
    | Annotated[ApprovalStage, Tag("approval")]
    | Annotated[DeployStage, Tag("deploy")]
    | Annotated[PromoteStage, Tag("promote")]
    | Annotated[CustomStage, Tag("custom")],
    Discriminator(_kind),
]
"""One stage; its name decides which kind."""


class CandidateSpec(SpecModel):
    """One of several trainings; only the best model goes on."""

    name: StageName = Field(description="Name of the candidate; its tasks are train_<name> and evaluate_<name>.")
    config: ConfigValues = Field(default={}, description="Values merged over spec.config.")
    training_script: RelativePath | None = Field(None, description="Script. Default: spec.trainingScript.")
    arguments: tuple[Text, ...] | None = Field(None, description="Arguments. Default: spec.arguments.")
    image: Image | None = Field(None, description="Container image. Default: the one of the stage train.")
    resources: WorkloadResources | None = Field(
        None, description="CPU, memory and GPUs. Default: those of the stage train."
    )


class SelectionSpec(SpecModel):
    """The choice of the best candidate."""

    metric: MetricName = Field(description="Metric of the evaluation that decides.")
    direction: Direction | None = Field(
        None, description="maximize or minimize. Default: the better direction of a known metric."
    )


class Timeouts(SpecModel):
    """Time limits after which a step is stopped and fails."""

    build: Duration | None = Field(None, description="Time limit of build. Default: none.")
    train: Duration | None = Field(None, description="Time limit of each training. Default: none.")
    evaluate: Duration | None = Field(
        None, description="Time limit of each evaluation and of the replay. Default: none."
    )
    load_check: Duration | None = Field(None, description="Time limit of the load check. Default: none.")
    deploy_server: Duration = Field("5m", description="Time limit until the model server is up.")
    step: Duration | None = Field(None, description="Time limit of each step of your own. Default: none.")
    run: Duration | None = Field(None, description="Time limit of the whole run. Default: none.")


class Retries(SpecModel):
    """Retries of failed tasks."""

    attempts: Annotated[Whole, Field(ge=0, le=20)] = Field(2, description="Retries of a task after its first attempt.")
    delay: Duration = Field("30s", description="Delay before the first retry; it doubles with each further one.")
    max_delay: Duration = Field("10m", description="Longest delay between two attempts.")

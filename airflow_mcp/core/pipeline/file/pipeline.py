"""The ModelPipeline document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from airflow_mcp.core.pipeline.file.fields import (
    ConfigValues,
    ConnectionId,
    ExpandableText,
    Flag,
    Image,
    Name,
    PodSettings,
    RelativePath,
    Runtime,
    SecretVariables,
    SpecModel,
    Text,
    VariableName,
)
from airflow_mcp.core.pipeline.file.policies import RollbackPolicy, TrafficPolicy
from airflow_mcp.core.pipeline.file.replay import Replay
from airflow_mcp.core.pipeline.file.source import Data, Model, SourceField
from airflow_mcp.core.pipeline.file.stages import (
    CandidateSpec,
    Retries,
    SelectionSpec,
    Stage,
    Timeouts,
    WorkloadResources,
)
from airflow_mcp.core.pipeline.file.triggers import Trigger
from airflow_mcp.core.workload.config import CONFIG_SUFFIXES

API_VERSION: Literal["mcp.example.com/v1"] = "mcp.example.com/v1"
KIND: Literal["ModelPipeline"] = "ModelPipeline"


CONFIG_FILE = "\0file"
"""Key of the config file when values are merged over it; no YAML key can have this name."""


def _short_config(value: Any) -> Any:
    if isinstance(value, dict):
        if value and value.keys() <= {"file", "values"} and str(value.get("file")).endswith(CONFIG_SUFFIXES):
            raise ValueError(
                f"must be the values themselves, or the path of a file alone: write config: {value['file']}"
            )
        values = {name: item for name, item in value.items() if name != CONFIG_FILE}
        return {"file": value.get(CONFIG_FILE), "values": values}
    return {"file": value} if isinstance(value, str) else value


class Config(SpecModel):
    """Config of the training: values, or a file with values."""

    values: ConfigValues | None = Field(None, description="Values by name, merged over those of the file.")
    file: RelativePath | None = Field(None, description="YAML or JSON file beside the pipeline file.")


ConfigField = Annotated[
    Config,
    BeforeValidator(
        _short_config,
        json_schema_input_type=RelativePath
        | Annotated[ConfigValues, Field(json_schema_extra={"not": {"required": ["file"], "maxProperties": 1}})],
    ),
]
"""A mapping of values, or the path of a file."""


class Notification(SpecModel):
    """A webhook, and the events that it is sent."""

    on: tuple[Literal["failure", "success", "gateRejected"], ...] = Field(
        min_length=1, description="Events to send: failure, success, gateRejected."
    )
    webhook: ConnectionId = Field(description="Airflow connection with the address.")
    format: Literal["json", "slack", "wecom"] = Field("json", description="Format of the message.")


class SourceOverlay(SpecModel):
    """What an environment may change about the source."""

    revision: ExpandableText | None = Field(None, description="Branch, tag or commit.")
    tags: Text | None = Field(None, description="Pattern of release tags.")


class TrackedOverlay(SpecModel):
    """What an environment may change about data in DVC or Git LFS."""

    revision: ExpandableText | None = Field(None, description="Branch, tag or commit.")


class DataOverlay(SpecModel):
    """What an environment may change about the data."""

    root: ExpandableText | None = Field(None, description="Folder with one folder per version.")
    version: ExpandableText | None = Field(None, description="Version.")
    uri: ExpandableText | None = Field(None, description="Training data.")
    evaluation_uri: ExpandableText | None = Field(None, description="Evaluation data.")
    dvc: TrackedOverlay | None = Field(None, description="Revision of DVC data.")
    lfs: TrackedOverlay | None = Field(None, description="Revision of Git LFS data.")


class Overlay(SpecModel):
    """What one environment changes; it can change nothing else."""

    source_code: SourceOverlay | None = Field(None, description="Branch, tag or commit of the source.")
    config: ConfigField | None = Field(None, description="Values merged over spec.config, or another file.")
    data: DataOverlay | None = Field(None, description="Location and version of the data.")
    image: Image | None = Field(None, description="Container image.")
    runtime: Runtime | None = Field(None, description="local or kubernetes.")
    resources: WorkloadResources | None = Field(None, description="CPU, memory and GPUs of a step.")
    kubernetes: PodSettings | None = Field(None, description="Pod options, merged over spec.kubernetes.")
    env: dict[VariableName, str] | None = Field(None, description="Variables, merged over spec.env.")
    secret_env: SecretVariables | None = Field(None, description="Secret variables, merged over spec.secretEnv.")
    triggers: tuple[Trigger, ...] | None = Field(None, description="Replaces spec.triggers.")
    retries: Retries | None = Field(None, description="Replaces spec.retries.")
    timeouts: Timeouts | None = Field(None, description="Replaces spec.timeouts.")
    notifications: tuple[Notification, ...] | None = Field(None, description="Replaces spec.notifications.")


class Environments(SpecModel):
    """Overlays by environment."""

    dev: Overlay = Field(Overlay(), description="Development: a branch.")
    test: Overlay = Field(Overlay(), description="Test: a branch.")
    prod: Overlay = Field(Overlay(), description="Production: a release tag, and no secrets in plain text.")


class Metadata(SpecModel):
    """Name and owner of the pipeline."""

    name: Name = Field(description="Name of the Dag. Also of the model and the experiment, unless model names them.")
    description: str | None = Field(None, max_length=2000, description="What the model is for.")
    owner: Text = Field("airflow", description="Person or team responsible.")
    tags: tuple[Text, ...] = Field(default=(), description="Tags of the Dag in Airflow.")


class PipelineSpec(SpecModel):
    """The steps of the pipeline, and their settings."""

    source_code: SourceField = Field(description="Code: a Git URL, a folder, or a mapping with repoUrl and revision.")
    training_script: RelativePath = Field(
        description="Python script that trains the model, as a path inside the source."
    )
    arguments: tuple[Text, ...] = Field(default=(), description="Command-line arguments of the script.")
    config: ConfigField = Field(Config(), description="Values for the training, or a file with values.")
    data: Data | None = Field(
        None, description="Data of the training and the evaluation. Default: the script loads its own."
    )
    model: Model = Field(Model(), description="Names of model and experiment in MLflow.")
    image: Image | None = Field(None, description="Container image of the steps. Default: the project's.")
    runtime: Runtime | None = Field(
        None, description="Where steps run: local or kubernetes. Default: [airflow_mcp] runtime."
    )
    resources: WorkloadResources = Field(WorkloadResources(), description="CPU, memory and GPUs of a step.")
    kubernetes: PodSettings = Field(default={}, description="Pod options, see docs/kubernetes.md.")
    env: dict[VariableName, str] = Field(default={}, description="Environment variables of every step; no credentials.")
    secret_env: SecretVariables = Field(
        default={}, description='Environment variables with secrets, of every step: name to "<connection>.<field>".'
    )
    triggers: tuple[Trigger, ...] = Field(default=(), description="What starts a run. Default: only a person.")
    catchup: Flag = Field(False, description="Whether missed cron times are run later.")
    candidates: tuple[CandidateSpec, ...] = Field(
        default=(), description="Alternative trainings; only the best model goes on."
    )
    select: SelectionSpec | None = Field(
        None, description="How the best candidate is selected; required with candidates."
    )
    replay: Replay | None = Field(None, description="Logged requests to replay before the gate.")
    risk: Literal["low", "medium", "high"] | None = Field(
        None, description="Risk of the model, by which the policy chooses who approves; it may raise it. Default: high."
    )
    stages: tuple[Stage, ...] = Field(
        default=(), description="Stages with settings of their own; the others are filled in."
    )
    stop_after: Literal["train", "evaluate", "gate", "register", "deploy", "promote"] = Field(
        "promote", description="Last built-in stage that runs. The promotion is the last step of deploy."
    )
    rollback: RollbackPolicy | None = Field(
        None, description="When model servers go back by themselves, during a rollout and after it. Default: never."
    )
    traffic_policy: TrafficPolicy | None = Field(
        None, description="What the model server accepts; needs a server in the stage deploy. Default: everything."
    )
    retries: Retries = Field(Retries(), description="How failed tasks are retried.")
    timeouts: Timeouts = Field(Timeouts(), description="Time limits.")
    notifications: tuple[Notification, ...] = Field(default=(), description="Webhooks to notify.")
    environments: Environments = Field(Environments(), description="What dev, test and prod change.")


class ModelPipeline(SpecModel):
    """A pipeline that trains, judges, registers and promotes one model."""

    api_version: Literal["mcp.example.com/v1"] = Field(description="mcp.example.com/v1")
    kind: Literal["ModelPipeline"] = Field(description="ModelPipeline")
    metadata: Metadata = Field(description="Name, owner and tags.")
    spec: PipelineSpec = Field(description="What the pipeline does.")

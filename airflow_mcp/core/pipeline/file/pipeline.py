"""The ModelPipeline document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from airflow_mcp.core.pipeline.file.fields import (
    ConfigValues,
    ConnectionId,
    ExpandableText,
    Flag,
    Name,
    PodSettings,
    RelativePath,
    Runtime,
    SecretVariables,
    SpecModel,
    Text,
    VariableName,
)
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

API_VERSION: Literal["mcp.example.com/v1"] = "mcp.example.com/v1"
KIND: Literal["ModelPipeline"] = "ModelPipeline"
ENVIRONMENTS = ("dev", "test", "prod")


CONFIG_FILE = "\0file"
"""Name, impossible in a file, under which a config file is kept when values are merged over it."""


def _short_config(value: Any) -> Any:
    if isinstance(value, dict):
        values = {name: item for name, item in value.items() if name != CONFIG_FILE}
        return {"file": value.get(CONFIG_FILE), "values": values}
    return {"file": value} if isinstance(value, str) else value


class Config(SpecModel):
    """The config of the training: values, or the file that holds them."""

    values: ConfigValues | None = Field(None, description="Values by name, merged over those of the file.")
    file: RelativePath | None = Field(None, description="YAML or JSON file beside the pipeline file.")


ConfigField = Annotated[Config, BeforeValidator(_short_config, json_schema_input_type=RelativePath | ConfigValues)]
"""A mapping of values, or the path of a file."""


class Notification(SpecModel):
    """Who hears of what."""

    on: tuple[Literal["failure", "success", "gateRejected"], ...] = Field(
        min_length=1, description="failure, success and gateRejected."
    )
    webhook: ConnectionId = Field(description="Airflow connection that holds the address.")
    format: Literal["json", "slack", "wecom"] = Field("json", description="Shape of the message.")


class SourceOverlay(SpecModel):
    """What may differ about the source."""

    revision: ExpandableText | None = Field(None, description="Branch, tag or commit.")
    tags: Text | None = Field(None, description="Pattern of release tags.")


class TrackedOverlay(SpecModel):
    """What may differ about data of DVC or Git LFS."""

    revision: ExpandableText | None = Field(None, description="Branch, tag or commit.")


class DataOverlay(SpecModel):
    """What may differ about the data."""

    root: ExpandableText | None = Field(None, description="Folder of versions.")
    version: ExpandableText | None = Field(None, description="Version.")
    uri: ExpandableText | None = Field(None, description="Training data.")
    evaluation_uri: ExpandableText | None = Field(None, description="Evaluation data.")
    dvc: TrackedOverlay | None = Field(None, description="Version of DVC data.")
    lfs: TrackedOverlay | None = Field(None, description="Version of Git LFS data.")


class Overlay(SpecModel):
    """What one environment sets differently; nothing else may differ."""

    source_code: SourceOverlay | None = Field(None, description="Branch, tag or commit of the source.")
    config: ConfigField | None = Field(None, description="Values merged over spec.config, or another file.")
    data: DataOverlay | None = Field(None, description="Place and version of the data.")
    image: ExpandableText | None = Field(None, description="Container image.")
    runtime: Runtime | None = Field(None, description="local or kubernetes.")
    resources: WorkloadResources | None = Field(None, description="What steps may use.")
    kubernetes: PodSettings | None = Field(None, description="Pod options, merged over spec.kubernetes.")
    env: dict[VariableName, str] | None = Field(None, description="Variables, merged over spec.env.")
    secret_env: SecretVariables | None = Field(None, description="Secret variables, merged over spec.secretEnv.")
    triggers: tuple[Trigger, ...] | None = Field(None, description="Triggers, in place of spec.triggers.")
    retries: Retries | None = Field(None, description="Retries, in place of spec.retries.")
    timeouts: Timeouts | None = Field(None, description="Time limits, in place of spec.timeouts.")
    notifications: tuple[Notification, ...] | None = Field(None, description="In place of spec.notifications.")


class Environments(SpecModel):
    """Overlays by environment."""

    dev: Overlay = Field(Overlay(), description="Development: a branch.")
    test: Overlay = Field(Overlay(), description="Test: a branch.")
    prod: Overlay = Field(Overlay(), description="Production: a release tag, no plaintext secret.")


class Metadata(SpecModel):
    """What the pipeline is called, and whose it is."""

    name: Name = Field(description="Name of the Dag and, unless model says otherwise, of model and experiment.")
    description: str | None = Field(None, max_length=2000, description="What the model is for.")
    owner: Text = Field("airflow", description="Who answers for it.")
    tags: tuple[Text, ...] = Field(default=(), description="Tags in Airflow's list of Dags.")


class PipelineSpec(SpecModel):
    """What the pipeline does."""

    source_code: SourceField = Field(
        description="Git URL or folder of the code, or a mapping with repoUrl and revision."
    )
    training_script: RelativePath = Field(description="Python script that trains, inside the source.")
    arguments: tuple[Text, ...] = Field(default=(), description="Command line arguments of the script.")
    config: ConfigField = Field(Config(), description="Values for the training, or the file that holds them.")
    data: Data | None = Field(None, description="Data. Default: the script finds its own.")
    model: Model = Field(Model(), description="What model and experiment are called in MLflow.")
    image: ExpandableText | None = Field(None, description="Container image of steps. Default: the project's.")
    runtime: Runtime | None = Field(None, description="local or kubernetes. Default: [airflow_mcp] runtime.")
    resources: WorkloadResources = Field(WorkloadResources(), description="What steps may use.")
    kubernetes: PodSettings = Field(default={}, description="Pod options, by their names in docs/kubernetes.md.")
    env: dict[VariableName, str] = Field(default={}, description="Variables of every step; no credentials.")
    secret_env: SecretVariables = Field(
        default={}, description='Secret variables of every step: name to "<connection>.<field>".'
    )
    triggers: tuple[Trigger, ...] = Field(default=(), description="What starts it. Default: a person only.")
    catchup: Flag = Field(False, description="Whether missed times of cron are made up for.")
    candidates: tuple[CandidateSpec, ...] = Field(default=(), description="Trainings of which the best goes on.")
    select: SelectionSpec | None = Field(None, description="How the best is picked; needed with candidates.")
    replay: Replay | None = Field(None, description="Logged requests that the gate judges too.")
    stages: tuple[Stage, ...] = Field(default=(), description="Stages; those left out are filled in.")
    stop_after: Literal["train", "evaluate", "gate", "register", "promote"] = Field(
        "promote", description="Last built-in stage."
    )
    retries: Retries = Field(Retries(), description="How failed tasks are tried again.")
    timeouts: Timeouts = Field(Timeouts(), description="Time limits.")
    notifications: tuple[Notification, ...] = Field(default=(), description="Who hears of what.")
    environments: Environments = Field(Environments(), description="What dev, test and prod set differently.")


class ModelPipeline(SpecModel):
    """A pipeline that trains, judges, registers and promotes one model."""

    api_version: Literal["mcp.example.com/v1"] = Field(description="mcp.example.com/v1")
    kind: Literal["ModelPipeline"] = Field(description="ModelPipeline")
    metadata: Metadata = Field(description="Name and owner.")
    spec: PipelineSpec = Field(description="What it does.")

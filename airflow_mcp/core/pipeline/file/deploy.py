"""The parts of the stage ``deploy``: steps of a rollout, what is analysed, and the model server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from airflow_mcp.core.pipeline.file.fields import (
    ConfigValues,
    Duration,
    ExpandableText,
    Image,
    Number,
    SpecModel,
    Text,
    Whole,
)

Percent = Annotated[Number, Field(ge=0, le=100)]
QueryName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]


def _pause(value: Any) -> Any:
    if isinstance(value, dict) and value:
        raise ValueError(f"must be a duration such as 1h, or {{}}, which waits for a person; got {value!r}")
    return value


class UntilResumed(SpecModel):
    """An empty mapping: wait until a person resumes."""


class DeployStep(SpecModel):
    """One step of a rollout; exactly one of its fields is given."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in ("setWeight", "analysis", "pause")]}
    )

    set_weight: Percent | None = Field(None, description="Percent of the requests that the new version answers.")
    analysis: Duration | None = Field(None, description="Measure for at least this long; go on when every rule is met.")
    pause: Annotated[Duration | UntilResumed | None, BeforeValidator(_pause)] = Field(
        None, description="Wait this long; {} waits until a person resumes the rollout."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> DeployStep:
        kinds = [name for name in ("set_weight", "analysis", "pause") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"a step must have exactly one of setWeight, analysis, pause; got {len(kinds)} of them")
        return self


class DeployAnalysis(SpecModel):
    """What must hold while the new version answers requests."""

    rules: tuple[Text, ...] | None = Field(
        None,
        min_length=1,
        description='Limits, for example "http_5xx_rate <= champion + 0.005". Default: "http_5xx_rate <= 0.01".',
    )
    queries: dict[QueryName, Text] = Field(
        default={}, description="PromQL by name; rules limit its result by that name. Needs prometheusConnId."
    )
    on_inconclusive: Literal["pause", "abort"] = Field(
        "pause", description="Without a conclusion: pause until a person resumes, or abort."
    )


class ShadowTraffic(SpecModel):
    """Copies of requests that the new version is asked before it answers any; nobody gets its answers."""

    percent: Annotated[Number, Field(gt=0, le=100)] = Field(description="Percent of the champion's requests.")
    for_: Duration = Field(alias="for", description="For at least this long; go on when the rules on errors are met.")


class ServerSpec(SpecModel):
    """The model server on Kubernetes; the task deploy_server applies its manifests."""

    namespace: ExpandableText = Field(description="Namespace.")
    image: Image = Field(description="Container image of the model server, with a tag or a digest.")
    replicas: Annotated[Whole, Field(ge=1, le=1000)] = Field(2, description="Pods.")
    options: ConfigValues = Field(
        default={}, description="Further fields, such as resources or autoscaling, see docs/serving/kubernetes.md."
    )

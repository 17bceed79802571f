"""The triggers that start a pipeline."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from airflow_mcp.core.pipeline.file.cron import ROUGHLY, check_cron
from airflow_mcp.core.pipeline.file.fields import Duration, Number, RelativePath, SpecModel, Text, VariableName


def _switched_on(value: Any) -> Any:
    if value is False:
        raise ValueError("must be true or a mapping; got false. Remove the trigger instead")
    if isinstance(value, str) and value.lower() == "true":
        raise ValueError(f"must be true without quotes, or a mapping; got {value!r}")
    return {} if value is True else value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"must be a time zone such as UTC or Europe/Berlin; got {name!r}") from None
    return name


class OnCommit(SpecModel):
    """A new commit on the Git remote."""

    path: RelativePath | None = Field(None, description="Only commits that change something in this path.")
    poll: Duration = Field("60s", description="Polling interval.")


class OnDataChange(SpecModel):
    """A new version of the data."""

    poll: Duration = Field("60s", description="Polling interval.")


class OnModelChange(SpecModel):
    """A change in the registry, of this model or of one that it depends on."""

    model: Text | None = Field(None, description="Registered model. Default: the pipeline's own.")
    alias: Text | None = Field(None, description="Alias that must move. Default: any new version starts a run.")
    poll: Duration = Field("60s", description="Polling interval.")


class OnDrift(SpecModel):
    """A drift check that found drift."""

    model: Text | None = Field(None, description="Registered model that was checked. Default: the pipeline's own.")
    experiment_name: Text | None = Field(
        None, description="MLflow experiment of the drift checks. Default: <experimentName>-drift."
    )
    poll: Duration = Field("60s", description="Polling interval.")


ParamValue = str | int | float | bool


class ManualParam(SpecModel):
    """One field of the form behind Airflow's "Trigger"."""

    type: Literal["string", "integer", "number", "boolean"] = Field(description="Type of the value.")
    default: ParamValue = Field(description="Value in scheduled runs, and the initial value in the form.")
    title: Text | None = Field(None, description="Label in the form. Default: the field's name.")
    description: str | None = Field(None, max_length=2000, description="Help text in the form.")
    enum: tuple[ParamValue, ...] | None = Field(None, min_length=1, description="The values to choose from.")
    minimum: Number | None = Field(None, description="Smallest value.")
    maximum: Number | None = Field(None, description="Largest value.")
    sets: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=200)] = Field(
        description="Value of config that the field replaces, for example training.lr."
    )

    @model_validator(mode="after")
    def _default_fits(self) -> ManualParam:
        for value in (self.default, *(self.enum or ())):
            if not _is_of(self.type, value):
                raise ValueError(f"must be of type {self.type}; got {value!r}")
        if self.enum is not None and self.default not in self.enum:
            raise ValueError(f"default must be one of {', '.join(map(repr, self.enum))}; got {self.default!r}")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "number"):
            raise ValueError(f"minimum and maximum need type integer or number; got {self.type}")
        if self.minimum is not None and isinstance(self.default, int | float) and self.default < self.minimum:
            raise ValueError(f"default must be at least the minimum {self.minimum:g}; got {self.default!r}")
        if self.maximum is not None and isinstance(self.default, int | float) and self.default > self.maximum:
            raise ValueError(f"default must be at most the maximum {self.maximum:g}; got {self.default!r}")
        return self


def _is_of(kind: str, value: object) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int):
        return kind in ("integer", "number")
    if isinstance(value, float):
        return kind == "number" and value - value == 0  # neither NaN nor infinite
    return kind == "string"


class Manual(SpecModel):
    """A person who presses "Trigger". Always possible; list it to add fields to the form."""

    params: dict[VariableName, ManualParam] = Field(default={}, description="Fields of the form, by name.")


class Trigger(SpecModel):
    """One trigger; exactly one of its kinds is given."""

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            written = '- cron: "0 2 * * *"' if value == "cron" else f"- {value}: true"
            raise ValueError(f"must be a mapping, for example {written}; got {value!r}")  # noqa: TRY004
        return value

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [kind]}
                for kind in ("cron", "onCommit", "onDataChange", "onModelChange", "onDrift", "manual")
            ]
        }
    )

    cron: Annotated[Text, AfterValidator(check_cron), Field(json_schema_extra={"pattern": ROUGHLY})] | None = Field(
        None, description='Schedule in five cron fields, for example "0 2 * * *".'
    )
    timezone: Annotated[Text, AfterValidator(_zone)] = Field(
        "UTC", description="Time zone of cron, for example Europe/Berlin."
    )
    on_commit: Annotated[
        OnCommit | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnCommit)
    ] = Field(None, description="A new commit on the branch or tags of sourceCode: true, or a mapping.")
    on_data_change: Annotated[
        OnDataChange | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnDataChange)
    ] = Field(None, description="A new version of data: true, or a mapping.")
    on_model_change: Annotated[
        OnModelChange | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnModelChange)
    ] = Field(None, description="A new version or a moved alias in the registry: true, or a mapping.")
    on_drift: Annotated[
        OnDrift | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnDrift)
    ] = Field(None, description="A drift check that found drift: true, or a mapping.")
    manual: Annotated[Manual | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | Manual)] = (
        Field(None, description="A person: true, or a mapping with fields of the form.")
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Trigger:
        kinds = [
            name
            for name in ("cron", "on_commit", "on_data_change", "on_model_change", "on_drift", "manual")
            if getattr(self, name) is not None
        ]
        if len(kinds) != 1:
            raise ValueError(
                "a trigger must have exactly one of cron, onCommit, onDataChange, onModelChange, onDrift, manual; got "
                f"{len(kinds)} of them"
            )
        if self.cron is None and "timezone" in self.model_fields_set:
            raise ValueError("timezone needs cron")
        return self

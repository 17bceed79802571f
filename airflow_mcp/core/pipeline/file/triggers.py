"""What starts a pipeline."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from airflow_mcp.core.pipeline.file.cron import check_cron
from airflow_mcp.core.pipeline.file.fields import Duration, Number, RelativePath, SpecModel, Text, VariableName


def _switched_on(value: Any) -> Any:
    if value is False:
        raise ValueError("false starts nothing; leave the trigger out")
    return {} if value is True else value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is {name!r}; allowed: a time zone such as UTC or Europe/Berlin") from None
    return name


class OnCommit(SpecModel):
    """A new commit on the Git remote."""

    path: RelativePath | None = Field(None, description="Only commits that change something below this path.")
    poll: Duration = Field("60s", description="Time between two looks at the remote.")


class OnDataChange(SpecModel):
    """A new version of the data."""

    poll: Duration = Field("60s", description="Time between two looks at the data.")


class OnModelChange(SpecModel):
    """A change in the registry: of this model, or of one that this model depends on."""

    model: Text | None = Field(None, description="Registered model. Default: the pipeline's own.")
    alias: Text | None = Field(None, description="Alias that must move. Default: any new version counts.")
    poll: Duration = Field("60s", description="Time between two looks at the registry.")


class OnDrift(SpecModel):
    """A drift check that found drift."""

    model: Text | None = Field(None, description="Registered model whose checks count. Default: the pipeline's own.")
    experiment_name: Text | None = Field(
        None, description="MLflow experiment of the drift checks. Default: <experimentName>-drift."
    )
    poll: Duration = Field("60s", description="Time between two looks at MLflow.")


ParamValue = str | int | float | bool


class ManualParam(SpecModel):
    """One field of the form that "Trigger" opens."""

    type: Literal["string", "integer", "number", "boolean"] = Field(description="Kind of value.")
    default: ParamValue = Field(description="Value of scheduled runs, and what the form begins with.")
    title: Text | None = Field(None, description="Name in the form. Default: the param's name.")
    description: str | None = Field(None, max_length=2000, description="What it does.")
    enum: tuple[ParamValue, ...] | None = Field(None, min_length=1, description="The only values allowed.")
    minimum: Number | None = Field(None, description="Smallest number allowed.")
    maximum: Number | None = Field(None, description="Greatest number allowed.")
    sets: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=200)] = Field(
        description="Value of config that it replaces, for example training.lr."
    )

    @model_validator(mode="after")
    def _default_fits(self) -> ManualParam:
        for value in (self.default, *(self.enum or ())):
            if not _is_of(self.type, value):
                raise ValueError(f"{value!r} is not of type {self.type}")
        if self.enum is not None and self.default not in self.enum:
            raise ValueError(f"default {self.default!r} is not one of enum: {', '.join(map(repr, self.enum))}")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "number"):
            raise ValueError(f"minimum and maximum belong to numbers, not to type {self.type}")
        if self.minimum is not None and isinstance(self.default, int | float) and self.default < self.minimum:
            raise ValueError(f"default {self.default!r} is below minimum {self.minimum:g}")
        if self.maximum is not None and isinstance(self.default, int | float) and self.default > self.maximum:
            raise ValueError(f"default {self.default!r} is above maximum {self.maximum:g}")
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
    """A person who presses "Trigger"; always possible, listed to add fields to the form."""

    params: dict[VariableName, ManualParam] = Field(default={}, description="Fields of the form, by name.")


class Trigger(SpecModel):
    """One way to start; exactly one of its keys is given."""

    cron: Annotated[Text, AfterValidator(check_cron)] | None = Field(
        None, description='Time table in five cron fields, for example "0 2 * * *".'
    )
    timezone: Annotated[Text, AfterValidator(_zone)] = Field(
        "UTC", description="Time zone of cron, for example Europe/Berlin."
    )
    on_commit: Annotated[
        OnCommit | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnCommit)
    ] = Field(None, description="true, or a mapping: a new commit on the source's branch or tags.")
    on_data_change: Annotated[
        OnDataChange | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnDataChange)
    ] = Field(None, description="true, or a mapping: a new version of data.")
    on_model_change: Annotated[
        OnModelChange | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnModelChange)
    ] = Field(None, description="true, or a mapping: a new version, or a moved alias, in the registry.")
    on_drift: Annotated[
        OnDrift | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | OnDrift)
    ] = Field(None, description="true, or a mapping: a drift check that found drift.")
    manual: Annotated[Manual | None, BeforeValidator(_switched_on, json_schema_input_type=Literal[True] | Manual)] = (
        Field(None, description="true, or fields for the form.")
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
                f"a trigger has exactly one of cron, onCommit, onDataChange, onModelChange, onDrift and manual; this "
                f"one has {len(kinds)}"
            )
        if self.cron is None and "timezone" in self.model_fields_set:
            raise ValueError("timezone belongs to cron")
        return self

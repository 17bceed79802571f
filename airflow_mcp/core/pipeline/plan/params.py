"""The form behind Airflow's "Trigger": the fields of every pipeline, then those of the file."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_mcp.core.pipeline.file.pipeline import PipelineSpec
from airflow_mcp.core.pipeline.file.triggers import ManualParam
from airflow_mcp.core.pipeline.plan.entities import PlannedParam, Template

BUILT_IN = ("data_version", "commit", "start_at", "from_run", "dry_run", "force", "reason")
"""Names of the fields that every form has; no field of the file may have such a name."""


def planned_params(spec: PipelineSpec, stages: tuple[str, ...]) -> tuple[PlannedParam, ...]:
    """Return all fields of the form.

    :param spec: the spec.
    :param stages: all stages in their order; a run may start at any of them.
    """
    version = spec.data.version if spec.data else "latest"
    text_or_none = ("null", "string")
    return (
        PlannedParam("data_version", ("string",), version, "Data version", "Name of a version, or latest."),
        PlannedParam("commit", text_or_none, None, "Commit", "Commit of the code. Empty: as the pipeline file says."),
        PlannedParam(
            "start_at",
            ("string",),
            stages[0],
            "Start at",
            "First stage to run. The stages before it reuse the results of an earlier run.",
            enum=stages,
        ),
        PlannedParam(
            "from_run",
            text_or_none,
            None,
            "From MLflow run",
            "Training to reuse; with candidates, any one of its Dag run. Empty: the newest.",
        ),
        PlannedParam(
            "dry_run", ("boolean",), False, "Dry run", "Train, evaluate and judge, but register and promote nothing."
        ),
        PlannedParam(
            "force", ("boolean",), False, "Train anyway", "Train even if nothing has changed since the last training."
        ),
        PlannedParam(
            "reason",
            text_or_none,
            None,
            "Reason",
            "Why you start this run; recorded with the run and the promotion.",
            max_length=2000,  # tags of MLflow hold a few thousand characters
        ),
        *(_own(name, param) for name, param in _manual_params(spec)),
    )


def config_overrides(spec: PipelineSpec) -> dict[str, Template]:
    """Return which config values the form replaces: dotted key to a template with the field's value as JSON.

    :param spec: the spec.
    """
    return {param.sets: Template(f"{{{{ params['{name}'] | tojson }}}}") for name, param in _manual_params(spec)}


def _manual_params(spec: PipelineSpec) -> Iterator[tuple[str, ManualParam]]:
    for trigger in spec.triggers:
        if trigger.manual is not None:
            yield from trigger.manual.params.items()


def _own(name: str, param: ManualParam) -> PlannedParam:
    return PlannedParam(
        name,
        (param.type,),
        param.default,
        param.title or name,
        param.description or f"Replaces {param.sets} in the config.",
        param.enum,
        param.minimum,
        param.maximum,
        param.sets,
    )

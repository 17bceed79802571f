"""From a pipeline file to the plan of its Dag. The same file gives the same plan, wherever and whenever."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.pipeline.file.fields import seconds_of
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.plan.entities import PipelineFile, PipelinePlan, PlannedNotification, PlannedRetries
from airflow_mcp.core.pipeline.plan.layout import Layout
from airflow_mcp.core.pipeline.plan.params import planned_params
from airflow_mcp.core.pipeline.plan.schedule import planned_schedule
from airflow_mcp.core.pipeline.plan.tasks import planned_tasks
from airflow_mcp.core.pipeline.plan.values import seconds

_NOT_PINNED = {"config", "triggers", "catchup", "notifications", "retries", "environments", "timeouts"}
"""Fields of the spec that do not change what a run does; the config counts by what it holds, wherever it is."""


def build_plan(pipeline: ModelPipeline, environment: str, file: PipelineFile) -> PipelinePlan:
    """Work out what a pipeline will do.

    :param pipeline: a valid pipeline with its environment merged in.
    :param environment: ``dev``, ``test`` or ``prod``.
    :param file: the file it was read from.
    :raises InvalidArgumentError: when the pipeline is not valid after all.
    """
    metadata, spec = pipeline.metadata, pipeline.spec
    layout = Layout(pipeline, environment, file)
    return PipelinePlan(
        dag_id=metadata.name,
        environment=environment,
        description=metadata.description or "",
        owner=metadata.owner,
        tags=metadata.tags,
        model_name=layout.model_name,
        experiment_name=layout.experiment_name,
        stages=layout.stages,
        schedule=planned_schedule(pipeline, layout),
        params=planned_params(spec, layout.stages),
        tasks=tuple(planned_tasks(layout)),
        notifications=tuple(PlannedNotification(each.on, each.webhook, each.format) for each in spec.notifications),
        retries=PlannedRetries(
            spec.retries.attempts, seconds_of(spec.retries.delay), seconds_of(spec.retries.max_delay)
        ),
        run_timeout=seconds(spec.timeouts.run),
        spec_hash=spec_hash(pipeline, environment, file),
        source_file=file.path,
        source_text=file.text,
    )


def spec_hash(pipeline: ModelPipeline, environment: str, file: PipelineFile) -> str:
    """Hash what a run of the pipeline does.

    What only a reader sees (comments, layout, descriptions, owner, tags), what starts runs, who hears of them, and
    how long and how often tasks are tried, do not count. Nor do fields that are not given: a version of this package
    that knows one more makes no hash another.

    :param pipeline: the pipeline with its environment merged in.
    :param environment: its name.
    :param file: the file it was read from; a config file beside it counts.
    """
    values: dict[str, Any] = pipeline.spec.model_dump(mode="json", exclude=_NOT_PINNED, exclude_none=True)
    overrides = {
        name: param.sets
        for trigger in pipeline.spec.triggers
        if trigger.manual is not None
        for name, param in trigger.manual.params.items()
    }
    return fingerprint(
        {
            "name": pipeline.metadata.name,
            "environment": environment,
            "spec": values,
            "config": None if file.config is None else dict(file.config),
            "overrides": overrides,
        }
    )

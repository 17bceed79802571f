"""The plan of a pipeline file; the same file gives the same plan, anywhere and at any time."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.plan.entities import PipelineFile, PipelinePlan, PlannedNotification, PlannedRetries
from airflow_mcp.core.pipeline.plan.layout import Layout
from airflow_mcp.core.pipeline.plan.params import planned_params
from airflow_mcp.core.pipeline.plan.schedule import planned_schedule
from airflow_mcp.core.pipeline.plan.tasks import planned_tasks, release_of
from airflow_mcp.core.pipeline.plan.values import seconds

_NOT_PINNED = {"config", "triggers", "catchup", "notifications", "retries", "environments", "timeouts"}
"""Fields of spec that the hash leaves out: they do not change what a run does. The config is hashed by its values."""


def build_plan(pipeline: ModelPipeline, environment: str, file: PipelineFile) -> PipelinePlan:
    """Plan what a pipeline will do.

    :param pipeline: a valid pipeline, merged with its environment.
    :param environment: ``dev``, ``test`` or ``prod``.
    :param file: the file it was read from.
    :raises InvalidArgumentError: when the pipeline turns out not to be valid.
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
        release=release_of(layout),
    )


def spec_hash(pipeline: ModelPipeline, environment: str, file: PipelineFile) -> str:
    """Hash what a run of the pipeline does.

    Comments, layout, descriptions, owner, tags, triggers, notifications, retries and time limits do not count. Nor do
    fields that are not given, so that a new optional field in a later version changes no hash.

    :param pipeline: the pipeline, merged with its environment.
    :param environment: its name.
    :param file: the file it was read from, with the config beside it.
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

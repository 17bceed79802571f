"""What starts a pipeline: cron schedules, and external changes that event triggers watch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.triggers import Trigger
from airflow_mcp.core.pipeline.plan.entities import EventKind, EventSource, Schedule
from airflow_mcp.core.pipeline.plan.layout import Layout
from airflow_mcp.exceptions import InvalidArgumentError


def planned_schedule(pipeline: ModelPipeline, layout: Layout) -> Schedule:
    """Return what starts a pipeline, apart from a person.

    :param pipeline: the pipeline, merged with its environment.
    :param layout: the same pipeline, with source, model and experiment.
    :raises InvalidArgumentError: when a trigger watches something that the pipeline does not have.
    """
    spec = pipeline.spec
    crons = tuple((each.cron, each.timezone) for each in spec.triggers if each.cron is not None)
    found: dict[str, EventSource] = {}
    for trigger in spec.triggers:
        for kind, arguments in _events(trigger, pipeline, layout):
            before = sum(source.kind == kind for source in found.values())
            name = f"{pipeline.metadata.name}.{kind}{f'-{before + 1}' if before else ''}"
            found[name] = EventSource(kind, name, arguments)
    return Schedule(crons, spec.catchup, tuple(found.values()))


def _events(trigger: Trigger, pipeline: ModelPipeline, layout: Layout) -> Iterator[tuple[EventKind, dict[str, Any]]]:
    if (commit := trigger.on_commit) is not None:
        yield "commit", _given(**_source(layout), path=commit.path, poll_seconds=seconds_of(commit.poll))
    if (data := trigger.on_data_change) is not None:
        yield "data", _given(**_data(pipeline, layout), poll_seconds=seconds_of(data.poll))
    if (model := trigger.on_model_change) is not None:
        name = model.model or layout.model_name
        watched = {"aliases": [model.alias]} if model.alias else {}
        events = ["alias_moved" if model.alias else "new_version"]
        yield "model", {"models": [name], "events": events, **watched, "poll_seconds": seconds_of(model.poll)}
    if (drift := trigger.on_drift) is not None:
        name = drift.model or layout.model_name
        experiment = drift.experiment_name or f"{layout.experiment_name}-drift"
        yield "drift", _given(model_name=name, experiment_name=experiment, poll_seconds=seconds_of(drift.poll))


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _source(layout: Layout) -> Mapping[str, str]:
    if layout.source is None:
        raise InvalidArgumentError("onCommit requires a Git URL in sourceCode, which is a folder")
    return {name: value for name, value in layout.source.items() if name != "path"}


def _data(pipeline: ModelPipeline, layout: Layout) -> dict[str, Any]:
    data = pipeline.spec.data
    if data is None:
        raise InvalidArgumentError("onDataChange requires spec.data, which is missing")
    if (tracked := data.tracked) is not None:
        return {tracked.kind: _given(**layout.repository_of(tracked), path=tracked.path, revision=tracked.revision)}
    return _given(root=data.root, uri=data.uri)

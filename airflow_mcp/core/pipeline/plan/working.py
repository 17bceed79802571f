"""The tasks that make a model: begin, pin the data, build, train, and the user's own steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mcp.core.pipeline.file.source import Data
from airflow_mcp.core.pipeline.file.stages import BuildStage, CandidateSpec, CustomStage, TrainStage
from airflow_mcp.core.pipeline.plan.deploying import needed_to_deploy
from airflow_mcp.core.pipeline.plan.entities import PlannedTask, Reference, TaskKind, Template
from airflow_mcp.core.pipeline.plan.layout import BEGIN, PIN_DATA, Layout, task_id
from airflow_mcp.core.pipeline.plan.params import config_overrides
from airflow_mcp.core.pipeline.plan.rules import filled_in
from airflow_mcp.core.pipeline.plan.values import merge, present, reused, reuses, seconds

_FORCE = Template("{{ 'train' if params.force else 'reuse' }}")


def begin_task(layout: Layout) -> PlannedTask:
    """Plan the task that pins what the run is about: code, data version, reason and first stage.

    :param layout: the pipeline.
    """
    arguments: dict[str, Any] = {
        "code": dict(layout.source) if layout.source else None,
        "model_name": layout.model_name,
        "experiment_name": layout.experiment_name,
        "stages": list(layout.stages),
        "start_at": Template("{{ params.start_at }}"),
        "from_run": Template("{{ params.from_run or '' }}"),
        "revision": Template("{{ params.commit or '' }}"),
        "data_version": Template("{{ params.data_version }}"),
        "reason": Template("{{ params.reason or '' }}"),
    }
    if layout.spec.candidates:
        arguments["candidates"] = {each.name: task_id("train", each) for each in layout.spec.candidates}
    arguments |= needed_to_deploy(layout)
    if layout.environment == "prod" and layout.source is not None:
        arguments["require_release_tag"] = layout.source.get("tags") or layout.source.get("revision")
    return PlannedTask(BEGIN, "begin", BEGIN, arguments, (), filled_in("begin"))


def build_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``build``; without a command it compiles the training script.

    :param layout: the pipeline.
    """
    stage = layout.stage(BuildStage)
    if stage is not None:
        command = stage.command or ("python", "-m", "py_compile", layout.spec.training_script)
        yield _step(layout, "build", stage, command, layout.build_image)


def own_step(layout: Layout, stage: CustomStage) -> PlannedTask:
    """Plan a step of the user's own.

    :param layout: the pipeline.
    :param stage: the step.
    """
    return _step(layout, "step", stage, stage.command, stage.image or layout.spec.image)


def train_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``train``: the data are pinned first, then every candidate is trained.

    :param layout: the pipeline.
    """
    if layout.spec.data is not None:
        yield _pin_data(layout, layout.spec.data)
    for candidate in layout.candidates:
        yield _train(layout, candidate)


def _pin_data(layout: Layout, data: Data) -> PlannedTask:
    arguments = {"version": Reference(BEGIN, "data_version"), **_place_of_data(layout, data)}
    return PlannedTask(PIN_DATA, "pin_data", PIN_DATA, arguments, (BEGIN,), filled_in("pin_data"))


def _place_of_data(layout: Layout, data: Data) -> dict[str, Any]:
    if data.uri is not None:
        return {"uris": present(train=data.uri, evaluation=data.evaluation_uri)}
    tracked = data.tracked
    if tracked is None:
        return {"root": data.root, "files": present(train=data.train, evaluation=data.evaluation)}
    files = present(train=tracked.path, evaluation=tracked.evaluation_path)
    given = present(revision=tracked.revision, remote=data.dvc.remote if data.dvc else None)
    unchecked = {} if tracked.verify else {"verify": False}
    return {tracked.kind: {**layout.repository_of(tracked), **given, **unchecked}, "files": files}


def _step(
    layout: Layout, kind: TaskKind, stage: BuildStage | CustomStage, command: tuple[str, ...], image: str | None
) -> PlannedTask:
    # A step whose reports the gate judges must run whenever the gate does, not only when the step itself is asked for.
    runs_with = "gate" if stage.name in layout.gate.report_stages else stage.name
    arguments = {
        "experiment_name": layout.experiment_name,
        "command": list(command),
        "dry_run": reuses(runs_with),
        **({"reports": list(stage.reports)} if stage.reports else {}),
        **(layout.checkout or {"folder": layout.folder}),
        **layout.workload(stage, image, stage.resources),
    }
    limits = layout.spec.timeouts
    timeout = seconds(limits.build if kind == "build" else limits.step)
    origin, needs = layout.origin(stage.name), layout.needs(stage.name)
    return PlannedTask(stage.name, kind, stage.name, arguments, needs, origin, timeout)


def _train(layout: Layout, candidate: CandidateSpec | None) -> PlannedTask:
    spec, stage = layout.spec, layout.stage(TrainStage)
    image = (candidate.image if candidate else None) or (stage.image if stage else None) or layout.build_image
    resources = (candidate.resources if candidate else None) or (stage.resources if stage else None)
    config = merge(layout.file.config or {}, candidate.config if candidate else {})
    arguments = {
        "experiment_name": layout.experiment_name,
        "model_name": layout.model_name,
        "script": layout.script(candidate),
        "arguments": list((candidate.arguments if candidate else None) or spec.arguments),
        "config": config or None,
        "config_overrides": config_overrides(spec) or None,
        "dataset": Reference(PIN_DATA, "train") if spec.data else None,
        "checkpoint_root": stage.checkpoints if stage else None,
        "on_unchanged": _on_unchanged(layout, stage),
        "reason": Reference(BEGIN, "reason"),
        "reuse_run_id": reused(candidate.name if candidate else "run_id"),
        **layout.checkout,
        **layout.workload(stage, image, resources),
        "kubernetes": {**spec.kubernetes, **(stage.kubernetes if stage else {})},
    }
    pinned = (PIN_DATA,) if spec.data else ()
    return PlannedTask(
        task_id("train", candidate),
        "train",
        "train",
        {name: value for name, value in arguments.items() if value not in (None, [], {})},
        layout.needs("train", *layout.before("train"), *pinned),
        layout.origin("train") if candidate is None else _candidate_line(layout, candidate),
        seconds(spec.timeouts.train),
    )


def _on_unchanged(layout: Layout, stage: TrainStage | None) -> str | Template:
    if layout.spec.candidates or (stage is not None and stage.on_unchanged == "train"):
        return "train"
    return _FORCE


def _candidate_line(layout: Layout, candidate: CandidateSpec) -> str:
    return layout.file.origin("spec", "candidates", layout.spec.candidates.index(candidate))

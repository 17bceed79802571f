"""The tasks of a pipeline: which there are, with which arguments, and what each needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow_mcp.core.metrics import metric_direction, metric_name
from airflow_mcp.core.pipeline.file.fields import seconds_of
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.source import Data, TrackedData
from airflow_mcp.core.pipeline.file.stages import (
    STAGES,
    BuildStage,
    CandidateSpec,
    CustomStage,
    EvaluateStage,
    GateStage,
    RegisterStage,
    TrainStage,
    WorkloadResources,
)
from airflow_mcp.core.pipeline.plan import registry
from airflow_mcp.core.pipeline.plan.entities import PipelineFile, PlannedTask, Reference, TaskKind, Template
from airflow_mcp.core.pipeline.plan.gate import (
    APPROVE,
    RECORD,
    approval_tasks,
    asks,
    comparisons,
    gate_mode,
    gate_rules,
    slice_columns,
)
from airflow_mcp.core.pipeline.plan.params import config_overrides
from airflow_mcp.core.pipeline.plan.replay import replay_arguments, replay_rule
from airflow_mcp.core.pipeline.plan.rules import FilledStage, filled_in
from airflow_mcp.core.pipeline.plan.thresholds import threshold_rule
from airflow_mcp.core.pipeline.plan.values import adopted, adopts, merge, present, references, resource_arguments, runs

BEGIN, PIN_DATA, SELECT, REPLAY, OUTCOME = "begin", "pin_data", "select", "replay", "outcome"
_FORCE = Template("{{ 'train' if params.force else 'reuse' }}")


class TaskPlanner:
    """Works out the tasks of one pipeline.

    :param pipeline: the pipeline with its environment merged in.
    :param environment: ``dev``, ``test`` or ``prod``; prod runs releases only.
    :param file: the file it was read from.
    """

    def __init__(self, pipeline: ModelPipeline, environment: str, file: PipelineFile) -> None:
        self._spec = pipeline.spec
        self._environment = environment
        self._file = file
        self._named = {stage.name: (stage, index) for index, stage in enumerate(self._spec.stages)}
        self.model_name = self._spec.model.name or pipeline.metadata.name
        self.experiment = self._spec.model.experiment or pipeline.metadata.name

    # --- what there is -------------------------------------------------------------------------------------------

    @cached_property
    def built_in(self) -> tuple[str, ...]:
        """The built-in stages of this pipeline in their order; ``build`` only when the file names it."""
        wanted = STAGES[: STAGES.index(self._spec.stop_after) + 1]
        return tuple(name for name in wanted if name != "build" or "build" in self._named)

    @cached_property
    def custom(self) -> tuple[CustomStage, ...]:
        """Steps of the user's own, in the order of the file."""
        return tuple(stage for stage in self._spec.stages if isinstance(stage, CustomStage))

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """All stages, each after what it needs: a run may start at any of them."""
        needs: dict[str, set[str]] = {stage.name: set(stage.needs) for stage in self.custom}
        for before, name in zip(("", *self.built_in), self.built_in, strict=False):
            named = self._named.get(name)
            needs[name] = {*(named[0].needs if named else ()), *([before] if before else [])}
            needs[name] |= set(self._gate_stage.report_stages) if name == "gate" and self._gate_stage else set()
        order: list[str] = []
        candidates = [*self.built_in, *(stage.name for stage in self.custom)]
        while candidates:
            name = next((each for each in candidates if not (needs[each] - set(order)) & needs.keys()), candidates[0])
            order.append(name)
            candidates.remove(name)
        return tuple(order)

    @cached_property
    def source(self) -> Mapping[str, str] | None:
        """Where the code comes from; None for a folder beside the file."""
        code = self._spec.source_code
        if not code.is_remote:
            return None
        given = {"url": code.url, "ref": code.ref, "tags": code.tags, "path": code.path, "connection": code.connection}
        return {name: value for name, value in given.items() if value}

    def config(self, candidate: CandidateSpec | None = None) -> dict[str, Any]:
        """Give the config of a training: that of the pipeline, and over it the candidate's.

        :param candidate: the candidate, if there are several.
        """
        return merge(self._file.config or {}, candidate.config if candidate else {})

    def tasks(self) -> Iterator[PlannedTask]:
        """Give the tasks, each after what it needs; a task needs those whose results it takes."""
        for task in self._tasks():
            taken = (reference.task_id for reference in references(task.arguments))
            yield replace(task, needs=tuple(dict.fromkeys((*task.needs, *taken))))

    def _tasks(self) -> Iterator[PlannedTask]:
        yield self._begin()
        pinned = self._spec.data is None
        for name in self.stages:
            if name == "train" and not pinned:
                yield self._pin_data()
                pinned = True
            yield from self._of_stage(name)
        if "gate" in self.built_in:
            yield self._outcome()

    def _of_stage(self, name: str) -> Iterator[PlannedTask]:
        if name == "train":
            for candidate in self._candidates:
                yield self._train(candidate)
        elif name == "evaluate":
            for candidate in self._candidates:
                yield self._evaluate(candidate)
            if self._spec.candidates:
                yield self._select()
            if self._replays:
                yield self._replay()
        elif name == "register":
            yield self._register()
            yield self._load_check()
        elif name in STAGES:
            yield getattr(self, f"_{name}")()
            if name == "gate" and asks(self._gate_stage):
                yield from approval_tasks(self.model_name)
        else:
            yield self._custom(next(stage for stage in self.custom if stage.name == name))

    # --- edges and origins -----------------------------------------------------------------------------------------

    @property
    def _candidates(self) -> tuple[CandidateSpec | None, ...]:
        return self._spec.candidates or (None,)

    def _task_ids(self, stage: str) -> tuple[str, ...]:
        """Name the tasks whose end is the end of a stage."""
        if stage in ("train", "evaluate"):
            if stage == "evaluate" and self._spec.candidates:
                return (SELECT,)
            return tuple(_task_id(stage, candidate) for candidate in self._candidates)
        return (registry.LOAD_CHECK,) if stage == "register" else (stage,)

    def _needs(self, stage: str, *always: str) -> tuple[str, ...]:
        """Name what the tasks of a stage wait for: what the file says, the stage before, and ``begin`` otherwise."""
        named = self._named.get(stage)
        known = {*self.built_in, *(each.name for each in self.custom)}
        wanted = [name for name in (named[0].needs if named else ()) if name in known]
        ids = [task_id for name in wanted for task_id in self._task_ids(name)]
        return tuple(dict.fromkeys([*always, *ids])) or (BEGIN,)

    def _before(self, stage: str) -> tuple[str, ...]:
        """Name the tasks of the built-in stage before a stage."""
        position = self.built_in.index(stage)
        return self._task_ids(self.built_in[position - 1]) if position else ()

    def _origin(self, stage: FilledStage) -> str:
        named = self._named.get(stage)
        if named is None:
            return filled_in(stage)
        return self._file.origin("spec", "stages", named[1])

    def _stage(self, name: str) -> Any:
        named = self._named.get(name)
        return None if named is None else named[0]

    @property
    def _gate_stage(self) -> GateStage | None:
        stage: GateStage | None = self._stage("gate")
        return stage

    # --- arguments that many tasks share ---------------------------------------------------------------------------

    def _workload(
        self,
        stage: BuildStage | TrainStage | EvaluateStage | RegisterStage | CustomStage | None,
        image: str | None,
        resources: WorkloadResources | None,
    ) -> dict[str, Any]:
        spec = self._spec
        env = stage.env if isinstance(stage, CustomStage) else {}
        given = {
            "runtime": spec.runtime,
            "image": image,
            "workload_resources": resource_arguments(resources or spec.resources),
            "env": {**spec.env, **env},
            "connection_env": {**spec.secret_env, **(stage.secret_env if stage else {})},
            "kubernetes": spec.kubernetes,
        }
        return {name: value for name, value in given.items() if value}

    def _timeout(self, name: str) -> int | None:
        limit = getattr(self._spec.timeouts, name)
        return None if limit is None else seconds_of(limit)

    @property
    def _checkout(self) -> dict[str, Any]:
        """The source as workloads get it: at the commit that ``begin`` has pinned."""
        if self.source is None:
            return {}
        kept = {name: self.source[name] for name in ("url", "path", "connection") if name in self.source}
        return {"source": {**kept, "commit": Reference(BEGIN, "commit")}}

    def _folder(self) -> str:
        code = self._spec.source_code
        return os.path.normpath(os.path.join(self._file.folder, code.url, code.path or ""))  # noqa: PTH118

    def _script(self, candidate: CandidateSpec | None) -> str:
        script = (candidate.training_script if candidate else None) or self._spec.training_script
        return script if self.source is not None else str(Path(self._folder(), script))

    @property
    def _build_image(self) -> str | None:
        build = self._stage("build")
        return build.image if isinstance(build, BuildStage) and build.image else self._spec.image

    # --- the tasks -------------------------------------------------------------------------------------------------

    def _begin(self) -> PlannedTask:
        arguments: dict[str, Any] = {
            "source": dict(self.source) if self.source else None,
            "model_name": self.model_name,
            "experiment_name": self.experiment,
            "stages": list(self.stages),
            "start_at": Template("{{ params.start_at }}"),
            "from_run": Template("{{ params.from_run or '' }}"),
            "commit": Template("{{ params.commit or '' }}"),
            "data_version": Template("{{ params.data_version }}"),
            "reason": Template("{{ params.reason or '' }}"),
        }
        if self._spec.candidates:
            arguments["candidates"] = {each.name: _task_id("train", each) for each in self._spec.candidates}
        if self._environment == "prod" and self.source is not None:
            arguments["require_release_tag"] = self.source.get("tags") or self.source.get("ref")
        return PlannedTask(BEGIN, "begin", BEGIN, arguments, (), filled_in("begin"))

    def _pin_data(self) -> PlannedTask:
        data = self._spec.data
        assert data is not None  # noqa: S101
        arguments = {"version": Reference(BEGIN, "data_version"), **self._place_of_data(data)}
        return PlannedTask(PIN_DATA, "pin_data", PIN_DATA, arguments, (BEGIN,), filled_in("pin_data"))

    def _place_of_data(self, data: Data) -> dict[str, Any]:
        if data.uri is not None:
            return {"uris": present(train=data.uri, evaluation=data.evaluation_uri)}
        tracked = data.tracked
        if tracked is None:
            return {"root": data.root, "files": present(train=data.train, evaluation=data.evaluation)}
        files = present(train=tracked.path, evaluation=tracked.evaluation_path)
        given = present(rev=tracked.rev, remote=data.dvc.remote if data.dvc else None)
        unchecked = {} if tracked.verify else {"verify": False}
        return {tracked.kind: {**self.repository_of(tracked), **given, **unchecked}, "files": files}

    def repository_of(self, data: TrackedData) -> dict[str, str]:
        """Give Git URL and connection of the repository that tracks data: the source's unless it names another.

        :param data: the data.
        """
        if data.repo is not None or self.source is None:
            return present(repo=data.repo, connection=data.connection)
        return present(repo=self.source["url"], connection=data.connection or self.source.get("connection"))

    def _build(self) -> PlannedTask:
        stage: BuildStage = self._stage("build")
        command = stage.command or ("python", "-m", "py_compile", self._spec.training_script)
        return self._step("build", stage, command, self._build_image)

    def _custom(self, stage: CustomStage) -> PlannedTask:
        return self._step("step", stage, stage.command, stage.image or self._spec.image)

    def _step(
        self, kind: TaskKind, stage: BuildStage | CustomStage, command: tuple[str, ...], image: str | None
    ) -> PlannedTask:
        arguments = {
            "experiment_name": self.experiment,
            "command": list(command),
            "enabled": runs(self._judged_with(stage.name)),
            **({"reports": list(stage.reports)} if stage.reports else {}),
            **(self._checkout or {"folder": self._folder()}),
            **self._workload(stage, image, stage.resources),
        }
        origin = self._file.origin("spec", "stages", self._named[stage.name][1])
        return PlannedTask(
            stage.name, kind, stage.name, arguments, self._needs(stage.name), origin, self._timeout(kind)
        )

    def _judged_with(self, name: str) -> str:
        """Name the stage that a step runs with: one whose reports the gate judges runs whenever the gate does."""
        return "gate" if self._gate_stage is not None and name in self._gate_stage.report_stages else name

    def _train(self, candidate: CandidateSpec | None) -> PlannedTask:
        stage: TrainStage | None = self._stage("train")
        own = candidate or stage
        image = (candidate.image if candidate else None) or (stage.image if stage else None) or self._build_image
        resources = (own.resources if own else None) or (stage.resources if stage else None)
        arguments = {
            "experiment_name": self.experiment,
            "model_name": self.model_name,
            "script": self._script(candidate),
            "arguments": list((candidate.arguments if candidate else None) or self._spec.arguments),
            "config": self.config(candidate) or None,
            "config_overrides": config_overrides(self._spec) or None,
            "dataset": Reference(PIN_DATA, "train") if self._spec.data else None,
            "checkpoint_root": stage.checkpoints if stage else None,
            "on_unchanged": self._on_unchanged(stage),
            "reason": Reference(BEGIN, "reason"),
            "adopt_run_id": adopted(candidate.name if candidate else "run_id"),
            **self._checkout,
            **self._workload(stage, image, resources),
        }
        pinned = (PIN_DATA,) if self._spec.data else ()
        return PlannedTask(
            _task_id("train", candidate),
            "train",
            "train",
            {name: value for name, value in arguments.items() if value not in (None, [])},
            self._needs("train", *self._before("train"), *pinned),
            self._origin("train") if candidate is None else self._candidate_line(candidate),
            self._timeout("train"),
        )

    def _on_unchanged(self, stage: TrainStage | None) -> str | Template:
        if self._spec.candidates or (stage is not None and stage.on_unchanged == "train"):
            return "train"
        return _FORCE

    def _candidate_line(self, candidate: CandidateSpec) -> str:
        return self._file.origin("spec", "candidates", self._spec.candidates.index(candidate))

    def _evaluate(self, candidate: CandidateSpec | None) -> PlannedTask:
        stage = self._stage("evaluate") or EvaluateStage(name="evaluate")
        train, data = _task_id("train", candidate), self._spec.data
        arguments: dict[str, Any] = {
            "run_id": Reference(train, "run_id"),
            "model_uri": Reference(train, "model_uri"),
            "model_name": self.model_name,
            "latency_calls": stage.latency_calls,
            "adopt": adopts("evaluate"),
            **self._workload(stage, stage.image, stage.resources),
        }
        if data is not None and data.evaluates:
            arguments |= {
                "dataset": Reference(PIN_DATA, "evaluation"),
                "target": data.target,
                "model_type": data.model_type,
                "slices": slice_columns(stage.slices, self._gate_stage),
            }
            if stage.importance_rows is not None:
                arguments["importance_rows"] = stage.importance_rows
            if compared := comparisons(self._gate_stage):
                arguments["comparisons"] = compared
            if data.positive_label is not None:
                arguments["positive_label"] = data.positive_label
        return PlannedTask(
            _task_id("evaluate", candidate),
            "evaluate",
            "evaluate",
            arguments,
            self._needs("evaluate", train),
            self._origin("evaluate"),
            self._timeout("evaluate"),
        )

    def _select(self) -> PlannedTask:
        chosen = self._spec.select
        assert chosen is not None  # noqa: S101
        ids = [(each.name, _task_id("train", each), _task_id("evaluate", each)) for each in self._spec.candidates]
        arguments = {
            "candidates": [
                {
                    "name": name,
                    "run_id": Reference(train, "run_id"),
                    "model_uri": Reference(train, "model_uri"),
                    "identity": Reference(train, "identity"),
                    "evidence_identity": Reference(evaluate, "identity"),
                }
                for name, train, evaluate in ids
            ],
            "metric": metric_name(chosen.metric),
            "direction": chosen.direction or metric_direction(chosen.metric),
        }
        needs = tuple(evaluate for _, _, evaluate in ids)
        return PlannedTask(SELECT, "select", "evaluate", arguments, needs, self._file.origin("spec", "select"))

    @property
    def _replays(self) -> bool:
        """Whether logged requests are replayed: only where a gate judges the replay."""
        return self._spec.replay is not None and "gate" in self.built_in

    def _replay(self) -> PlannedTask:
        """Replay after the evaluation: both speak of the same champion."""
        stage = self._stage("evaluate") or EvaluateStage(name="evaluate")
        assert self._spec.replay is not None  # noqa: S101
        assert self._spec.data is not None  # noqa: S101
        arguments = {
            "run_id": Reference(self._chosen, "run_id"),
            "model_uri": Reference(self._chosen, "model_uri"),
            "model_name": self.model_name,
            **replay_arguments(self._spec.replay, self._spec.data),
            **self._workload(stage, stage.image, stage.resources),
        }
        needs, origin = self._task_ids("evaluate"), self._file.origin("spec", "replay")
        return PlannedTask(REPLAY, "replay", "evaluate", arguments, needs, origin, self._timeout("evaluate"))

    @property
    def _chosen(self) -> str:
        """The task whose run goes on."""
        return SELECT if self._spec.candidates else "train"

    @property
    def thresholds(self) -> tuple[str, ...]:
        """The gate's rules: those of ``evaluate.metricsThreshold``, then those of ``gate.thresholds``."""
        evaluate, gate = self._stage("evaluate"), self._stage("gate")
        rules = [
            threshold_rule(name, bound) for name, bound in (evaluate.metrics_threshold if evaluate else {}).items()
        ]
        return tuple(dict.fromkeys([*rules, *(gate.thresholds if gate else ())]))

    def _gate(self) -> PlannedTask:
        stage = self._gate_stage
        evidence = (
            Reference(SELECT, "evidence_identity") if self._spec.candidates else Reference("evaluate", "identity")
        )
        arguments = {
            "run_id": Reference(self._chosen, "run_id"),
            "model_name": self.model_name,
            "thresholds": list(self.thresholds),
            "evidence_identity": evidence,
            "on_failed": stage.on_failed if stage else "fail",
            "adopt": adopts("gate"),
            **gate_rules(stage),
        }
        if stage is not None:
            arguments |= gate_mode(stage.mode)
        if asks(self._gate_stage):
            arguments["on_inconclusive"] = {"ask": APPROVE}
        if self._spec.replay is not None and self._replays:
            arguments |= {"replay": replay_rule(self._spec.replay), "replay_identity": Reference(REPLAY, "identity")}
        replayed = (REPLAY,) if self._replays else ()
        return PlannedTask(
            "gate",
            "gate",
            "gate",
            arguments,
            self._needs("gate", *self._before("gate"), *replayed),
            self._origin("gate"),
        )

    def _register(self) -> PlannedTask:
        arguments = registry.register_arguments(self.model_name, self._chosen)
        needs = self._needs("register", *self._before("register"), *((RECORD,) if asks(self._gate_stage) else ()))
        if asks(self._gate_stage):
            arguments["trigger_rule"] = "none_failed_min_one_success"
        return PlannedTask("register", "register", "register", arguments, needs, self._origin("register"))

    def _load_check(self) -> PlannedTask:
        stage = self._stage("register") or RegisterStage(name="register")
        workload = self._workload(stage, stage.image, stage.resources)
        arguments = registry.load_check_arguments(self.model_name, stage) | workload
        origin = self._origin("register") if "register" in self._named else filled_in("load_check")
        timeout = self._timeout("load_check")
        return PlannedTask(registry.LOAD_CHECK, "load_check", "register", arguments, ("register",), origin, timeout)

    def _promote(self) -> PlannedTask:
        needs, arguments = self._needs("promote", *self._before("promote")), registry.promote_arguments(self.model_name)
        return PlannedTask("promote", "promote", "promote", arguments, needs, self._origin("promote"))

    def _outcome(self) -> PlannedTask:
        """End the run with what came of it; a reference to the training would make this task wait for that alone."""
        arguments = {
            "model_name": self.model_name,
            "run_id": Template(f"{{{{ ti.xcom_pull(task_ids='{self._chosen}', key='run_id') or '' }}}}"),
        }
        last = self.built_in[-1]
        asked = (RECORD,) if last == "gate" and asks(self._gate_stage) else ()
        needs = (*self._task_ids(last), *asked)
        return PlannedTask(OUTCOME, "outcome", last, arguments, needs, filled_in("outcome"))


def _task_id(stage: str, candidate: CandidateSpec | None) -> str:
    return stage if candidate is None else f"{stage}_{candidate.name}"

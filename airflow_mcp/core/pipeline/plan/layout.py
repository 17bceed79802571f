"""The stages of one pipeline in their order, and what its tasks share: edges, origins, code and workload."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from airflow_mcp.core.pipeline.file.fields import SpecModel
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.replay import Replay
from airflow_mcp.core.pipeline.file.source import Data, TrackedData
from airflow_mcp.core.pipeline.file.stages import (
    ApprovalStage,
    BuildStage,
    CandidateSpec,
    CustomStage,
    DeployStage,
    EvaluateStage,
    GateStage,
    RegisterStage,
    TrainStage,
    WorkloadResources,
    approval_in,
    built_in_stages,
)
from airflow_mcp.core.pipeline.plan.entities import PipelineFile, Reference
from airflow_mcp.core.pipeline.plan.rules import FilledStage, filled_in
from airflow_mcp.core.pipeline.plan.values import present

BEGIN, PIN_DATA, SELECT, REPLAY = "begin", "pin_data", "select", "replay"
APPROVE, RECORD_APPROVAL, LOAD_CHECK, OUTCOME = "approve", "record_approval", "load_check", "outcome"
DEPLOY_SERVER, ROLLOUT = "deploy_server", "rollout"
ASK_RELEASE, REQUEST_RELEASE = "ask_release", "request_release"
_S = TypeVar("_S", bound=SpecModel)


class Layout:
    """What all tasks of one pipeline need to know about it.

    :param pipeline: the pipeline, merged with its environment.
    :param environment: ``dev``, ``test`` or ``prod``; prod runs releases only.
    :param file: the file it was read from.
    """

    def __init__(self, pipeline: ModelPipeline, environment: str, file: PipelineFile) -> None:
        self.spec = pipeline.spec
        self.environment = environment
        self.file = file
        self.dag_id = pipeline.metadata.name
        self.model_name = self.spec.model.name or pipeline.metadata.name
        self.experiment_name = self.spec.model.experiment_name or pipeline.metadata.name
        self._named = {stage.name: (stage, index) for index, stage in enumerate(self.spec.stages)}

    # --- stages ----------------------------------------------------------------------------------------------------

    @cached_property
    def built_in(self) -> tuple[str, ...]:
        """The built-in stages of this pipeline in their order."""
        return built_in_stages(self._named, self.spec.stop_after, asks=self.approval is not None)

    @cached_property
    def approval(self) -> ApprovalStage | None:
        """The stage that asks people before the release; None when nobody is asked in this environment."""
        return approval_in(self.spec.stages, self.environment)

    @cached_property
    def released(self) -> tuple[str, ...]:
        """The built-in stages of the release Dag: those after the approval."""
        return self.built_in[self.built_in.index("approval") + 1 :] if self.approval is not None else ()

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The built-in stages of the pipeline's own Dag."""
        return tuple(name for name in self.built_in if name not in self.released)

    @cached_property
    def custom(self) -> tuple[CustomStage, ...]:
        """The user's own steps, in the order of the file."""
        return tuple(stage for stage in self.spec.stages if isinstance(stage, CustomStage))

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """All stages of the pipeline's own Dag, each after what it needs: a run may start at any of them."""
        needs: dict[str, set[str]] = {stage.name: set(stage.needs) for stage in self.custom}
        for before, name in zip(("", *self.trained), self.trained, strict=False):
            needs[name] = {*self._named_needs(name), *([before] if before else [])}
            needs[name] |= set(self.gate.report_stages) if name == "gate" else set()
        order: list[str] = []
        left = [*self.trained, *(stage.name for stage in self.custom)]
        while left:
            name = next((each for each in left if not (needs[each] - set(order)) & needs.keys()), left[0])
            order.append(name)
            left.remove(name)
        return tuple(order)

    def stage(self, kind: type[_S]) -> _S | None:
        """Return the built-in stage of a kind; None when the file does not name it.

        :param kind: its model.
        """
        return next((stage for stage in self.spec.stages if isinstance(stage, kind)), None)

    @cached_property
    def gate(self) -> GateStage:
        """The stage ``gate``, or its defaults when the file does not name it."""
        return self.stage(GateStage) or GateStage(name="gate")

    @cached_property
    def evaluate(self) -> EvaluateStage:
        """The stage ``evaluate``, or its defaults when the file does not name it."""
        return self.stage(EvaluateStage) or EvaluateStage(name="evaluate")

    @cached_property
    def deploy(self) -> DeployStage:
        """The stage ``deploy``, or its defaults when the file does not name it."""
        return self.stage(DeployStage) or DeployStage(name="deploy")

    @property
    def candidates(self) -> tuple[CandidateSpec | None, ...]:
        """The candidates; a single None when the pipeline trains one model."""
        return self.spec.candidates or (None,)

    @property
    def chosen(self) -> str:
        """The task whose training run all later tasks use."""
        return SELECT if self.spec.candidates else "train"

    @property
    def replayed(self) -> tuple[Replay, Data] | None:
        """What is replayed and the data behind it; None when no gate judges a replay."""
        replay, data = self.spec.replay, self.spec.data
        return None if replay is None or data is None or "gate" not in self.built_in else (replay, data)

    @property
    def asks_a_person(self) -> bool:
        """Whether a person decides when the gate is inconclusive."""
        return self.gate.escalation == "ask"

    # --- edges and origins -----------------------------------------------------------------------------------------

    def task_ids(self, stage: str) -> tuple[str, ...]:
        """Return the tasks with which a stage ends.

        :param stage: name of the stage.
        """
        if stage == "evaluate" and self.spec.candidates:
            return (SELECT,)
        if stage in ("train", "evaluate"):
            return tuple(task_id(stage, candidate) for candidate in self.candidates)
        return ({"register": LOAD_CHECK, "approval": ASK_RELEASE, "deploy": ROLLOUT}.get(stage, stage),)

    def needs(self, stage: str, *always: str) -> tuple[str, ...]:
        """Return what the tasks of a stage wait for; ``begin`` when there is nothing else.

        :param stage: name of the stage; what its ``needs`` names is added.
        :param always: tasks that it waits for in any case.
        """
        known = {*self.trained, *(each.name for each in self.custom)}
        wanted = [name for name in self._named_needs(stage) if name in known]
        ids = [task_id for name in wanted for task_id in self.task_ids(name)]
        return tuple(dict.fromkeys([*always, *ids])) or (BEGIN,)

    def _named_needs(self, stage: str) -> tuple[str, ...]:
        """Return the ``needs`` of a stage in the file; the approval also waits for what the release needs."""
        stages = ("approval", *self.released) if stage == "approval" else (stage,)
        named = [self._named[name][0] for name in stages if name in self._named]
        return tuple(dict.fromkeys(need for found in named for need in found.needs))

    def before(self, stage: str) -> tuple[str, ...]:
        """Return the last tasks of the previous built-in stage.

        :param stage: name of a built-in stage.
        """
        position = self.built_in.index(stage)
        return self.task_ids(self.built_in[position - 1]) if position else ()

    def origin(self, stage: str, rule: FilledStage | None = None) -> str:
        """Return where the file names a stage, or the rule that filled it in.

        :param stage: name of the stage.
        :param rule: the rule that applies when the file does not name it. Default: the stage's own.
        """
        named = self._named.get(stage)
        if named is None:
            return filled_in(rule or stage)  # type: ignore[arg-type] # own steps are always named
        return self.file.origin("spec", "stages", named[1])

    # --- code and workload -----------------------------------------------------------------------------------------

    @cached_property
    def source(self) -> Mapping[str, str] | None:
        """Where the code comes from; None for a folder beside the file."""
        code = self.spec.source_code
        if not code.is_remote:
            return None
        return present(
            repo_url=code.repo_url, revision=code.revision, tags=code.tags, path=code.path, git_conn_id=code.git_conn_id
        )

    @property
    def checkout(self) -> dict[str, Any]:
        """The source as workloads get it: at the commit that ``begin`` has pinned."""
        if self.source is None:
            return {}
        kept = {name: self.source[name] for name in ("repo_url", "path", "git_conn_id") if name in self.source}
        return {"code": {**kept, "revision": Reference(BEGIN, "commit"), "ref": Reference(BEGIN, "ref")}}

    @property
    def folder(self) -> str:
        """Absolute folder of the code, when it is not in Git."""
        code = self.spec.source_code
        return os.path.normpath(os.path.join(self.file.folder, code.repo_url, code.path or ""))  # noqa: PTH118

    def script(self, candidate: CandidateSpec | None) -> str:
        """Return the training script: a path inside the repository, or an absolute path.

        :param candidate: the candidate, if there are several.
        """
        script = (candidate.training_script if candidate else None) or self.spec.training_script
        return script if self.source is not None else str(Path(self.folder, script))

    @property
    def build_image(self) -> str | None:
        """The image that ``build`` checks and training uses."""
        build = self.stage(BuildStage)
        return build.image if build is not None and build.image else self.spec.image

    def repository_of(self, data: TrackedData) -> dict[str, str]:
        """Return Git URL and connection of the repository that tracks data: the source's unless it names another.

        :param data: the data.
        """
        if data.repo_url is not None or self.source is None:
            return present(repo_url=data.repo_url, git_conn_id=data.git_conn_id)
        return present(repo_url=self.source["repo_url"], git_conn_id=data.git_conn_id or self.source.get("git_conn_id"))

    def workload(
        self,
        stage: BuildStage | TrainStage | EvaluateStage | RegisterStage | CustomStage | None,
        image: str | None,
        resources: WorkloadResources | None,
    ) -> dict[str, Any]:
        """Return the arguments that say where and with what a step runs.

        :param stage: the stage, for its own variables.
        :param image: container image; None takes the project's.
        :param resources: what the step may use; None takes ``spec.resources``.
        """
        spec = self.spec
        env = stage.env if isinstance(stage, CustomStage) else {}
        limits = (resources or spec.resources).model_dump()
        given = {
            "runtime": spec.runtime,
            "image": image,
            "workload_resources": {name: value for name, value in limits.items() if value},
            "env": {**spec.env, **env},
            "connection_env": {**spec.secret_env, **(stage.secret_env if stage else {})},
            "kubernetes": spec.kubernetes,
        }
        return {name: value for name, value in given.items() if value}


def task_id(stage: str, candidate: CandidateSpec | None) -> str:
    """Return the id of a task that exists once per candidate.

    :param stage: ``train`` or ``evaluate``.
    :param candidate: the candidate, if there are several.
    """
    return stage if candidate is None else f"{stage}_{candidate.name}"

"""Checks across the fields of a pipeline: what must fit together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from airflow_mcp.core.argument import in_words, nearest
from airflow_mcp.core.contract import ALIASES_OF_OURS
from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.gate.rules.thresholds import parse_threshold
from airflow_mcp.core.metrics import metric_direction
from airflow_mcp.core.pipeline.deploy_checks import deploy_problems
from airflow_mcp.core.pipeline.file.document import FieldPath, Node
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline, PipelineSpec
from airflow_mcp.core.pipeline.file.stages import (
    STAGES,
    TASK_NAMES,
    ApprovalStage,
    BuildStage,
    CustomStage,
    EvaluateStage,
    GateStage,
    Stage,
    approval_in,
    built_in_stages,
)
from airflow_mcp.core.pipeline.file.thresholds import threshold_rule, why_unreachable
from airflow_mcp.core.pipeline.file.triggers import OnModelChange
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.core.pipeline.gate_checks import gate_problems
from airflow_mcp.core.pipeline.plan.params import BUILT_IN
from airflow_mcp.core.pipeline.plan.releasing import RELEASE_SUFFIX
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError, SpecProblem

_RELEASE = re.compile(r"refs/tags/.+|v?\d+(\.\d+)+([.+-][\w.+-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SEAT = re.compile(r"seat_\d+")
_RELEASING = ("deploy", "promote")
"""Stages that move an alias or requests: an approval comes before them."""
_ONCE = ("on_commit", "on_data_change", "manual")
"""Triggers that a pipeline may have only once."""
_NAMES = {"on_commit": "onCommit", "on_data_change": "onDataChange", "manual": "manual"}
Found = Iterator[tuple[FieldPath, str]]


@dataclass(frozen=True)
class Subject:
    """The pipeline to check."""

    pipeline: ModelPipeline
    environment: str
    config: Mapping[str, Any]
    """Config of the training: the values of the config file, and those merged over them."""

    @property
    def spec(self) -> PipelineSpec:
        """Its spec."""
        return self.pipeline.spec

    @property
    def present(self) -> tuple[str, ...]:
        """The built-in stages of the pipeline, in their order."""
        named = {stage.name for stage in self.spec.stages}
        return built_in_stages(named, self.spec.stop_after, asks=self.asks)

    @property
    def asks(self) -> bool:
        """Whether people are asked before a release."""
        return approval_in(self.spec.stages, self.environment) is not None


def check(subject: Subject, document: Node, problems: list[SpecProblem]) -> None:
    """Check a pipeline as a whole.

    :param subject: the pipeline for one environment.
    :param document: its document, for the places.
    :param problems: every problem is added here.
    """
    for rule in RULES:
        problems.extend(problem_at(document, path, message) for path, message in rule(subject))
    for name in subject.spec.kubernetes.keys() - PodOptions.model_fields.keys():
        message = f"is not a known name. {nearest(name, PodOptions.model_fields)}"
        problems.append(problem_at(document, ("spec", "kubernetes", name), message, at_key=True))


def _stage_names(subject: Subject) -> Found:
    taken: dict[str, int] = {}
    candidates = {f"{stage}_{each.name}" for each in subject.spec.candidates for stage in ("train", "evaluate")}
    for index, stage in enumerate(subject.spec.stages):
        path = ("spec", "stages", index, "name")
        if stage.name in taken:
            yield path, f"{stage.name!r} is also the name of stages[{taken[stage.name]}]. List each stage once"
        taken.setdefault(stage.name, index)
        if stage.name in TASK_NAMES or stage.name in candidates:
            yield path, f"{stage.name!r} is the name of a task that is filled in. Choose another name"
        if stage.name == "promote" and "deploy" in subject.present:
            yield path, "the promotion is the last step of the stage deploy. Remove the stage promote"
        elif stage.name in STAGES and stage.name not in subject.present and _is_too_late(subject, stage):
            yield path, f"comes after stopAfter: {subject.spec.stop_after}. Remove the stage, or change stopAfter"


def _is_too_late(subject: Subject, stage: Stage) -> bool:
    """Whether the pipeline ends before a stage; where an approval asks nobody, it is left out for another reason."""
    return not isinstance(stage, ApprovalStage) or subject.spec.stop_after not in _RELEASING


def _approval(subject: Subject) -> Found:
    """Check what cannot be in a pipeline whose releases are a Dag of their own."""
    name = subject.pipeline.metadata.name
    if name.endswith(RELEASE_SUFFIX):
        yield ("metadata", "name"), f"must not end with {RELEASE_SUFFIX}, as the names of release Dags do; got {name!r}"
    if not subject.asks:
        return
    for index, stage in enumerate(subject.spec.stages):
        path: FieldPath = ("spec", "stages", index)
        if not isinstance(stage, CustomStage):
            continue
        if _SEAT.fullmatch(stage.name):
            yield (*path, "name"), f"{stage.name!r} is the name of a task of the approval. Choose another name"
        for position, needed in enumerate(stage.needs):
            if needed in ("approval", *_RELEASING):
                message = f"{needed!r} comes after the approval, in a Dag of its own, which has no steps of yours"
                yield (*path, "needs", position), f"{message}. Remove it"


def _needs(subject: Subject) -> Found:
    names = {*subject.present, *(stage.name for stage in subject.spec.stages)}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for before, name in zip(subject.present, subject.present[1:], strict=False):
        graph[name].add(before)
    for stage in subject.spec.stages:
        if isinstance(stage, GateStage):
            graph["gate"] |= set(stage.report_stages) & names
    for index, stage in enumerate(subject.spec.stages):
        for position, needed in enumerate(stage.needs):
            path = ("spec", "stages", index, "needs", position)
            if needed not in names:
                yield path, f"there is no stage {needed!r}. {nearest(needed, names - {stage.name})}"
            else:
                graph[stage.name].add(needed)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        first = next(i for i, stage in enumerate(subject.spec.stages) if stage.name in cycle and stage.needs)
        yield ("spec", "stages", first, "needs"), f"the stages wait for each other: {' needs '.join(cycle)}"


def _candidates(subject: Subject) -> Found:
    spec = subject.spec
    seen: set[str] = set()
    for index, candidate in enumerate(spec.candidates):
        if candidate.name in seen:
            yield (
                ("spec", "candidates", index, "name"),
                f"two candidates are called {candidate.name!r}. Give each its own name",
            )
        seen.add(candidate.name)
    if spec.candidates and spec.select is None and spec.stop_after != "train":
        yield (
            ("spec", "candidates"),
            "select is missing: name the metric that decides, for example select: {metric: f1}",
        )
    if spec.select is not None and not spec.candidates:
        yield ("spec", "select"), "there are no candidates to select from. List candidates, or remove select"
    elif spec.select is not None and spec.stop_after == "train":
        yield ("spec", "select"), "stopAfter: train ends before anything is measured. Remove select"
    elif spec.select is not None and spec.select.direction is None:
        try:
            metric_direction(spec.select.metric)
        except InvalidArgumentError as error:
            yield ("spec", "select", "metric"), f"{error}. Add direction: maximize or minimize"


def _thresholds(subject: Subject) -> Found:
    found = False
    for index, stage in enumerate(subject.spec.stages):
        path: FieldPath = ("spec", "stages", index)
        if isinstance(stage, EvaluateStage):
            for name, bound in stage.metrics_threshold.items():
                found = True
                try:
                    problem = why_unreachable(threshold_rule(name, bound))
                except InvalidArgumentError as error:
                    problem = str(error)
                if problem:
                    yield (*path, "metricsThreshold", name), problem
            if found and "gate" not in subject.present:
                message = f"stopAfter: {subject.spec.stop_after} ends before the gate, which would judge by them"
                yield (*path, "metricsThreshold"), f"{message}. Remove them, or change stopAfter"
        elif isinstance(stage, GateStage):
            found = found or bool(stage.thresholds or stage.significance or stage.slices or stage.benchmarks)
            yield from _gate_rules(subject, stage, path)
            yield from gate_problems(subject.spec, stage, path, stops_at_gate=subject.spec.stop_after == "gate")
    if not found and "gate" in subject.present:
        message = (
            "no threshold says what a good model is. Add metricsThreshold to the stage evaluate, or thresholds to the "
            "stage gate, or stop before the gate with stopAfter: evaluate"
        )
        yield ("spec", "stages"), message


def _gate_rules(subject: Subject, stage: GateStage, path: FieldPath) -> Found:
    data = subject.spec.data
    for position, text in enumerate(stage.thresholds):
        rule = parse_threshold(text)
        if problem := why_unreachable(rule):
            yield (*path, "thresholds", position), problem
        if rule.against_champion and not (data is not None and data.evaluates):
            message = (
                f"{text!r} compares with the champion, which requires evaluation data to measure both on. Name it in "
                "spec.data, or write a number"
            )
            yield (*path, "thresholds", position), message


def _data(subject: Subject) -> Found:
    spec, data = subject.spec, subject.spec.data
    for index, stage in enumerate(spec.stages):
        if not isinstance(stage, EvaluateStage) or (data is not None and data.evaluates):
            continue
        if stage.slices:
            yield ("spec", "stages", index, "slices"), "slices require evaluation data. Name it in spec.data"
        if stage.importance_rows:
            place = ("spec", "stages", index, "importanceRows")
            yield place, "feature importance requires evaluation data. Name it in spec.data"
    tracked = data.tracked if data is not None else None
    if tracked is not None and tracked.repo_url is None and not spec.source_code.is_remote:
        yield (
            ("spec", "data", tracked.kind),
            "repoUrl is missing: sourceCode is a folder, so name the Git URL of the repository with the data",
        )


def _replay(subject: Subject) -> Found:
    """Check that a gate judges the replay, and that its tolerances fit the kind of model."""
    replay, data = subject.spec.replay, subject.spec.data
    if replay is None:
        return
    path: FieldPath = ("spec", "replay")
    if "gate" not in subject.present:
        yield path, f"stopAfter: {subject.spec.stop_after} ends before the gate, which would judge it. Remove replay"
    if data is None or not data.evaluates:
        yield path, "a replay needs evaluation data, for the model type and for the champion; name it in spec.data"
        return
    tolerates = replay.tolerance is not None or replay.relative_tolerance is not None
    if data.model_type == "regressor" and not tolerates:
        yield (
            path,
            "a regressor's predictions always differ a little. Set the tolerance or relativeTolerance of a flip",
        )
    elif data.model_type == "classifier" and tolerates:
        yield path, "tolerance and relativeTolerance are for regressors; another class is always a flip"


def _triggers(subject: Subject) -> Found:
    spec = subject.spec
    seen: dict[object, int] = {}
    for index, trigger in enumerate(spec.triggers):
        path: FieldPath = ("spec", "triggers", index)
        kind = next((_NAMES[name] for name in _ONCE if getattr(trigger, name) is not None), None)
        first = seen.setdefault(kind or trigger.model_dump_json(exclude={"timezone"}), index)
        if first != index:
            what = kind or "the same trigger"
            yield path, f"{what} is in triggers[{first}] already. List it once"
        if trigger.on_commit is not None and not spec.source_code.is_remote:
            yield (
                (*path, "onCommit"),
                "sourceCode is a folder, which has no commits. Name a Git URL, or remove onCommit",
            )
        elif trigger.on_commit is not None and _COMMIT.fullmatch(spec.source_code.revision or ""):
            yield (
                (*path, "onCommit"),
                "sourceCode.revision is a single commit, so there would never be a new one. Name a branch",
            )
        if trigger.on_model_change is not None and _starts_itself(subject, trigger.on_model_change):
            message = (
                "each run would start the next, because this pipeline itself changes that model. Name another model"
            )
            yield (*path, "onModelChange"), message
        if trigger.on_data_change is not None and spec.data is None:
            yield (
                (*path, "onDataChange"),
                "spec.data is missing, so no change of data can start a run. Add it, or remove onDataChange",
            )
        if trigger.cron is not None:
            zone = next(each.timezone for each in spec.triggers if each.cron is not None)
            if trigger.timezone != zone:
                yield (*path, "timezone"), f"must be the same for every cron; got {trigger.timezone} and {zone}"
    if spec.catchup and not any(trigger.cron for trigger in spec.triggers):
        yield ("spec", "catchup"), "there is no cron whose missed times could be run later. Add cron, or remove catchup"


def _starts_itself(subject: Subject, trigger: OnModelChange) -> bool:
    own = subject.spec.model.name or subject.pipeline.metadata.name
    if (trigger.model or own) != own:
        return False
    stop = subject.spec.stop_after
    if trigger.alias is None:
        return stop in ("register", "deploy", "promote")
    return stop in ("deploy", "promote") and trigger.alias in ALIASES_OF_OURS


def _params(subject: Subject) -> Found:
    setters: dict[str, str] = {}
    configs = [subject.config, *(candidate.config for candidate in subject.spec.candidates)]
    for index, trigger in enumerate(subject.spec.triggers):
        for name, param in (trigger.manual.params if trigger.manual else {}).items():
            path: FieldPath = ("spec", "triggers", index, "manual", "params", name)
            if name in BUILT_IN:
                yield path, f"{name!r} is a field of every form. Choose another name"
            other = setters.setdefault(param.sets, name)
            if other != name:
                yield (*path, "sets"), f"{param.sets!r} is set by the field {other!r} already"
            if not any(_has(config, param.sets) for config in configs):
                known = sorted({key for config in configs for key in _keys(config)})
                hint = nearest(param.sets, known) if known else "spec.config has no values"
                yield (*path, "sets"), f"{param.sets!r} is not a value of spec.config. {hint}"


def _has(config: Mapping[str, Any], dotted: str) -> bool:
    return dotted in _keys(config)


def _keys(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _secrets(subject: Subject) -> Found:
    spec = subject.spec
    if both := sorted(spec.env.keys() & spec.secret_env.keys()):
        yield ("spec", "secretEnv", both[0]), f"{both[0]} is in env as well. Keep it in one of them"
    for index, stage in enumerate(spec.stages):
        own_env, own_secrets = (getattr(stage, name, {}) for name in ("env", "secret_env"))
        both = sorted((own_env.keys() & {*spec.secret_env, *own_secrets}) | (own_secrets.keys() & spec.env.keys()))
        if both:
            yield ("spec", "stages", index), f"{both[0]} is in env and in secretEnv. Keep it in one of them"


def _local_code(subject: Subject) -> Found:
    spec = subject.spec
    if spec.source_code.is_remote or spec.runtime != "kubernetes":
        return
    for index, stage in enumerate(spec.stages):
        if isinstance(stage, BuildStage | CustomStage):
            message = (
                f"{stage.name!r} would run in a pod, which cannot see the folder {spec.source_code.repo_url}. Put the "
                "code into Git and name its URL in sourceCode, or use runtime: local"
            )
            yield ("spec", "stages", index), message


def _kubernetes(subject: Subject) -> Found:
    for name, value in subject.spec.kubernetes.items():
        try:
            PodOptions.model_validate({name: value} if name in PodOptions.model_fields else {})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                yield ("spec", "kubernetes", *detail["loc"]), in_words(detail)


def _deployment(subject: Subject) -> Found:
    yield from deploy_problems(subject.spec, subject.present)


def _retries(subject: Subject) -> Found:
    retries = subject.spec.retries
    if seconds_of(retries.max_delay) < seconds_of(retries.delay):
        yield ("spec", "retries"), f"maxDelay must not be shorter than delay {retries.delay}; got {retries.max_delay}"


def _release(subject: Subject) -> Found:
    source = subject.spec.source_code
    if subject.environment != "prod":
        if not source.is_remote and (source.revision or source.tags or source.git_conn_id):
            yield (
                ("spec", "sourceCode"),
                "revision, tags and gitConnId are for a Git URL, and this is a folder. Remove them",
            )
    elif not source.is_remote:
        yield ("spec", "sourceCode"), "must be a Git URL in prod, which runs release tags only; got a folder"
    elif source.tags is None and not _RELEASE.fullmatch(source.revision or ""):
        message = (
            f'must be a release tag in prod, such as v1.2.0; got {source.revision!r}. Or use tags: "v*" for the newest'
        )
        yield ("spec", "sourceCode", "revision"), message


RULES: tuple[Callable[[Subject], Found], ...] = (
    _stage_names,
    _approval,
    _needs,
    _candidates,
    _thresholds,
    _data,
    _replay,
    _triggers,
    _params,
    _secrets,
    _local_code,
    _kubernetes,
    _deployment,
    _retries,
    _release,
)
"""Each check yields the path of a wrong field, and what is wrong with it."""

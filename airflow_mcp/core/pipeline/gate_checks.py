"""Checks of the stage ``gate`` across fields: rules that nothing measures, reports that no step writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_mcp.core.evaluation.evidence import METRICS, ComparisonRequest
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.benchmark import BenchmarkRule
from airflow_mcp.core.gate.rules.coverage import CoverageRule
from airflow_mcp.core.gate.rules.findings import FindingsRule
from airflow_mcp.core.gate.rules.slices import SlicePolicy
from airflow_mcp.core.gate.rules.thresholds import parse_threshold
from airflow_mcp.core.metrics import metric_name
from airflow_mcp.core.pipeline.file.document import FieldPath
from airflow_mcp.core.pipeline.file.gate import ReportPlace, SliceRules
from airflow_mcp.core.pipeline.file.pipeline import PipelineSpec
from airflow_mcp.core.pipeline.file.stages import BuildStage, CustomStage, EvaluateStage, GateStage
from airflow_mcp.core.pipeline.plan.entities import Reference
from airflow_mcp.core.pipeline.plan.gate import gate_rules
from airflow_mcp.exceptions import InvalidArgumentError

Found = Iterator[tuple[FieldPath, str]]
_MODELS: Mapping[str, type[BaseModel]] = {
    "benchmarks": BenchmarkRule,
    "coverage": CoverageRule,
    "findings": FindingsRule,
    "slices": SlicePolicy,
}


def gate_problems(spec: PipelineSpec, stage: GateStage, path: FieldPath, *, stops_at_gate: bool) -> Found:
    """Return what is wrong with a gate's rules, each with the path of its field.

    :param spec: the pipeline's spec.
    :param stage: the stage.
    :param path: path of the stage.
    :param stops_at_gate: whether the gate is the last stage.
    """
    problems = [
        *_unmeasured(spec, stage, path),
        *_unmade_reports(spec, stage, path),
        *_refused_by_the_gate(stage, path),
    ]
    yield from problems
    if stage.dry_run and not stops_at_gate:
        yield (*path, "dryRun"), "after a dry run nothing is registered. Add stopAfter: gate, or remove dryRun"
    elif not problems:
        yield from _undecided(spec, stage, path)


def _unmeasured(spec: PipelineSpec, stage: GateStage, path: FieldPath) -> Found:
    data = spec.data
    has_data = data is not None and data.evaluates
    for position, rule in enumerate(stage.significance):
        where = (*path, "significance", position)
        if not has_data or data is None:
            yield (
                where,
                "compares with the champion, which requires evaluation data to measure both on. Name it in spec.data",
            )
            continue
        name = rule.metric
        metric = metric_name(name)
        allowed = METRICS[data.model_type]
        if metric not in allowed:
            yield where, f"metric of a {data.model_type} must be one of {', '.join(allowed)}; got {name!r}"
            continue
        try:
            ComparisonRequest(metric=metric, method=rule.method)
        except ValidationError as error:
            yield where, str(error.errors()[0]["ctx"]["error"])
    if stage.slices is not None:
        columns = [each for own in spec.stages if isinstance(own, EvaluateStage) for each in own.slices]
        if not has_data:
            yield (*path, "slices"), "slices require evaluation data. Name it in spec.data"
        elif not columns and not stage.slices.by:
            yield (*path, "slices"), "no column is named. Add by: [column] here, or slices to the stage evaluate"
        if has_data and data is not None:
            yield from _unmeasured_in_slices(stage.slices, METRICS[data.model_type], (*path, "slices"))


def _unmeasured_in_slices(rules: SliceRules, measured: Sequence[str], path: FieldPath) -> Found:
    named: list[tuple[FieldPath, str]] = [
        *((("floors", index), parse_threshold(text).metric) for index, text in enumerate(rules.floors)),
        *((("maxGap", name), name) for name in rules.max_gap),
    ]
    for place, name in named:
        if metric_name(name) not in measured:
            yield (*path, *place), f"metric of a slice must be one of {', '.join(measured)}; got {name!r}"


def _unmade_reports(spec: PipelineSpec, stage: GateStage, path: FieldPath) -> Found:
    steps = {step.name: step.reports for step in spec.stages if isinstance(step, BuildStage | CustomStage)}
    for kind, rules in (("coverage", stage.coverage), ("findings", stage.findings)):
        for position, rule in enumerate(rules):
            for field, alias in (("report", "report"), ("baseline", "baseline"), ("changed_lines", "changedLines")):
                place: ReportPlace | None = getattr(rule, field, None)
                where = (*path, kind, position, alias)
                if place is None or place.stage is None:
                    continue
                if place.stage not in steps:
                    known = ", ".join(sorted(steps)) or "none"
                    yield where, f"there is no step {place.stage!r} to write the report. Steps with a command: {known}"
                elif not any(fnmatchcase(place.path or "", pattern) for pattern in steps[place.stage]):
                    yield where, f"{place.path!r} is not among the reports of {place.stage!r}. Add it there"


def _refused_by_the_gate(stage: GateStage, path: FieldPath) -> Found:
    """Parse the rules as the gate will."""
    for kind, given in gate_rules(stage).items():
        model = _MODELS.get(kind)
        if model is None:
            continue
        for position, rule in enumerate(given if isinstance(given, list) else [given]):
            where = (*path, kind, position) if isinstance(given, list) else (*path, kind)
            try:
                model.model_validate(_without_references(rule))
            except ValidationError as error:
                detail = error.errors(include_url=False)[0]
                yield where, str(detail.get("ctx", {}).get("error") or f"{detail['loc'][-1]}: {detail['msg']}")


def _undecided(spec: PipelineSpec, stage: GateStage, path: FieldPath) -> Found:
    """Find a gate whose rules all only warn; thresholds of ``evaluate`` and a replay are rules as well."""
    if spec.replay is not None or any(isinstance(own, EvaluateStage) and own.metrics_threshold for own in spec.stages):
        return
    rules = {name: _without_references(given) for name, given in gate_rules(stage).items()}
    if not rules and not stage.thresholds:
        return
    try:
        GatePolicy.parse(stage.thresholds, **rules)
    except InvalidArgumentError as error:
        yield path, str(error)


def _without_references(value: Any) -> Any:
    if isinstance(value, Reference):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _without_references(each) for name, each in value.items()}
    return [_without_references(each) for each in value] if isinstance(value, list) else value

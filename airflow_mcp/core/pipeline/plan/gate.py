"""The arguments of the gate: the file's rules in the names of EvaluationGateOperator, reports of steps by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.gate.rules.verdicts import RuleMode
from airflow_mcp.core.metrics import metric_name
from airflow_mcp.core.pipeline.file.gate import Benchmark, CoverageLimits, FindingsLimits, ReportPlace, Significance
from airflow_mcp.core.pipeline.file.stages import GateStage
from airflow_mcp.core.pipeline.plan.entities import Reference

_MODES: Mapping[str, RuleMode] = {"enforce": "enforce", "warn": "warn", "dryRun": "dry_run"}


def gate_mode(stage: GateStage) -> dict[str, Any]:
    """Return how the gate reacts, as its arguments, without defaults.

    :param stage: the stage.
    """
    given = {"mode": stage.mode, "dry_run": stage.dry_run, "on_inconclusive": stage.on_inconclusive}
    return {name: value for name, value in given.items() if value not in ("enforce", False, None)}


def gate_rules(stage: GateStage) -> dict[str, Any]:
    """Return the rules of a gate except its thresholds, as its arguments.

    :param stage: the stage.
    """
    rules = {
        "significance": [_significance(rule) for rule in stage.significance],
        "slices": _slices(stage),
        "benchmarks": [_benchmark(rule) for rule in stage.benchmarks],
        "coverage": [_of_report(rule) for rule in stage.coverage],
        "findings": [_of_report(rule) for rule in stage.findings],
    }
    return {name: given for name, given in rules.items() if given}


def comparisons(stage: GateStage) -> list[dict[str, Any]]:
    """Return what the evaluation must compare, so that the gate's ``significance`` can be judged.

    :param stage: the stage.
    """
    wanted: dict[tuple[str, str], float] = {}
    for rule in stage.significance:
        key = (metric_name(rule.metric), rule.method)
        wanted[key] = max(rule.confidence, wanted.get(key, 0.0))
    return [
        {"metric": metric, "method": method, "confidence": confidence}
        for (metric, method), confidence in wanted.items()
    ]


def slice_columns(own: tuple[str, ...], stage: GateStage) -> list[str]:
    """Return the columns by which the evaluation slices its metrics: its own, and those that the gate judges.

    :param own: columns of the stage ``evaluate``.
    :param stage: the stage ``gate``.
    """
    judged = stage.slices.by if stage.slices else ()
    return list(dict.fromkeys((*own, *judged)))


def _significance(rule: Significance) -> dict[str, Any]:
    return _given(rule, metric=metric_name(rule.metric))


def _slices(stage: GateStage) -> dict[str, Any] | None:
    if stage.slices is None:
        return None
    gaps = {metric_name(name): gap for name, gap in stage.slices.max_gap.items()}
    return _given(stage.slices, **({"max_gap": gaps} if gaps else {}))


def _benchmark(rule: Benchmark) -> dict[str, Any]:
    return _given(rule, **({} if rule.timeout == "10s" else {"timeout": float(seconds_of(rule.timeout))}))


def _of_report(rule: CoverageLimits | FindingsLimits) -> dict[str, Any]:
    places = {name: getattr(rule, name, None) for name in ("report", "baseline", "changed_lines")}
    return _given(rule, **{name: _place(place) for name, place in places.items() if place is not None})


def _given(rule: Any, **changes: Any) -> dict[str, Any]:
    """Return a rule in the names of the gate, without defaults."""
    values: dict[str, Any] = rule.model_dump(mode="json", exclude_defaults=True)
    if "mode" in values:
        values["mode"] = _MODES[values["mode"]]
    return {**values, **changes}


def _place(place: ReportPlace) -> Any:
    if place.stage is not None:
        return {"run_id": Reference(place.stage, "run_id"), "path": f"reports/{place.path}"}
    return place.uri if place.conn_id is None else {"path": place.uri, "conn_id": place.conn_id}

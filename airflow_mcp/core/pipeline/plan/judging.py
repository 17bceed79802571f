"""The tasks that judge a model: evaluate, select, replay, the gate with its approval, and the outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mcp.core.metrics import metric_direction, metric_name
from airflow_mcp.core.pipeline.file.replay import Replay
from airflow_mcp.core.pipeline.file.source import Data
from airflow_mcp.core.pipeline.file.stages import CandidateSpec, GateStage, SelectionSpec
from airflow_mcp.core.pipeline.file.thresholds import threshold_rule
from airflow_mcp.core.pipeline.plan.entities import PlannedTask, Reference, Template
from airflow_mcp.core.pipeline.plan.gate import comparisons, gate_mode, gate_rules, slice_columns
from airflow_mcp.core.pipeline.plan.layout import (
    APPROVE,
    OUTCOME,
    PIN_DATA,
    RECORD_APPROVAL,
    REPLAY,
    SELECT,
    Layout,
    task_id,
)
from airflow_mcp.core.pipeline.plan.replay import replay_arguments, replay_rule
from airflow_mcp.core.pipeline.plan.rules import filled_in
from airflow_mcp.core.pipeline.plan.values import reuses, seconds


def evaluate_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``evaluate``: measure every candidate, select one, and replay logged requests with it.

    :param layout: the pipeline.
    """
    for candidate in layout.candidates:
        yield _evaluate(layout, candidate)
    if layout.spec.select is not None:
        yield _select(layout, layout.spec.select)
    if layout.replayed is not None:
        yield _replay(layout, *layout.replayed)


def gate_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``gate``, and the approval by a person if the file asks for one.

    :param layout: the pipeline.
    """
    yield _gate(layout)
    if layout.asks_a_person:
        yield from _approval(layout.model_name)


def outcome_task(layout: Layout) -> PlannedTask:
    """Plan the task that records how the run ended.

    :param layout: the pipeline.
    """
    # A template instead of a reference: a reference to the training would make this task wait for that alone.
    run_id = Template(f"{{{{ ti.xcom_pull(task_ids='{layout.chosen}', key='run_id') or '' }}}}")
    last = layout.trained[-1]
    asked = (RECORD_APPROVAL,) if last == "gate" and layout.asks_a_person else ()
    needs = (*layout.task_ids(last), *asked)
    arguments = {"model_name": layout.model_name, "run_id": run_id}
    return PlannedTask(OUTCOME, "outcome", last, arguments, needs, filled_in("outcome"))


def _evaluate(layout: Layout, candidate: CandidateSpec | None) -> PlannedTask:
    stage, data, train = layout.evaluate, layout.spec.data, task_id("train", candidate)
    arguments: dict[str, Any] = {
        "run_id": Reference(train, "run_id"),
        "model_uri": Reference(train, "model_uri"),
        "model_name": layout.model_name,
        "latency_calls": stage.latency_calls,
        "reuse": reuses("evaluate"),
        **layout.workload(stage, stage.image, stage.resources),
    }
    if data is not None and data.evaluates:
        arguments |= {
            "dataset": Reference(PIN_DATA, "evaluation"),
            "target": data.target,
            "model_type": data.model_type,
            "slices": slice_columns(stage.slices, layout.gate),
        }
        if stage.importance_rows is not None:
            arguments["importance_rows"] = stage.importance_rows
        if compared := comparisons(layout.gate):
            arguments["comparisons"] = compared
        if data.positive_label is not None:
            arguments["positive_label"] = data.positive_label
    return PlannedTask(
        task_id("evaluate", candidate),
        "evaluate",
        "evaluate",
        arguments,
        layout.needs("evaluate", train),
        layout.origin("evaluate"),
        seconds(layout.spec.timeouts.evaluate),
    )


def _select(layout: Layout, chosen: SelectionSpec) -> PlannedTask:
    ids = [(each.name, task_id("train", each), task_id("evaluate", each)) for each in layout.spec.candidates]
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
    return PlannedTask(SELECT, "select", "evaluate", arguments, needs, layout.file.origin("spec", "select"))


def _replay(layout: Layout, replay: Replay, data: Data) -> PlannedTask:
    stage = layout.evaluate
    arguments = {
        "run_id": Reference(layout.chosen, "run_id"),
        "model_uri": Reference(layout.chosen, "model_uri"),
        "model_name": layout.model_name,
        **replay_arguments(replay, data),
        **layout.workload(stage, stage.image, stage.resources),
    }
    # After the evaluation, so that both compare with the same champion.
    needs, origin = layout.task_ids("evaluate"), layout.file.origin("spec", "replay")
    timeout = seconds(layout.spec.timeouts.evaluate)
    return PlannedTask(REPLAY, "replay", "evaluate", arguments, needs, origin, timeout)


def _gate(layout: Layout) -> PlannedTask:
    stage = layout.gate
    measured = Reference(SELECT, "evidence_identity") if layout.spec.candidates else Reference("evaluate", "identity")
    arguments: dict[str, Any] = {
        "run_id": Reference(layout.chosen, "run_id"),
        "model_name": layout.model_name,
        "thresholds": _thresholds(layout),
        "evidence_identity": measured,
        "on_failed": stage.on_failed,
        "reuse": reuses("gate"),
        **_gate_arguments(stage),
        **gate_mode(stage),
    }
    if layout.asks_a_person:
        arguments["escalation"] = {"ask": APPROVE}
    replayed: tuple[str, ...] = ()
    if layout.replayed is not None:
        arguments |= {"replay": replay_rule(layout.replayed[0]), "replay_identity": Reference(REPLAY, "identity")}
        replayed = (REPLAY,)
    needs = layout.needs("gate", *layout.before("gate"), *replayed)
    return PlannedTask("gate", "gate", "gate", arguments, needs, layout.origin("gate"))


def _gate_arguments(stage: GateStage) -> dict[str, Any]:
    """Return the rules of a gate as its arguments: those without an argument of their own are in ``policy``."""
    rules = gate_rules(stage)
    policy = {name: rules.pop(name) for name in ("benchmarks", "coverage", "findings") if name in rules}
    return {**rules, **({"policy": policy} if policy else {})}


def _thresholds(layout: Layout) -> list[str]:
    """Return the rules of ``evaluate.metricsThreshold``, then those of ``gate.thresholds``."""
    bounds = layout.evaluate.metrics_threshold.items()
    return list(dict.fromkeys([*(str(threshold_rule(name, bound)) for name, bound in bounds), *layout.gate.thresholds]))


def _approval(model_name: str) -> Iterator[PlannedTask]:
    """Plan the tasks that ask a person when the gate is inconclusive, and record the answer."""
    ask = {
        "subject": f"The gate of {model_name} cannot decide. Register the model all the same?",
        "body": Template("{{ ti.xcom_pull(task_ids='gate', key='reason') }}"),
        "ignore_downstream_trigger_rules": True,  # a no skips the registration too, to which the gate leads as well
    }
    yield PlannedTask(APPROVE, "approve", "gate", ask, ("gate",), filled_in("approve"))
    record = {
        "run_id": Reference("gate", "run_id"),
        "model_name": model_name,
        "report_hash": Reference("gate", "report_hash"),
        "answer": Reference(APPROVE, "return_value"),
    }
    yield PlannedTask(RECORD_APPROVAL, "record_approval", "gate", record, (APPROVE,), filled_in("record_approval"))

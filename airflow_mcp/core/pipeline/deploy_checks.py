"""Checks of the stage ``deploy`` and of the policies across fields: what would fail only when a model is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, parse_threshold
from airflow_mcp.core.metrics import metric_name
from airflow_mcp.core.pipeline.file.document import FieldPath
from airflow_mcp.core.pipeline.file.pipeline import PipelineSpec
from airflow_mcp.core.pipeline.file.stages import DeployStage, EvaluateStage, GateStage
from airflow_mcp.core.pipeline.file.thresholds import threshold_rule
from airflow_mcp.core.pipeline.plan.deploying import rollout_values
from airflow_mcp.core.rollout.plan import RolloutPlan, checked_selector, read_plan, why_undecidable
from airflow_mcp.exceptions import InvalidArgumentError

Found = Iterator[tuple[FieldPath, str]]
_OFFLINE_LATENCY = {
    "latency_p50_ms": ("latency_ms_p50",),
    "latency_p90_ms": ("latency_ms_p90",),
    "latency_p95_ms": ("latency_ms", "latency_ms_p95"),
    "latency_p99_ms": ("latency_ms_p99",),
}
"""What the evaluation measures, by what the model server measures: the same percentile."""
_LATENCIES = frozenset(name for names in _OFFLINE_LATENCY.values() for name in names)


def deploy_problems(spec: PipelineSpec, present: Sequence[str]) -> Found:
    """Return what does not fit together in a deployment, each with the path of its field.

    :param spec: the pipeline's spec.
    :param present: the built-in stages of the pipeline.
    """
    index, stage = next(
        ((index, stage) for index, stage in enumerate(spec.stages) if isinstance(stage, DeployStage)),
        (None, DeployStage(name="deploy")),
    )
    if "deploy" not in present:
        for field, value in (("rollback", spec.rollback), ("trafficPolicy", spec.traffic_policy)):
            if value is not None:
                yield ("spec", field), "is carried out by the stage deploy. Add that stage, or remove this field"
        return
    path: FieldPath = ("spec", "stages", index) if index is not None else ("spec", "stopAfter")
    yield from _policies(spec, stage)
    problems = list(_rules(stage, path))
    yield from problems
    if not problems:
        yield from _plan(spec, stage, path)


def _policies(spec: PipelineSpec, stage: DeployStage) -> Found:
    if spec.traffic_policy is not None and stage.server is None:
        yield (
            ("spec", "trafficPolicy"),
            "is a setting of the model server, which this pipeline does not deploy. Add server to the stage deploy, or "
            "give the policy to the server yourself",
        )
    if spec.rollback is not None and spec.rollback.strategy.stable_version == ALIAS_CHAMPION:
        yield (
            ("spec", "rollback", "strategy", "stableVersion"),
            "must be another version than the champion, which is the one to go back from. Use "
            f"{ALIAS_PREVIOUS_CHAMPION}, a number or a release",
        )


def _rules(stage: DeployStage, path: FieldPath) -> Found:
    queries = stage.analysis.queries
    for position, rule in enumerate(stage.analysis.rules or ()):
        if problem := why_undecidable(rule, queries):
            yield (*path, "analysis", "rules", position), problem
    yield from _prometheus(stage, path)
    if stage.strategy == "blueGreen" and stage.steps is not None:
        weights = [step.set_weight for step in stage.steps if step.set_weight is not None]
        if weights != [100]:
            yield (*path, "steps"), "must have setWeight: 100 alone with strategy: blueGreen; use canary for shares"


def _prometheus(stage: DeployStage, path: FieldPath) -> Found:
    queries = stage.analysis.queries
    is_scraped = stage.metrics_source == "prometheus"
    if queries and stage.prometheus_conn_id is None:
        yield (*path, "analysis", "queries"), "need prometheusConnId, the connection that answers them"
    elif is_scraped and stage.prometheus_conn_id is None:
        yield (*path, "metricsSource"), "needs prometheusConnId, the connection to that Prometheus"
    if stage.prometheus_conn_id is not None and not queries and not is_scraped:
        yield (*path, "prometheusConnId"), "is used for analysis.queries and metricsSource. Add one, or remove it"
    if stage.prometheus_selector is not None:
        if not is_scraped:
            yield (*path, "prometheusSelector"), "needs metricsSource: prometheus"
        try:
            checked_selector(stage.prometheus_selector)
        except InvalidArgumentError as error:
            yield (*path, "prometheusSelector"), str(error).removeprefix("prometheus_selector ")


def _plan(spec: PipelineSpec, stage: DeployStage, path: FieldPath) -> Found:
    """Read the plan as the task will, and compare its limits with those before and after it."""
    try:
        plan = read_plan(rollout_values(spec, stage))
    except InvalidArgumentError as error:
        text = str(error).removeprefix("rollout: ")
        if text.startswith("rules "):
            yield (*path, "analysis", "rules"), text.removeprefix("rules ")
            return
        where = "bake" if stage.bake is not None and spec.rollback is None else "steps"
        where = "maxDuration" if text.startswith("max_duration ") else where
        yield (*path, where), text.replace("max_duration ", "", 1)
        return
    yield from _limits_of_the_gate(spec, stage, plan, path)
    if spec.rollback is None:
        return
    trigger = spec.rollback.trigger
    for position, rule in enumerate(plan.thresholds):
        if rule.metric == trigger.metric and not rule.against_champion and rule.threshold > trigger.threshold:
            where_rule = ("analysis", "rules", position) if stage.analysis.rules else ()
            yield (
                (*path, *where_rule),
                f"{str(rule)!r} allows more than spec.rollback, which goes back above {trigger.threshold:g}. Servers "
                "would take back a version that passes the analysis",
            )


def _limits_of_the_gate(spec: PipelineSpec, stage: DeployStage, plan: RolloutPlan, path: FieldPath) -> Found:
    """Find latencies that the gate accepts and the rollout then refuses."""
    gate = list(_gate_limits(spec))
    for position, rule in enumerate(plan.thresholds):
        offline = _OFFLINE_LATENCY.get(rule.metric, ())
        if rule.against_champion or rule.mode != "enforce" or not stage.analysis.rules:
            continue
        for limit in gate:
            if limit.metric in offline and limit.threshold > rule.threshold:
                yield (
                    (*path, "analysis", "rules", position),
                    f"{str(rule)!r} is stricter than the gate, which accepts {limit.metric} up to "
                    f"{limit.threshold:g} ms. Lower the limit of the gate, or raise this one",
                )


def _gate_limits(spec: PipelineSpec) -> Iterator[MetricThreshold]:
    for stage in spec.stages:
        texts = stage.thresholds if isinstance(stage, GateStage) else ()
        bounds = stage.metrics_threshold if isinstance(stage, EvaluateStage) else {}
        known = {name: bound for name, bound in bounds.items() if metric_name(name) in _LATENCIES}
        rules = [*map(parse_threshold, texts), *(threshold_rule(name, bound) for name, bound in known.items())]
        yield from (rule for rule in rules if rule.comparison in ("<=", "<") and not rule.against_champion)

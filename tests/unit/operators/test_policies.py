"""Policies as objects, mappings and single arguments, and one set of defaults through every door."""

from __future__ import annotations

import argparse
import inspect
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG
from jinja2 import Environment

from airflow_mcp.cli import drift
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.retrain import RetrainTriggerOperator

DATA = {"uri": "/data/train.csv", "version": "v1", "hash": "sha256:ab"}
DRIFT: dict[str, Any] = {"experiment_name": "d", "model_name": "m", "current": DATA, "reference": DATA}
RETRAIN: dict[str, Any] = {"trigger_dag_id": "t", "model_name": "m", "experiment_name": "e", "dataset": DATA}
GATE: dict[str, Any] = {"run_id": "a" * 32, "model_name": "m"}


def drift_policy(**given: Any) -> ComparisonPolicy:
    return DriftCheckOperator(task_id="task", **DRIFT, **given)._comparison_policy()


def retrain_policy(**given: Any) -> RetrainPolicy:
    return RetrainTriggerOperator(task_id="task", **RETRAIN, **given)._policy()


def gate_policy(**given: Any) -> GatePolicy:
    return EvaluationGateOperator(task_id="task", **GATE, **given)._policy()


def test_a_drift_check_has_the_same_defaults_through_every_door() -> None:
    parser = argparse.ArgumentParser()
    drift.add_arguments(parser)
    parsed = parser.parse_args(["compare", "reference.csv", "current.csv"])
    assert drift_policy() == drift._policy(parsed) == ComparisonPolicy()
    assert (ComparisonPolicy().numerical_method, ComparisonPolicy().categorical_method) == ("auto", "auto")


@pytest.mark.parametrize(
    ("operator", "policy"),
    [
        (DriftCheckOperator, ComparisonPolicy()),
        (RetrainTriggerOperator, RetrainPolicy()),
        (EvaluationGateOperator, GatePolicy.parse(["f1 > 0"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_that_sets_a_field_of_a_policy_has_its_default(
    operator: type[ModelControlOperator], policy: Any
) -> None:
    arguments = inspect.signature(operator.__init__).parameters
    shared = [name for name in arguments if hasattr(policy, name) and name not in ("thresholds", "dry_run")]
    assert 0 < len(shared) <= 5
    for name in shared:
        assert arguments[name].default == getattr(policy, name), name


def test_a_mapping_an_object_and_arguments_make_the_same_policy() -> None:
    drifted = {"drift_share": 0.25, "ignored_columns": ["id"], "numerical_method": "ks"}
    assert drift_policy(policy=drifted) == drift_policy(policy=ComparisonPolicy(**drifted))
    assert drift_policy(
        drift_share=0.25, ignored_columns=["id"], policy={"numerical_method": "ks"}
    ) == ComparisonPolicy(**drifted)
    wanted = RetrainPolicy(violations=2, window_count=3, cooldown=timedelta(hours=1), daily_budget=None)
    assert retrain_policy(policy=wanted) == wanted
    assert retrain_policy(cooldown="PT1H", daily_budget=None, policy={"violations": 2, "window_count": "3"}) == wanted
    rules = {"thresholds": ["f1 > 0.5"], "benchmarks": {"url": "https://x/y", "path": "a", "expect": 1}, "mode": "warn"}
    assert gate_policy(policy=rules) == gate_policy(policy=GatePolicy.parse(**rules))
    assert gate_policy(thresholds=["f1 > 0.5"], mode="warn", policy={"benchmarks": rules["benchmarks"]}) == (
        GatePolicy.parse(**rules)
    )


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (retrain_policy, {"cooldown": "PT1H", "policy": {"cooldown": "PT2H"}}, "cooldown is given as an argument and"),
        (retrain_policy, {"daily_budget": 2, "policy": RetrainPolicy()}, "daily_budget and a RetrainPolicy are both"),
        (retrain_policy, {"policy": {"windows": 3}}, "policy.windows is not a known name"),
        (retrain_policy, {"policy": {"violations": "many"}}, "violations must be a whole number; got 'many'"),
        (retrain_policy, {"policy": "often"}, "policy must be a RetrainPolicy or a mapping of its fields; got 'often'"),
        (gate_policy, {"mode": "warn", "policy": {"mode": "warn"}}, "mode is given as an argument and in the policy"),
        (gate_policy, {"policy": {"threshold": ["f1 > 0"]}}, "policy.threshold is not a known name. Did you mean"),
    ],
)
def test_a_field_that_is_unknown_wrong_or_given_twice_is_refused(make: Any, given: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        make(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "arguments", "policy"),
    [
        (DriftCheckOperator, DRIFT, {"drift_share": "{{ share }}", "weights": {"a": 1.0}}),
        (DriftCheckOperator, DRIFT, ComparisonPolicy(drift_share=0.25)),
        (RetrainTriggerOperator, RETRAIN, {"violations": "{{ 2 - 1 }}", "label_delay": "P{{ 7 }}D"}),
        (RetrainTriggerOperator, RETRAIN, RetrainPolicy(label_delay=timedelta(days=7))),
        (EvaluationGateOperator, GATE, {"thresholds": ["f1 > {{ share }}"]}),
        (EvaluationGateOperator, GATE, GatePolicy.parse(["f1 > 0.25"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_policy_survives_serialisation_and_templates_in_a_mapping_are_rendered(
    operator: type[ModelControlOperator], arguments: dict[str, Any], policy: Any
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("a_dag", schedule=None) as dag:
        made: Any = operator(task_id="task", policy=policy, **arguments)
    document = DagSerialization.to_dict(dag)
    assert DagSerialization.from_dict(document).get_task("task").task_type == operator.__name__
    assert DagSerialization.to_dict(dag) == document
    made.render_template_fields({"share": 0.25}, Environment())
    read = made._comparison_policy() if operator is DriftCheckOperator else made._policy()
    if operator is RetrainTriggerOperator:
        assert read == RetrainPolicy(label_delay=timedelta(days=7))
    elif operator is DriftCheckOperator:
        assert read.drift_share == 0.25
    else:
        assert read == GatePolicy.parse(["f1 > 0.25"])

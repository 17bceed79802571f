"""Who takes over when a gate is inconclusive."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.gate.policy import EscalationPolicy, GatePolicy, read_escalation
from airflow_mcp.exceptions import InvalidArgumentError


def test_no_task_takes_over_unless_one_is_named() -> None:
    assert read_escalation(None) is None


def test_a_policy_is_taken_as_it_is() -> None:
    policy = EscalationPolicy(ask=("approve",))
    assert read_escalation(policy) is policy


@pytest.mark.parametrize(
    ("policy", "rows_needed", "followed"),
    [
        ({"ask": "approve"}, None, ("approve",)),
        ({"ask": ["approve", "tell"]}, 500, ("approve", "tell")),
        ({"extend": "gather"}, 500, ("gather",)),
        ({"extend": "gather"}, None, ()),
        ({"extend": "gather", "ask": "approve"}, 500, ("gather",)),
        ({"extend": "gather", "ask": "approve"}, None, ("approve",)),
        ({"extend": "gather", "ask": "approve", "max_rows": 500}, 500, ("gather",)),
        ({"extend": "gather", "ask": "approve", "max_rows": 499}, 500, ("approve",)),
        ({"extend": "gather", "max_rows": 499}, 500, ()),
    ],
)
def test_rows_are_gathered_when_they_would_decide_and_a_person_is_asked_otherwise(
    policy: dict[str, Any], rows_needed: int | None, followed: tuple[str, ...]
) -> None:
    read = read_escalation(policy)
    assert read is not None
    assert read.followed(rows_needed) == followed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ask", "escalation must be a mapping of extend, max_rows, ask; got 'ask'"),
        (["approve"], "must be a mapping of extend, max_rows, ask"),
        ({}, "extend and ask are both empty"),
        ({"ask": []}, "extend and ask are both empty"),
        ({"ask": [""]}, "escalation.ask[0]"),
        ({"ask": "approve", "max_rows": 5}, "max_rows limits extend, which is empty"),
        ({"extend": "gather", "max_rows": 0}, "escalation.max_rows"),
        ({"human": "approve"}, "human is not a known name. Known names: ask, extend, max_rows"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(value: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_escalation(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"thresholds": ["{latency} <= 50", "warn: {auc} >= champion - 0.01"]},
        {"significance": ["{auc}"]},
        {"slices": {"floors": ["{auc} >= 0.8"], "max_gap": {"{auc}": 0.1}}},
    ],
)
def test_a_known_metric_has_one_name_however_it_is_written_in_python(given: dict[str, Any]) -> None:
    def policy(**names: str) -> tuple[str, ...]:
        return GatePolicy.parse(**_named(given, names)).rules()

    snake = policy(latency="latency_ms", auc="roc_auc")
    assert policy(latency="latencyMs", auc="rocAuc") == snake
    assert all("latencyMs" not in rule and "rocAuc" not in rule for rule in snake)


def _named(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_named(key, names): _named(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return value.format(**names) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("given", "written", "meant"),
    [
        ({"thresholds": ["acuracy >= 0.9"]}, "acuracy", "accuracy"),
        ({"thresholds": ["Accuracy >= 0.9"]}, "Accuracy", "accuracy"),
        ({"slices": {"floors": ["recal_l >= 0.9"]}}, "recal_l", "recall"),
        ({"slices": {"max_gap": {"precison": 0.1}}}, "precison", "precision"),
    ],
)
def test_a_misspelled_metric_is_refused_before_anything_is_trained(
    given: dict[str, Any], written: str, meant: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"got '{written}'. Did you mean '{meant}'"):
        GatePolicy.parse(**given)

"""What a retrain policy may say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.exceptions import InvalidArgumentError


def test_a_policy_that_could_never_retrain_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no reason to retrain: set on_drift=True"):
        RetrainPolicy(on_drift=False)


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every", "cooldown", "label_delay"])
def test_a_negative_time_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} is datetime.timedelta\(days=-1\); allowed"):
        RetrainPolicy(**{name: timedelta(days=-1)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every"])
def test_a_limit_of_zero_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} is datetime.timedelta\(0\); allowed: a time above zero"):
        RetrainPolicy(**{name: timedelta(0)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"violations": 0}, "violations is 0; allowed: a whole number from 1 to 1"),
        ({"violations": 3, "windows": 2}, "violations is 3; allowed: a whole number from 1 to 2"),
        ({"windows": 21}, "windows is 21; allowed: a whole number from 1 to 20"),
        ({"windows": None}, "windows is None; allowed"),
        ({"daily_budget": 0}, "daily_budget is 0; allowed: a whole number from 1 to 20"),
        ({"weekly_budget": 2.5}, "weekly_budget is 2.5; allowed"),
        ({"max_rejections": True}, "max_rejections is True; allowed: a whole number from 1"),
        ({"min_new_rows": -1}, "min_new_rows is -1; allowed: a whole number from 1"),
        ({"min_new_labels": "many"}, "min_new_labels is 'many'; allowed: a whole number from 1"),
    ],
)
def test_a_number_that_means_nothing_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RetrainPolicy(**changes)
    assert message in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RetrainPolicy(on_drift=False, daily_budget=0, cooldown=timedelta(days=-1))
    assert all(name in str(caught.value) for name in ("on_drift", "daily_budget", "cooldown"))


def test_every_limit_can_be_switched_off() -> None:
    policy = RetrainPolicy(daily_budget=None, weekly_budget=None, max_rejections=None, cooldown=timedelta(0))
    assert policy.daily_budget is policy.weekly_budget is policy.max_rejections is None

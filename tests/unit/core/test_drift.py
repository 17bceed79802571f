"""The drift policy: what is allowed and how every problem is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_mcp.core.drift import CATEGORICAL_METHODS, NUMERICAL_METHODS, DriftPolicy
from airflow_mcp.exceptions import InvalidArgumentError


def test_the_defaults_are_a_policy() -> None:
    assert DriftPolicy() == DriftPolicy("wasserstein", 0.1, "jensenshannon", 0.1, 0.5, 100)


@pytest.mark.parametrize("method", NUMERICAL_METHODS)
def test_every_numerical_method_is_accepted(method: str) -> None:
    assert DriftPolicy(numerical_method=method, numerical_threshold=0.05).numerical_method == method


@pytest.mark.parametrize("method", CATEGORICAL_METHODS)
def test_every_categorical_method_is_accepted(method: str) -> None:
    assert DriftPolicy(categorical_method=method, categorical_threshold=0.05).categorical_method == method


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"numerical_method": "chisquare"}, "numerical_method is 'chisquare'; allowed: jensenshannon, kl_div, ks, psi"),
        ({"categorical_method": "ks"}, "categorical_method is 'ks'; allowed: TVD, chisquare, jensenshannon"),
        ({"categorical_method": ""}, "categorical_method is ''; allowed"),
        ({"numerical_threshold": 0}, "numerical_threshold is 0; allowed: a finite number above 0"),
        ({"numerical_threshold": -0.1}, "numerical_threshold is -0.1; allowed"),
        ({"numerical_threshold": math.nan}, "numerical_threshold is nan; allowed"),
        ({"categorical_threshold": math.inf}, "categorical_threshold is inf; allowed"),
        ({"drift_share": 0}, "drift_share is 0; allowed: above 0 and at most 1"),
        ({"drift_share": 1.0001}, "drift_share is 1.0001; allowed"),
        ({"drift_share": math.nan}, "drift_share is nan; allowed"),
        ({"min_rows": 0}, "min_rows is 0; allowed: 1 or more"),
    ],
)
def test_what_could_never_give_an_answer_is_refused_with_its_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        DriftPolicy(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize("threshold", [1, 1.5])
def test_a_p_value_of_one_or_more_is_refused_but_a_distance_may_be_great(threshold: float) -> None:
    with pytest.raises(InvalidArgumentError, match="allowed for the p-value of 'ks': between 0 and 1"):
        DriftPolicy(numerical_method="ks", numerical_threshold=threshold)
    assert DriftPolicy(numerical_method="wasserstein", numerical_threshold=threshold).numerical_threshold == threshold


@pytest.mark.parametrize("share", [1, 1e-9])
def test_the_edges_of_the_drift_share_are_allowed(share: float) -> None:
    assert DriftPolicy(drift_share=share, min_rows=1).drift_share == share


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        DriftPolicy("a", 0.1, "b", 0.1, 2, 0)
    for name in ("numerical_method", "categorical_method", "drift_share", "min_rows"):
        assert name in str(caught.value)

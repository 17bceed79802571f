from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mcp.core.drift.policy import METHODS, ComparisonPolicy, has_drifted, methods_for


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"numerical_method": "z"}, "numerical_method must be one of auto, wasserstein"),
        ({"categorical_method": "ks"}, "categorical_method must be one of auto, jensenshannon"),
        ({"numerical_threshold": 0.2}, "numerical_method must name a method when a threshold is given"),
        ({"numerical_method": "ks", "numerical_threshold": 1.5}, "must be a number between 0 and 1"),
        ({"numerical_method": "psi", "numerical_threshold": 0}, "must be a number above 0"),
        ({"rules": {"a": {"method": "nope"}}}, "got 'nope'"),
        ({"rules": {"a": {"threshold": 0.1}}}, "threshold needs a method"),
        ({"rules": {"a": {"method": "ks", "type": "categorical"}}}, "got 'ks'"),
        ({"columns": ("a", "b"), "ignored_columns": ("b",)}, "'b': cannot be both compared and ignored"),
        ({"target": "y", "ignored_columns": ("y",)}, "'y': cannot be both compared and ignored"),
        ({"prediction": "y", "target": "y"}, "prediction and target must differ; got 'y' for both"),
        ({"weights": {"a": 0.0}}, "at least one weight must be above 0"),
        ({"weights": {"a": -1.0}}, "greater than or equal to 0"),
        ({"drift_on_roles": ("feature",)}, "features count by drift_share"),
        ({"drift_share": 0}, "drift_share"),
        ({"min_rows": 0}, "min_rows"),
        ({"precision": "fast"}, "precision"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_policy_that_could_never_answer_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ComparisonPolicy.model_validate(fields)


def test_a_rule_for_a_column_goes_before_the_method_of_its_type() -> None:
    policy = ComparisonPolicy.model_validate(
        {"numerical_method": "psi", "numerical_threshold": 0.2, "rules": {"a": {"method": "ks", "threshold": 0.01}}}
    )
    assert policy.method_of("a", "numerical") == ("ks", 0.01)
    assert policy.method_of("b", "numerical") == ("psi", 0.2)
    assert policy.method_of("b", "categorical") == ("auto", None)


def test_roles_are_told_by_name() -> None:
    policy = ComparisonPolicy(prediction="p", target="y", quality_columns=("error",))
    assert [policy.role_of(name) for name in ("p", "y", "error", "x")] == ["prediction", "target", "quality", "feature"]
    assert policy.named_columns == ("error", "p", "y")


@pytest.mark.parametrize(
    ("method", "at_threshold", "below", "above"),
    [("wasserstein", True, False, True), ("ks", True, True, False), ("chisquare", False, True, False)],
)
def test_a_threshold_is_inclusive_where_evidentlys_is(
    method: str, at_threshold: bool, below: bool, above: bool
) -> None:
    limit = METHODS[method].threshold
    assert [has_drifted(method, limit + by, limit) for by in (0, -1e-9, 1e-9)] == [at_threshold, below, above]


def test_every_method_is_for_some_type() -> None:
    assert {*methods_for("numerical"), *methods_for("categorical")} == set(METHODS)

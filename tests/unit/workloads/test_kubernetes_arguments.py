"""Arguments of the pod operator: what users hand on to it must not hold a credential in plain text."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from kubernetes.client import V1EnvVar

from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator


@pytest.mark.parametrize(
    "variables",
    [
        {"LAKE_PASSWORD": "hunter2"},
        {"LAKE": "s3://user:hunter2@lake"},
        [{"name": "LAKE_PASSWORD", "value": "hunter2"}],
        [V1EnvVar(name="LAKE_PASSWORD", value="hunter2")],
    ],
    ids=["name", "value", "mappings", "objects"],
)
def test_a_credential_among_the_variables_is_refused_and_not_shown(variables: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="env_vars must have no credential; got LAKE") as refused:
        bare_pod_operator(PodOptions(pod_kwargs={"env_vars": variables}), task=EmptyOperator(task_id="train"))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"USE_TOKEN": "true", "PAD_TOKEN": "[PAD]"},
        [{"name": "LAKE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "lake", "key": "password"}}}],
    ],
    ids=["switch and token of a text", "from a Secret"],
)
def test_what_only_sounds_like_one_or_comes_from_a_secret_is_taken(variables: Any) -> None:
    operator = bare_pod_operator(PodOptions(pod_kwargs={"env_vars": variables}), task=EmptyOperator(task_id="train"))
    assert operator.env_vars is not None

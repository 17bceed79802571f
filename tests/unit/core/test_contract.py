"""The public names: none may change, clash, or be a name that MLflow refuses."""

from __future__ import annotations

import re

from airflow_mcp.core import contract


def constants(prefix: str) -> dict[str, str]:
    return {name: value for name, value in vars(contract).items() if name.startswith(prefix)}


def test_no_two_constants_of_a_kind_have_the_same_name() -> None:
    for prefix in ("ENV_", "TAG_", "KIND_", "ARTIFACT_", "ALIAS_"):
        found = constants(prefix)
        assert found, prefix
        assert len(set(found.values())) == len(found), prefix


def test_tags_are_ours_and_environment_variables_are_ours_or_those_of_mlflow_and_opentelemetry() -> None:
    assert all(tag.startswith(contract.TAG_PREFIX) for tag in constants("TAG_").values())
    assert all(re.fullmatch("(AIRFLOW_MCP|MLFLOW)_[A-Z_]+|TRACEPARENT", name) for name in constants("ENV_").values())
    assert not [name for name in constants("ENV_").values() if name.startswith("AIRFLOW__")]


def test_artifacts_stay_inside_the_run() -> None:
    for path in constants("ARTIFACT_").values():
        assert re.fullmatch(r"[a-z]+(/[a-z]+((\.dsse)?\.(json|html|parquet))?)?", path), path


def test_mlflow_accepts_every_alias() -> None:
    for alias in constants("ALIAS_").values():
        assert re.fullmatch(r"[\w-]+", alias)
        assert alias != "latest"
        assert not re.fullmatch(r"v\d+", alias)

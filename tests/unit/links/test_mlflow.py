"""Links read what the operator noted and never get in its way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseOperatorLink

from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink

CASES = [(MlflowRunLink(), "mlflow_run_url"), (MlflowModelVersionLink(), "mlflow_model_version_url")]


class Raising:
    @property
    def mlflow_run_url(self) -> str:
        raise RuntimeError("no")

    mlflow_model_version_url = mlflow_run_url


@pytest.mark.parametrize(("link", "attribute"), CASES)
def test_the_noted_address_is_the_link(link: BaseOperatorLink, attribute: str) -> None:
    operator: Any = SimpleNamespace(**{attribute: "https://ml.example.com/#/x"})
    key: Any = None
    assert link.get_link(operator, ti_key=key) == "https://ml.example.com/#/x"


@pytest.mark.parametrize(("link", "attribute"), CASES)
@pytest.mark.parametrize("value", [None, "", 5, "javascript:alert(1)"])
def test_anything_else_is_no_link(link: BaseOperatorLink, attribute: str, value: Any) -> None:
    key: Any = None
    operators: list[Any] = [SimpleNamespace(**{attribute: value}), SimpleNamespace(), Raising()]
    assert [link.get_link(operator, ti_key=key) for operator in operators] == ["", "", ""]


def test_names_and_keys_differ() -> None:
    assert [link.name for link, _ in CASES] == ["MLflow run", "MLflow model version"]
    assert len({link.xcom_key for link, _ in CASES}) == 2

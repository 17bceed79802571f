"""Extra links of operators that lead to MLflow.

Airflow resolves them on the worker when the task ends and stores the addresses, so a link only reads an attribute that
the operator has set by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class MlflowRunLink(BaseOperatorLink):
    """Link to the MLflow run in the operator's attribute ``mlflow_run_url``."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _address(operator, "mlflow_run_url")


class MlflowModelVersionLink(BaseOperatorLink):
    """Link to the model version in the operator's attribute ``mlflow_model_version_url``."""

    name = "MLflow model version"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _address(operator, "mlflow_model_version_url")


class GateReportLink(BaseOperatorLink):
    """Link to the gate report in the operator's attribute ``gate_report_url``."""

    name = "Gate report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _address(operator, "gate_report_url")


def _address(operator: BaseOperator, attribute: str) -> str:
    try:
        value = getattr(operator, attribute, None)
    except Exception:
        # A link must never fail the task that it belongs to.
        return ""
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else ""

"""Buttons on a task that lead to MLflow.

Airflow asks for them on the worker when the task ends and stores the answer, so they only read what the operator
has noted by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class MlflowRunLink(BaseOperatorLink):
    """Leads to the run that the operator noted in its attribute ``mlflow_run_url``."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _noted(operator, "mlflow_run_url")


class MlflowModelVersionLink(BaseOperatorLink):
    """Leads to the model version that the operator noted in its attribute ``mlflow_model_version_url``."""

    name = "MLflow model version"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _noted(operator, "mlflow_model_version_url")


class GateReportLink(BaseOperatorLink):
    """Leads straight to the gate's report, which the operator noted in its attribute ``gate_report_url``."""

    name = "Gate report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty text when there is none.

        :param operator: operator that ran.
        :param ti_key: its task instance.
        """
        return _noted(operator, "gate_report_url")


def _noted(operator: BaseOperator, attribute: str) -> str:
    try:
        value = getattr(operator, attribute, None)
    except Exception:
        # A link must never fail the task that it belongs to.
        return ""
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else ""

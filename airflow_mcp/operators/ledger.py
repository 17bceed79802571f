"""What the operators share that write to the ledger of a model's retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_mcp.core.retrain.documents import ledger_name, words
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.retrain import RetrainLedger
from airflow_mcp.operators.base import ModelControlOperator, required_text

if TYPE_CHECKING:
    from airflow.sdk import Context


class LedgerOperator(ModelControlOperator):
    """Base of the operators that write to a ledger; its asset is an inlet of the task, as Airflow asks for.

    :param model_name: registered model.
    :param ledger: asset whose state store holds the ledger; None names it after the model.
    """

    def __init__(self, *, model_name: str, ledger: Asset | None = None, **kwargs: Any) -> None:
        if ledger is None and "{{" in model_name:
            raise InvalidArgumentError(
                f"model_name is the template {model_name!r}, and the ledger is named after the model when the Dag is "
                "parsed; say ledger=Asset('retrain/<model>')"
            )
        self.ledger = Asset(ledger_name(model_name)) if ledger is None else ledger
        super().__init__(inlets=[*(kwargs.pop("inlets", None) or []), self.ledger], **kwargs)
        self.model_name = model_name

    def open_ledger(self, context: Context) -> RetrainLedger:
        """Give the ledger in Airflow's state store."""
        store = context["asset_state_store"][self.ledger]
        return RetrainLedger(store, required_text("model_name", self.model_name))

    def who(self, context: Context) -> str:
        """Name Dag, task and Dag run for the ledger."""
        key = self.task_key(context)
        return words(f"{key.dag_id}.{key.task_id} {key.dag_run_id}")

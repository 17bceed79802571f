"""Base of the operators that write to a model's retrain ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_mcp.core.argument import required_text
from airflow_mcp.core.retrain.documents import ledger_name, words
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.retrain_ledger import RetrainLedger

if TYPE_CHECKING:
    from airflow.sdk import Context


class LedgerOperator(ModelControlOperator):
    """Base of the operators that write to a ledger. The ledger's asset is an inlet of the task, as Airflow requires.

    :param model_name: registered model.
    :param ledger: asset whose state store holds the ledger; None takes the asset ``retrain/<model>``.
    """

    def __init__(self, *, model_name: str, ledger: Asset | None = None, **kwargs: Any) -> None:
        self.ledger = _ledger_of(model_name) if ledger is None else ledger
        super().__init__(inlets=[*(kwargs.pop("inlets", None) or []), self.ledger], **kwargs)
        self.model_name = model_name

    def open_ledger(self, context: Context) -> RetrainLedger:
        """Return the ledger in Airflow's state store."""
        store = context["asset_state_store"][self.ledger]
        return RetrainLedger(store, required_text("model_name", self.model_name))

    def who(self, context: Context) -> str:
        """Return Dag, task and Dag run as text for the ledger."""
        return words(str(self.actor(context)))


def _ledger_of(model_name: Any) -> Asset:
    """Return the asset named after the model. Airflow must know assets when it parses the Dag.

    :raises InvalidArgumentError: when the name is known only when the task runs.
    """
    text = getattr(model_name, "value", None)  # airflow.sdk.literal: text that is not a template
    if text is None:
        text = model_name
        is_known = model_name is None or (isinstance(model_name, str) and "{{" not in model_name)
    else:
        is_known = isinstance(text, str)
    if not is_known:
        raise InvalidArgumentError(
            f"ledger must be given when model_name is a template; got model_name {str(model_name)!r}. The ledger is "
            "named when the Dag is parsed: pass ledger=Asset('retrain/<model>')"
        )
    return Asset(ledger_name(str(text)))

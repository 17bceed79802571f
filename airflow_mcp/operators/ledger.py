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
    from airflow.sdk.definitions.mappedoperator import OperatorPartial


class LedgerOperator(ModelControlOperator):
    """Base of the operators that write to a ledger. The ledger's asset is an inlet of the task, as Airflow requires.

    :param model_name: registered model.
    :param ledger: asset whose state store holds the ledger; None takes the asset ``retrain/<model>``.
    """

    def __init__(self, *, model_name: str, ledger: Asset | None = None, **kwargs: Any) -> None:
        self.ledger = _ledger_of(model_name) if ledger is None else ledger
        super().__init__(inlets=_with_ledger(kwargs.pop("inlets", None), self.ledger), **kwargs)
        self.model_name = model_name

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Prepare a mapped task. Its ledgers become inlets here, because ``__init__`` runs only in the worker.

        :raises InvalidArgumentError: when the ledger is not known yet, and no inlets are given.
        """
        ledger, model_name = kwargs.get("ledger"), kwargs.get("model_name")
        if ledger is None and model_name is not None:
            ledger = _ledger_of(model_name)
        if ledger is None and not kwargs.get("inlets"):
            raise InvalidArgumentError(
                "ledger or inlets must be given to partial() when model_name is mapped; got neither. Airflow gives a "
                "task only the ledgers among its inlets: pass inlets=[Asset('retrain/<model>'), ...], one per model"
            )
        inlets = kwargs.pop("inlets", None)
        return super().partial(inlets=_with_ledger(inlets, ledger) if ledger else inlets, **kwargs)

    def open_ledger(self, context: Context) -> RetrainLedger:
        """Return the ledger in Airflow's state store.

        :raises InvalidArgumentError: when the ledger is not an inlet of a mapped task.
        """
        name = required_text("model_name", self.model_name)
        try:
            return RetrainLedger(context["asset_state_store"][self.ledger], name)
        except KeyError:
            raise InvalidArgumentError(
                f"the ledger {self.ledger.name!r} is not an inlet of this task, so Airflow gives no access to it. "
                f"Nothing was recorded; pass inlets=[Asset({self.ledger.name!r}), ...] to partial()"
            ) from None

    def who(self, context: Context) -> str:
        """Return Dag, task and Dag run as text for the ledger."""
        return words(str(self.actor(context)))


def _with_ledger(inlets: Any, ledger: Asset) -> list[Any]:
    given = list(inlets or [])
    return given if ledger in given else [*given, ledger]


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

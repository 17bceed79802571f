"""Feature importance as an MLflow run stores it: a JSON object from feature to number."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.argument import problems_of
from airflow_mcp.exceptions import EvidenceError

PLACES = (
    contract.ARTIFACT_IMPORTANCE,
    "feature_importance.json",
    *(f"feature_importance_{kind}.json" for kind in ("gain", "total_gain", "weight", "split")),
)
"""Artifacts that may hold it, in order of preference: measured by the evaluation, logged by the script under this
name, or stored by MLflow's autologging of XGBoost and LightGBM."""
_IMPORTANCE = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])


def read_importance(text: bytes, source: str) -> dict[str, float]:
    """Read feature importance.

    :param text: JSON text.
    :param source: where it came from, for the message.
    :return: importance by feature; at least one is above 0.
    :raises EvidenceError: when the text is anything else.
    """
    try:
        found = _IMPORTANCE.validate_json(text)
    except ValidationError as error:
        raise EvidenceError(
            f"{source} is not a JSON object from feature to importance: {problems_of(error, 'the document')}. Nothing "
            "was compared"
        ) from None
    if not any(found.values()):
        raise EvidenceError(f"{source} has no feature with an importance above 0. Nothing was compared")
    return found

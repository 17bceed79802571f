"""Importance of features, as it is kept with an MLflow run: one JSON object of feature to number."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.document import problems_of
from airflow_mcp.exceptions import EvidenceError

PLACES = (
    contract.ARTIFACT_IMPORTANCE,
    "feature_importance.json",
    *(f"feature_importance_{kind}.json" for kind in ("gain", "total_gain", "weight", "split")),
)
"""Where a run may have it, the first that is there: what the evaluation measured, what the script logged under this
name, and what MLflow's autologging keeps of XGBoost and LightGBM."""
_IMPORTANCE = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])


def read_importance(text: bytes, source: str) -> dict[str, float]:
    """Read the importance of features.

    :param text: JSON text.
    :param source: where it came from, for the message.
    :return: feature to importance; at least one is above 0.
    :raises EvidenceError: when it is something else.
    """
    try:
        found = _IMPORTANCE.validate_json(text)
    except ValidationError as error:
        raise EvidenceError(
            f"{source} is not usable: {problems_of(error, 'the document')}; allowed: an object of feature to a finite "
            "number that is not negative. Nothing was compared"
        ) from None
    if not any(found.values()):
        raise EvidenceError(f"{source} has no feature with an importance above 0. Nothing was compared")
    return found

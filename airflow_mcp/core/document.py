"""The base of JSON documents: strict, frozen, and without numbers that JSON cannot hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Document(BaseModel):
    """One JSON document, or a part of one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


def problems_of(error: ValidationError, whole: str) -> str:
    """List every problem, each with its place.

    :param error: what the validation raised.
    :param whole: name of the place of what is wrong with the document as a whole.
    """
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or whole}: {item['msg']}" for item in error.errors())

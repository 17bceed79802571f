"""The base of JSON documents and of mappings in arguments: strict, frozen, no numbers that JSON cannot hold."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_mcp.core.argument import problems_of
from airflow_mcp.exceptions import EvidenceError


class Document(BaseModel):
    """A JSON document, a part of one, or a mapping that is given as an argument."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class CheckRequest(Document):
    """The request of a step that records its result in an MLflow run of its own."""

    identity: str = ""
    """Identity of the work; empty until it is known."""
    run_id: str = ""
    """MLflow run of the check."""


_DocumentT = TypeVar("_DocumentT", bound=BaseModel)


def parse_document(model: type[_DocumentT], text: str | bytes, source: str) -> _DocumentT:
    """Read a request or a result strictly.

    :param model: class of the result.
    :param text: JSON text.
    :param source: where the text came from, for the message.
    :raises EvidenceError: when the text is not such a document; every problem is listed.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise EvidenceError(
            f"{source} is not a valid {model.__name__}: "
            f"{problems_of(error, 'the document', model, then='Nothing was decided from it')}"
        ) from None


def dump_document(document: Document, *, indent: int | None = 2) -> str:
    """Write a request or a result as JSON text."""
    return document.model_dump_json(by_alias=True, indent=indent)


def plain(document: Document) -> dict[str, Any]:
    """Return a document as plain JSON values, fit for XCom."""
    return document.model_dump(mode="json", by_alias=True)

"""The base of JSON documents: strict, frozen, and without numbers that JSON cannot hold."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_mcp.exceptions import EvidenceError


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


_DocumentT = TypeVar("_DocumentT", bound=BaseModel)


def parse_document(model: type[_DocumentT], text: str | bytes, source: str) -> _DocumentT:
    """Read a request or a result strictly.

    :param model: the class of document expected.
    :param text: JSON text.
    :param source: where the text came from, for the error message.
    :raises EvidenceError: when the text is not such a document; every problem is listed.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise EvidenceError(
            f"{source} is not a valid {model.__name__}: {problems_of(error, 'document')}. Nothing was decided from it."
        ) from None


def dump_document(document: Document, *, indent: int | None = 2) -> str:
    """Write a request or a result as JSON."""
    return document.model_dump_json(by_alias=True, indent=indent)


def plain(document: Document) -> dict[str, Any]:
    """Give a document as plain JSON values, fit for XCom."""
    return document.model_dump(mode="json", by_alias=True)

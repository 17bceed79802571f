"""Clearances: the signed permission for one passport to enter one environment, which a model server checks offline."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from airflow_mcp.core.document import Document, parse_document, plain
from airflow_mcp.core.passport.dsse import sign, verify
from airflow_mcp.core.passport.statement import STATEMENT_TYPE, Sha256, statement_bytes
from airflow_mcp.core.ports import Signer
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import EvidenceError, PassportError

CLEARANCE_TYPE: Literal["https://mcp.example.com/clearance/v1"] = "https://mcp.example.com/clearance/v1"


class Clearance(Document):
    """Which passport may enter which environment, and by what that was decided."""

    environment: Literal["dev", "test", "prod"]
    model_name: str
    policy: str = ""
    """Hash of the policy that allowed it."""
    approved_by: tuple[str, ...] = ()
    """Names of the people whose votes counted."""
    intent_seq: Annotated[int, Field(ge=0)] = 0
    """Number of the move's intent in the audit log; 0 without a log."""
    intent_hash: str = ""
    """Hash of that record, 64 hexadecimal characters."""


class _Subject(Document):
    name: Literal["passport"] = "passport"
    digest: dict[Literal["sha256"], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


class _Statement(Document):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Literal["https://mcp.example.com/clearance/v1"] = Field(
        default=CLEARANCE_TYPE, alias="predicateType"
    )
    predicate: Clearance


def sign_clearance(passport: Sha256, clearance: Clearance, signer: Signer) -> str:
    """Return a signed clearance as JSON, for :data:`~airflow_mcp.core.contract.TAG_CLEARANCE`.

    :param passport: digest of the passport.
    :param clearance: what is permitted.
    :param signer: what signs.
    """
    subject = {"name": "passport", "digest": {"sha256": passport.removeprefix("sha256:")}}
    return sign(statement_bytes(CLEARANCE_TYPE, subject, plain(clearance)), signer)


def verify_clearance(
    envelope: str,
    keys: Iterable[VerificationKey],
    *,
    passport: str,
    model_name: str,
    environment: str,
    signed_at: datetime | None = None,
) -> Clearance:
    """Return a clearance whose signature counts, for exactly this passport, model and environment.

    :param envelope: the signed clearance; empty when there is none.
    :param keys: the keys whose signatures count.
    :param passport: digest of the passport, ``sha256:<hex>``.
    :param model_name: registered model.
    :param environment: where the model is to be used.
    :param signed_at: when it was signed, as the audit log says; None when that is not known.
    :raises PassportError: naming what is wrong.
    """
    if not envelope:
        raise PassportError(f"clearance: the version has none, so it was not promoted under a policy in {environment}")
    try:
        found = parse_document(_Statement, verify(envelope, keys, signed_at=signed_at), "the clearance")
    except EvidenceError as error:
        raise PassportError(f"clearance: {error}") from None
    except PassportError as error:
        raise PassportError(f"clearance: {error}") from None
    (subject,), clearance = found.subject, found.predicate
    if f"sha256:{subject.digest['sha256']}" != passport:
        raise PassportError(
            f"clearance: it is of passport sha256:{subject.digest['sha256']}, and the version has {passport}"
        )
    if (clearance.model_name, clearance.environment) != (model_name, environment):
        raise PassportError(
            f"clearance: it is of {clearance.model_name!r} in {clearance.environment}, not of {model_name!r} in "
            f"{environment}"
        )
    return clearance

"""Verification of a passport: whose signature, and of which files and which version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from airflow_mcp.core import contract
from airflow_mcp.core.passport.dsse import verify
from airflow_mcp.core.passport.statement import Statement, read_statement
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import PassportError


def verify_passport(
    envelope: str | bytes,
    keys: Iterable[VerificationKey],
    *,
    model_name: str,
    files: str = "",
    signed_at: datetime | None = None,
) -> Statement:
    """Return a passport whose signature counts and which is about the right model and files.

    :param envelope: the signed passport as JSON.
    :param keys: the keys whose signatures count.
    :param model_name: registered model that it must be about.
    :param files: digest that the model's files have, ``sha256:<hex>``; empty does not compare it.
    :param signed_at: when it was signed, as ``passport.issued`` in the audit log says; None when that is not known.
    :raises PassportError: naming the field that is wrong.
    """
    statement = read_statement(verify(envelope, keys, signed_at=signed_at))
    if statement.passport.model.name != model_name:
        raise PassportError(f"model.name: the passport is of {statement.passport.model.name!r}, not of {model_name!r}")
    if files:
        require_files(statement, files)
    return statement


def require_files(statement: Statement, files: str) -> None:
    """Check that a passport is of these files.

    :param statement: the passport.
    :param files: digest that the model's files have.
    :raises PassportError: naming both digests.
    """
    if files != statement.files:
        raise PassportError(
            f"subject.digest: the files have the digest {files}, and the passport is of {statement.files}"
        )


def passport_of(tags: Mapping[str, str]) -> str:
    """Return the signed passport in the tags of a version.

    :param tags: tags of the version.
    :raises PassportError: when there is none.
    """
    envelope = tags.get(contract.TAG_PASSPORT_ENVELOPE, "")
    if not envelope:
        raise PassportError("the version has no passport")
    return envelope


def verify_tagged(
    tags: Mapping[str, str],
    keys: Iterable[VerificationKey],
    *,
    model_name: str,
    files: str = "",
    signed_at: datetime | None = None,
) -> Statement:
    """Return the passport in the tags of a version, verified; the arguments are those of :func:`verify_passport`.

    :param tags: tags of the version.
    :raises PassportError: as :func:`verify_passport`, when the version has no passport, and when its tags name another
        one.
    """
    statement = verify_passport(passport_of(tags), keys, model_name=model_name, files=files, signed_at=signed_at)
    named = tags.get(contract.TAG_PASSPORT, "")
    if named != statement.digest:
        raise PassportError(
            f"{contract.TAG_PASSPORT}: it names {named or 'no passport'}, and the signed passport is {statement.digest}"
        )
    return statement

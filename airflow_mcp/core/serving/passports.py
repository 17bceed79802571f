"""Whether a version has a passport, and the permission to be served in an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_mcp.core import contract
from airflow_mcp.core.passport.clearance import verify_clearance
from airflow_mcp.core.passport.verify import verify_tagged
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import PassportError


def why_no_passport(
    model_name: str, tags: Mapping[str, str], digest: str, keys: Sequence[VerificationKey], environment: str
) -> str:
    """Return why a version must not be loaded where passports are required; empty when it may.

    :param model_name: registered model.
    :param tags: tags of the version.
    :param digest: digest of the files that were fetched; empty when they are elsewhere.
    :param keys: the keys whose signatures count.
    :param environment: where it would be served: its clearance must be for there; empty requires no clearance.
    """
    if not digest:
        return "its files are served elsewhere, so they cannot be compared with a passport"
    try:
        statement = verify_tagged(tags, keys, model_name=model_name, files=digest)
        if environment:
            verify_clearance(
                tags.get(contract.TAG_CLEARANCE, ""),
                keys,
                passport=statement.digest,
                model_name=model_name,
                environment=environment,
            )
    except PassportError as error:
        return str(error)
    return ""

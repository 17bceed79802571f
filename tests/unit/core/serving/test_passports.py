"""Whether a version may be loaded where passports are required."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.passport.build import build_statement
from airflow_mcp.core.passport.clearance import Clearance, sign_clearance
from airflow_mcp.core.passport.dsse import sign
from airflow_mcp.core.serving.passports import why_no_passport
from tests.support.passports import FILES, key_pair, record_of

PRIVATE, PUBLIC = key_pair()
STATEMENT = build_statement(record_of(), "0.1.0")
PASSPORT = {
    contract.TAG_PASSPORT: STATEMENT.digest,
    contract.TAG_PASSPORT_ENVELOPE: sign(STATEMENT.payload, PRIVATE),
}


def cleared(environment: str, passport: str = STATEMENT.digest) -> dict[str, str]:
    clearance = Clearance.model_validate({"environment": environment, "model_name": "fraud"})
    return {**PASSPORT, contract.TAG_CLEARANCE: sign_clearance(passport, clearance, PRIVATE)}


def rewritten() -> dict[str, str]:
    """Return the tags after somebody wrote another commit into the statement."""
    envelope = json.loads(PASSPORT[contract.TAG_PASSPORT_ENVELOPE])
    payload = base64.b64decode(envelope["payload"]).replace(b"c" * 40, b"d" * 40)
    text = json.dumps({**envelope, "payload": base64.b64encode(payload).decode()})
    return {**PASSPORT, contract.TAG_PASSPORT_ENVELOPE: text}


def ask(tags: Mapping[str, str], environment: str = "", name: str = "fraud", digest: str = FILES) -> str:
    return why_no_passport(name, tags, digest, [PUBLIC], environment)


def test_a_passport_of_these_files_is_enough() -> None:
    assert ask(PASSPORT) == ""


def test_a_clearance_is_enough_for_its_environment() -> None:
    assert ask(cleared("prod"), "prod") == ""


@pytest.mark.parametrize(
    ("tags", "environment", "said"),
    [
        ({}, "", "the version has no passport"),
        (rewritten(), "", "no known key has signed"),
        (PASSPORT, "prod", "clearance: the version has none"),
        (cleared("test"), "prod", "in test, not of 'fraud' in prod"),
        (cleared("prod", "sha256:" + "0" * 64), "prod", "clearance: it is of passport"),
    ],
    ids=["none", "rewritten", "no clearance", "clearance for elsewhere", "clearance of another passport"],
)
def test_anything_else_is_refused(tags: Mapping[str, str], environment: str, said: str) -> None:
    assert said in ask(tags, environment)


def test_other_files_and_another_model_are_refused() -> None:
    assert "subject.digest" in ask(PASSPORT, digest="sha256:" + "0" * 64)
    assert "model.name" in ask(PASSPORT, name="churn")


def test_files_that_are_elsewhere_are_refused() -> None:
    assert "served elsewhere" in ask(PASSPORT, digest="")


def test_a_key_that_is_not_among_the_known_ones_is_refused() -> None:
    assert "no known key" in why_no_passport("fraud", PASSPORT, FILES, [key_pair()[1]], "")

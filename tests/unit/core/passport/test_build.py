"""Passports: what is stated about a version, what is refused, and what shows later."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.passport.build import build_statement, differences
from airflow_mcp.core.passport.clearance import Clearance, sign_clearance, verify_clearance
from airflow_mcp.core.passport.dsse import sign
from airflow_mcp.core.passport.statement import Statement, read_statement, statement_bytes
from airflow_mcp.core.passport.verify import verify_passport, verify_tagged
from airflow_mcp.core.registry.copies import CopiedFrom
from airflow_mcp.exceptions import PassportError
from tests.support.passports import CHECK, FILES, PROVENANCE, REPORT, REPORT_HASH, key_pair, record_of

OTHER = "sha256:" + "0" * 64


def statement(*arguments: Any, **record: Any) -> Statement:
    return build_statement(record_of(*arguments, **record), "0.1.0")


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in PROVENANCE.items() if name not in names}


class TestAStatement:
    def test_says_what_the_model_was_made_from(self) -> None:
        said = json.loads(statement().payload)
        assert said["_type"] == "https://in-toto.io/Statement/v1"
        assert said["subject"] == [{"name": "fraud", "digest": {"sha256": "f" * 64}}]
        predicate = said["predicate"]
        assert predicate["code"] == {
            "url": "https://git.example/models.git",
            "ref": "refs/tags/v1.2",
            "commit": "c" * 40,
            "hash": "sha256:" + "1" * 64,
        }
        assert [data["role"] for data in predicate["data"]] == ["training", "evaluation"]
        assert (predicate["gate"]["decision"], predicate["gate"]["report"]) == ("passed", REPORT_HASH)
        assert (predicate["environment"], predicate["unknown"]) == ("prod", ["data.evaluation.version"])

    def test_has_no_time_and_no_number_of_the_version(self) -> None:
        later = replace(CHECK, at="2027-01-01T00:00:00+00:00", run_id="r9")
        assert statement(version="8", check=later).digest == statement().digest

    def test_names_what_nobody_knows(self) -> None:
        tags = without(contract.TAG_CODE_REF, contract.TAG_IMAGE_DIGEST)
        said = statement(tags, tags, report=None).passport
        assert said.unknown == ("code.ref", "gate", "image.digest")

    def test_names_a_champion_without_a_passport(self) -> None:
        record = replace(record_of(), compared_with=None)
        assert "compared_with" in build_statement(record, "0.1.0").passport.unknown

    @pytest.mark.parametrize("tag", sorted(PROVENANCE))
    def test_is_refused_when_version_and_run_differ(self, tag: str) -> None:
        with pytest.raises(PassportError, match=f"{tag} is other on the version"):
            statement({**PROVENANCE, tag: "other"})

    @pytest.mark.parametrize("tag", sorted(PROVENANCE))
    def test_is_refused_when_the_run_has_lost_a_fact(self, tag: str) -> None:
        with pytest.raises(PassportError, match=f"{tag} is .* and not set on the run"):
            statement(PROVENANCE, without(tag))

    def test_is_refused_when_the_run_is_gone(self) -> None:
        with pytest.raises(PassportError, match="r1 does not exist any more"):
            statement(PROVENANCE, None)

    @pytest.mark.parametrize(
        "check", [None, replace(CHECK, digest=""), replace(CHECK, verdict="failed")], ids=["none", "old", "failed"]
    )
    def test_is_refused_without_the_digest_of_files_that_load(self, check: Any) -> None:
        with pytest.raises(PassportError, match="no passed load check"):
            statement(check=check)

    def test_is_read_back(self) -> None:
        made = statement()
        read = read_statement(made.payload)
        assert (read.files, read.passport, read.digest) == (made.files, made.passport, made.digest)

    def test_that_is_spelt_differently_is_refused(self) -> None:
        with pytest.raises(PassportError, match="canonical form"):
            read_statement(json.dumps(json.loads(statement().payload), indent=1).encode())

    def test_about_something_else_is_refused(self) -> None:
        with pytest.raises(PassportError, match="not a passport"):
            read_statement(statement_bytes("https://slsa.dev/provenance/v1", {"name": "a", "digest": {}}, {}))


class TestDifferences:
    def test_are_none_for_the_same_facts_and_a_later_load_check(self) -> None:
        later = replace(CHECK, image="another", libraries={"python": "3.12.1"})
        newer = build_statement(record_of(check=later), "0.2.0")
        assert differences(statement(), newer, is_copy=False) == ()

    @pytest.mark.parametrize(
        ("tag", "field"),
        [
            (contract.TAG_CODE_COMMIT, "code.commit"),
            (contract.TAG_DATA_HASH, "data.training.digest"),
            (contract.TAG_CONFIG_HASH, "config.digest"),
            (contract.TAG_IMAGE_DIGEST, "image.digest"),
            (contract.TAG_ENVIRONMENT, "environment"),
        ],
    )
    def test_name_a_fact_that_was_rewritten_on_version_and_run(self, tag: str, field: str) -> None:
        tags = {**PROVENANCE, tag: "other"}
        (found,) = differences(statement(), statement(tags, tags), is_copy=False)
        assert found == f"{field} is {PROVENANCE[tag]} in the passport, and other now"

    def test_name_other_files(self) -> None:
        found = differences(statement(), statement(check=replace(CHECK, digest=OTHER)), is_copy=False)
        assert found == (f"files is {FILES} in the passport, and {OTHER} now",)

    def test_name_a_gate_that_is_gone(self) -> None:
        found = differences(statement(), statement(report=None), is_copy=False)
        assert any(line.startswith("gate.report is") for line in found)

    def test_are_none_for_a_copy_of_the_same_name(self) -> None:
        origin = CopiedFrom("https://mlflow.example", "fraud", "7", "r1", "2026-11-29", "lena", FILES)
        tags = {**PROVENANCE, contract.TAG_COPY_RUN: "r8", contract.TAG_COPIED_FROM: origin.to_tag()}
        copy = statement(tags, {contract.TAG_ENVIRONMENT: "test"}, run_id="r8", model_id="m-2", version="1")
        assert copy.passport.run.id == "r1"
        assert differences(statement(), copy, is_copy=True) == ()

    def test_name_a_gate_of_the_copy_itself(self) -> None:
        tags = {**PROVENANCE, contract.TAG_COPY_RUN: "r8"}
        copy = statement(tags, {}, report=REPORT.model_copy(update={"evidence_identity": "e2"}))
        assert [line.partition(" ")[0] for line in differences(statement(), copy, is_copy=True)] == ["gate.evidence"]


class TestAPassport:
    def test_is_accepted_for_its_model_and_its_files(self) -> None:
        private, public = key_pair()
        made = statement()
        found = verify_passport(sign(made.payload, private), [public], model_name="fraud", files=FILES)
        assert found.digest == made.digest

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"model_name": "churn", "files": FILES}, "model.name: the passport is of 'fraud'"),
            ({"model_name": "fraud", "files": OTHER}, "subject.digest: the files have the digest"),
        ],
    )
    def test_of_something_else_is_refused(self, asked: Any, said: str) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match=said):
            verify_passport(sign(statement().payload, private), [public], **asked)

    def test_in_tags_that_name_another_one_is_refused(self) -> None:
        private, public = key_pair()
        tags = {contract.TAG_PASSPORT: OTHER, contract.TAG_PASSPORT_ENVELOPE: sign(statement().payload, private)}
        with pytest.raises(PassportError, match=f"it names {OTHER}"):
            verify_tagged(tags, [public], model_name="fraud")

    def test_that_is_missing_is_refused(self) -> None:
        with pytest.raises(PassportError, match="the version has no passport"):
            verify_tagged({}, [], model_name="fraud")

    def test_cannot_stand_for_a_clearance(self) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match="clearance"):
            verify_clearance(
                sign(statement().payload, private),
                [public],
                passport=statement().digest,
                model_name="fraud",
                environment="prod",
            )


class TestAClearance:
    CLEARANCE = Clearance(environment="prod", model_name="fraud", approved_by=("lena",), intent_seq=4)

    def ask(self, envelope: str, *keys: Any, **changes: str) -> Clearance:
        asked = {"passport": FILES, "model_name": "fraud", "environment": "prod", **changes}
        return verify_clearance(envelope, keys, **asked)

    def test_is_accepted_for_what_it_permits(self) -> None:
        private, public = key_pair()
        assert self.ask(sign_clearance(FILES, self.CLEARANCE, private), public) == self.CLEARANCE

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"passport": OTHER}, "it is of passport"),
            ({"model_name": "churn"}, "not of 'churn'"),
            ({"environment": "test"}, "in prod, not of 'fraud' in test"),
        ],
    )
    def test_for_something_else_is_refused(self, changes: dict[str, str], said: str) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match=said):
            self.ask(sign_clearance(FILES, self.CLEARANCE, private), public, **changes)

    def test_of_another_key_is_refused(self) -> None:
        private, _ = key_pair()
        _, other = key_pair()
        with pytest.raises(PassportError, match="clearance: signature"):
            self.ask(sign_clearance(FILES, self.CLEARANCE, private), other)

    def test_that_is_missing_is_refused(self) -> None:
        with pytest.raises(PassportError, match="the version has none"):
            self.ask("")
